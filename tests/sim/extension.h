/* SPDX-License-Identifier: MIT */
/*
 * The format extension of some of the simulation's images, and what a disk may show of it.
 *
 * Its features are letters: b a dirty bitmap, p a plain feature, t and T features that must be
 * kept. The judgement reads a disk as two readers do: one that knows what in_use means, and one
 * that follows ext_off whatever in_use says.
 */
#ifndef SIM_EXTENSION_H
#define SIM_EXTENSION_H

#include "../oracle/oracle.h"
#include "image.h"

/* The extension's cluster; the bitmap's bits lie at that sector of the file. */
void extension_fill(const struct image *image, uint8_t *cluster, uint64_t bits_sector);

/* Whether the image, in its present state, has features that a session must keep. */
bool extension_is_kept(const struct image *image, const uint8_t *bytes);

/* Whether it has others besides, so that opening it writes it anew. */
bool extension_is_rewritten(const struct image *image, const uint8_t *bytes);

/* `used`: a change was submitted, so that the bitmap is stale. */
void extension_judge(const struct image *image, struct oracle *oracle, bool used, const char *name);

/*
 * After a clean close: what in_use must be. With ORACLE_CLOSED the features to be kept are there;
 * extension_judge() has found the extension whole.
 */
void extension_judge_closed(const uint8_t *bytes, uint32_t expected, const char *name);

#endif
