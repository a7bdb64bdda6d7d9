/* SPDX-License-Identifier: MIT */
/* The engine: the order of a turn and of a run (engine.c, run.c), and calls that wait (block.c). */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include "dev/dev.h"

/* ---- engine.c ---- */
void engine_init(ploop_dev *dev);
/* Reaps all queues, and does what is due; delivers nothing. Returns how much was done. */
int engine_run(ploop_dev *dev);

/* ---- block.c ---- */
typedef bool block_fn(ploop_dev *dev, void *argument);
/* Runs the device, and sleeps, until `done` is true. */
void block_until(ploop_dev *dev, block_fn *done, void *argument);
/* Runs a function in the turn, and waits for it. */
void block_control(ploop_dev *dev, void (*control)(ploop_dev *dev));
/* Waits for a round: 0, or why not everything is durable. */
int block_round(ploop_dev *dev);

#endif
