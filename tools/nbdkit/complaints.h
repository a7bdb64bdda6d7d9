/* SPDX-License-Identifier: MIT */
/*
 * Messages about failing requests, limited in rate: after a failed SYNC a busy client causes
 * thousands of failing flushes in a second, and each would print the same line.
 */
#ifndef NBDKIT_PLOOP_COMPLAINTS_H
#define NBDKIT_PLOOP_COMPLAINTS_H

#include <stdint.h>

/*
 * A request of that kind failed with -error. Returns 0: print nothing; else the number of failures
 * that the message stands for: 1, or also those since the last message. At most one message in 10
 * seconds. Any thread. `now_ns` is monotonic.
 */
uint64_t complaint(uint32_t kind, int error, uint64_t now_ns);

#endif
