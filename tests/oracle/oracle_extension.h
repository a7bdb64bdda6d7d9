/* SPDX-License-Identifier: MIT */
/* The format extension as the oracle judges it: apart, because few images have one. */
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
 * The features of the extension that ext_off leads to, whatever in_use says. Returns how many, 0
 * without one; -1 and `why`: it is not whole, as oracle_extension_check() says.
 */
int oracle_extension_features(struct oracle *oracle, oracle_feature_fn *feature, void *user_data,
                              char *why);

/*
 * Whether it forbids to open the image for writing: it cannot be told apart, has an unknown feature
 * that is necessary, or reaches into a guest's cluster. A bitmap that is wrong in itself is only
 * dropped.
 */
bool oracle_extension_forbids(struct oracle *oracle);

#endif
