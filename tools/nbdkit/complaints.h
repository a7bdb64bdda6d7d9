/* SPDX-License-Identifier: MIT */
/*
 * Messages about requests that fail, limited in rate: after a failed SYNC a busy client makes every
 * flush fail, thousands in a second, and each would write the same line.
 */
#ifndef NBDKIT_PLOOP_COMPLAINTS_H
#define NBDKIT_PLOOP_COMPLAINTS_H

#include <stdint.h>

/*
 * A request of that kind failed with -error. Returns 0: say nothing; else how many such failures
 * the message stands for: 1, or those since the last message too, one message in 10 seconds. Any
 * thread. `now_ns` is monotonic.
 */
uint64_t complaint(uint32_t kind, int error, uint64_t now_ns);

#endif
