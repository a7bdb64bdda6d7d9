/* SPDX-License-Identifier: MIT */
/*
 * The oracle's judgement of the format extension, in a separate file because few images have one.
 */
#ifndef ORACLE_EXTENSION_H
#define ORACLE_EXTENSION_H

#include "oracle.h"

/*
 * 0, or -1 and `why` (160 bytes). `clusters` has a byte for each host cluster; those that the
 * extension holds are set.
 */
int oracle_extension_check(struct oracle *oracle, uint8_t *clusters, char *why);

typedef void oracle_feature_fn(void *user_data, uint64_t magic, uint64_t flags, const uint8_t *data,
                               uint32_t size);

/*
 * The features of the extension at ext_off, whatever in_use says. Returns their number, 0 without
 * an extension; -1 and `why`: it is not whole, as oracle_extension_check() says.
 */
int oracle_extension_features(struct oracle *oracle, oracle_feature_fn *feature, void *user_data,
                              char *why);

/*
 * Whether the extension forbids opening the image for writing: its features cannot be parsed, or it
 * has an unknown NECESSARY feature, or it overlaps a guest's cluster. A bitmap that is wrong in
 * itself is only dropped.
 */
bool oracle_extension_forbids(struct oracle *oracle);

#endif
