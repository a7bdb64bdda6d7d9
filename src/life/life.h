/* SPDX-License-Identifier: MIT */
/* A device's life: what its files in this folder offer each other. */
#ifndef LIFE_LIFE_H
#define LIFE_LIFE_H

#include "engine/engine.h"
#include "engine/state.h"
#include "life/extension_keep.h"
#include "pio/pio.h"
#include "pio/queue.h"

/* ---- open.c ---- */
void dev_free(ploop_dev *dev);

/*
 * As ploop_dev_open(), of one file, for the recovery of a lower delta: the opening device has
 * claimed it alone, and keeps the claim.
 */
int dev_open_inside(ploop_file *file, const struct ploop_dev_config *config, ploop_dev **out);

#endif
