/* SPDX-License-Identifier: MIT */
/* See job.h. */
#include "job.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

#include "progress.h"

enum { LOOK_NS = 100000000 };

static atomic_bool is_interrupted;

static void interrupt(int signal)
{
    (void)signal;
    is_interrupted = true;
}

bool take_rate(const struct command *command, uint64_t *rate, const char *text)
{
    if (parse_size(text, rate) || *rate == 0) {
        complain_usage(command, "invalid rate '%s': expected bytes a second, like 20M", text);
        return false;
    }
    return true;
}

int job_open(struct image *image)
{
    const struct sigaction action = {.sa_handler = interrupt};
    ploop_file *deltas[BASES_MAX + 1];
    struct ploop_dev_config config;
    const char *path;

    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    int error = image_open_files(image, PLOOP_FILE_READ_WRITE);
    if (error) {
        return error;
    }
    probe(image->file, &image->info); /* what is wrong with it, opening the device tells */
    init_config(&config);
    config.flags = image->has_raw_base ? PLOOP_DEV_RAW_BASE : 0u;
    for (uint32_t i = 0; i < image->base_count; i++) {
        deltas[i] = image->bases[i].file;
    }
    deltas[image->base_count] = image->file;
    error = ploop_dev_open(deltas, image->base_count + 1, &config, &image->dev);
    if (error) {
        const char *text = image_blame(image, error, &path);
        complain(path, "%s", text);
        image_close(image);
    }
    return error;
}

void job_commit(void *user_data, ploop_job *job)
{
    (void)user_data;
    ploop_job_committed(job, 0);
}

/* Until it has ended, and its result is known. */
static int follow(ploop_dev *dev, ploop_job *job)
{
    struct ploop_job_info info = {.size = sizeof(info)};
    struct progress progress;
    bool is_cancelled = false;

    progress_begin(&progress, 0);
    for (ploop_job_info(job, &info); info.state != PLOOP_JOB_ENDED; ploop_job_info(job, &info)) {
        progress_set_total(&progress, info.bytes_total);
        progress_update(&progress, info.bytes_done);
        if (is_interrupted && !is_cancelled) {
            is_cancelled = !ploop_job_cancel(job); /* else it is too late, or too early */
        }
        ploop_queue_wait(ploop_dev_queue(dev, 0), LOOK_NS);
    }
    progress_set_total(&progress, info.bytes_total);
    int result = ploop_job_wait(job);
    progress_end(&progress, !result);
    return is_cancelled && result == -ECANCELED ? -EINTR : result;
}

static void complain_of(const struct job_texts *texts, int error)
{
    const char *text = error == -EINTR ? "interrupted" : last_logged(error);
    size_t length = texts->about ? strlen(texts->about) : 0;

    if (length && strncmp(text, texts->about, length) == 0) {
        complain(texts->other, "%s", text + length);
    } else {
        complain(texts->path, "%s", text);
    }
}

int job_finish(struct image *image, int error, ploop_job *job, const struct job_texts *texts)
{
    if (!error) {
        error = follow(image->dev, job);
        ploop_job_free(job);
    }
    if (error) {
        complain_of(texts, error);
    }
    image->is_changed = !error;
    int closed = ploop_dev_close(image->dev);
    image->dev = NULL;
    if (closed && !error) {
        complain(texts->path, "%s, but not closed cleanly: %s", texts->done, reason(closed));
        error = closed;
    }
    return error;
}
