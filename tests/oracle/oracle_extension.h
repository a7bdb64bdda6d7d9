/* SPDX-License-Identifier: MIT */
/* The format extension as the oracle judges it: apart, because only closed images of other software have one. */
#ifndef ORACLE_EXTENSION_H
#define ORACLE_EXTENSION_H

#include "oracle.h"

/* 0, or -1 and `why` (160 bytes). `clusters` has a byte for each host cluster; those that the extension holds are set. */
int oracle_extension_check(struct oracle *oracle, uint8_t *clusters, char *why);

#endif
