/* SPDX-License-Identifier: MIT */
/* Registered memory: see memory.c. */
#ifndef LIFE_MEMORY_H
#define LIFE_MEMORY_H

#include "dev/dev.h"

/* The device ends. */
void memory_unregister_all(ploop_dev *dev);

#endif
