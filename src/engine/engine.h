/* SPDX-License-Identifier: MIT */
/*
 * The engine: the order of a turn and of a run (engine.c, run.c), threads of the library that run
 * it (runner.c), and calls that wait (block.c, call.c), which do the I/O themselves (help.c).
 */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include <ploop/ploop.h>

#include "dev/dev.h"

/* ---- engine.c ---- */
void engine_init(ploop_dev *dev);
/*
 * How a map reaches its device: of the top its failures are the device's; of a delta that joins
 * they are what its rounds say.
 */
void engine_adopt_bat(ploop_dev *dev, struct bat *bat);
void engine_join_bat(ploop_dev *dev, struct bat *bat);
/* Reaps all queues, and does what is due; delivers nothing. Returns how much was done. */
int engine_run(ploop_dev *dev);
/*
 * Any thread. Whether a run would find something to do in the turn: something of the engine's to be
 * reaped, a deadline that has come, or one that the clock is to be told again.
 */
bool engine_is_due(const ploop_dev *dev);

/* ---- run.c ---- */
enum { QUEUE_BUSY_MS = 2 };
/* A run of this queue; how many callbacks were run. queue_run_ends() says what `looks_again` is. */
int queue_run(ploop_queue *queue, bool looks_again);
/* Until the device's deadline, or the timeout: in milliseconds, and never too short. */
int queue_sleep_ms(const ploop_dev *dev, uint64_t timeout_ns);
/* Sleeps until the descriptor of the queue, or of its runner, is readable. */
void queue_await(const ploop_queue *queue, int ms);
/* Sleeps until a run of the queue has something to do, but for `timeout_ns` at most. */
void queue_sleep(const ploop_queue *queue, uint64_t timeout_ns);

/* ---- help.c ---- */
/*
 * From begin, before it posts what it waits for, to end this thread waits for the device, and for
 * no other. Pairs may lie in one another.
 */
void help_begin(const ploop_dev *dev);
void help_end(const ploop_dev *dev);
/* Outside the turn: does one request that this thread's turns have sent. False: none is left. */
bool help_once(const ploop_dev *dev);
/* Outside the turn: the backend's own threads are to do what this thread has left. */
void help_kick(const ploop_dev *dev);
/* In the turn, at the end of a batch: kicks the channels, unless this thread is going to help. */
void help_or_kick(ploop_dev *dev);

/* ---- block.c ---- */
typedef bool block_fn(ploop_dev *dev, void *argument);
/* Runs the device, and sleeps, until `done` is true. */
void block_until(ploop_dev *dev, block_fn *done, void *argument);
/* Runs a function in the turn, and waits for it. */
void block_control(ploop_dev *dev, void (*control)(ploop_dev *dev));
/* Waits for a round: 0, or why not everything is durable. */
int block_round(ploop_dev *dev);

#endif
