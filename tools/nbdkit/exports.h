/* SPDX-License-Identifier: MIT */
/* Which image an export name stands for, and which names there are. */
#ifndef NBDKIT_PLOOP_EXPORTS_H
#define NBDKIT_PLOOP_EXPORTS_H

#include "device.h"

struct nbdkit_exports;

/*
 * The path of the image of that export name, to be freed. NULL: nbdkit was told why there is none.
 * With image= every name stands for that image.
 */
char *export_path(const struct server_config *config, const char *export);

/* The ploop images of dir=; with image= its default export alone. 0, or -1: nbdkit was told. */
int exports_list(const struct server_config *config, struct nbdkit_exports *exports);

#endif
