/* SPDX-License-Identifier: MIT */
/*
 * Test one image by every way in: probe, check, open for reading, for writing and with RECOVER,
 * repair. Each verdict must be the oracle's, readable data must be the bytes that the oracle reads,
 * and a file that was refused, or only inspected, must be byte for byte what it was.
 */
#ifndef HOSTILE_H
#define HOSTILE_H

#include "image_fixture.h"

/* The number of images tested, by result. */
struct hostile_counts {
    uint64_t images;
    uint64_t rejected;  /* by every way except the check's report */
    uint64_t read_only; /* can be opened for rescue, not for writing */
    uint64_t recovered; /* can be opened for writing with RECOVER only */
    uint64_t writable;
};
extern struct hostile_counts hostile_counts;

/*
 * Fails the test, naming `what`, if the library and the oracle disagree. The fixture is as before
 * when this returns.
 */
void hostile_judge(struct fixture *fixture, const char *what);

/* Only try to open it: returns 0, or the error and its one line. The file may have changed then. */
int hostile_refusal(struct fixture *fixture, uint32_t dev_flags, char *message,
                    size_t message_size);

/* Print the counts so far on one line, which scripts/test adds up. */
void hostile_print(const char *kind);

#endif
