/* SPDX-License-Identifier: MIT */
/*
 * One image, by every way in: probe, check, open for reading, for writing and with RECOVER, repair.
 * Each verdict is held against the oracle's, what can be read against the bytes that the oracle
 * reads, and a file that was refused, or only looked at, must be byte for byte what it was.
 */
#ifndef HOSTILE_H
#define HOSTILE_H

#include "image_fixture.h"

/* How many images were judged, and what became of them. */
struct hostile_counts {
    uint64_t images;
    uint64_t rejected;  /* every way but the check's report */
    uint64_t read_only; /* for rescue, not for writing */
    uint64_t recovered; /* for writing with RECOVER only */
    uint64_t writable;
};
extern struct hostile_counts hostile_counts;

/*
 * Fails the test, naming `what`, where the library and the oracle disagree. The fixture is as
 * before when this returns.
 */
void hostile_judge(struct fixture *fixture, const char *what);

/* Only an attempt to open it: the error and its one line, or 0. The file may have changed then. */
int hostile_refusal(struct fixture *fixture, uint32_t dev_flags, char *message,
                    size_t message_size);

/* What was judged so far, on one line that scripts/test adds up. */
void hostile_print(const char *kind);

#endif
