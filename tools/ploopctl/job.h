/* SPDX-License-Identifier: MIT */
/*
 * Long operations of the library, as snapshot, merge, grow and compact use them: a device that is
 * open for writing, and a job on it. A progress bar is drawn if standard error is a terminal.
 * SIGINT and SIGTERM cancel the job: what is undone in an orderly way is undone, and the device is
 * closed.
 */
#ifndef PLOOPCTL_JOB_H
#define PLOOPCTL_JOB_H

#include "common.h"

/*
 * Open the image for writing, with its bases, as a device, and read its header; from here on
 * signals are noted. Prints errors. 0 or -errno, with nothing open.
 */
int job_open(struct image *image);

/* Handle the argument of --rate; prints errors. */
bool take_rate(const struct command *command, uint64_t *rate, const char *text);

/* A commit callback for whoever keeps no record of a stack but the files themselves. */
void job_commit(void *user_data, ploop_job *job);

/* What the messages of job_finish() name. */
struct job_texts {
    const char *path;  /* the file that an error is about */
    const char *about; /* how a line of the library begins that is about `other`; NULL: none does */
    const char *other;
    const char *done; /* what has happened if only the close fails */
};

/*
 * Run a job, if `error` is 0: it is what the call returned that started it. Then close the device.
 * Prints errors. 0 or -errno.
 */
int job_finish(struct image *image, int error, ploop_job *job, const struct job_texts *texts);

#endif
