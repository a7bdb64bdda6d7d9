/* SPDX-License-Identifier: MIT */
/* Registered memory: see memory.c. */
#ifndef LIFE_MEMORY_H
#define LIFE_MEMORY_H

#include "dev/dev.h"

/*
 * A delta is served from now on, and its file knows the memory: 0, or what the backend returned. Or
 * neither any more.
 */
int memory_join(ploop_dev *dev, struct delta *delta);
void memory_leave(ploop_dev *dev, struct delta *delta);

/* The device ends. */
void memory_unregister_all(ploop_dev *dev);

#endif
