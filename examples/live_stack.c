/* SPDX-License-Identifier: MIT */
/*
 * live_stack: a disk is snapshotted three times while it is written to, then merged back into one
 * file, and compared with a model of what it must hold.
 *
 * One thread runs a queue: its callbacks submit the next writes, and those of the jobs run there.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ploop/ploop.h>

enum { DISK_SIZE = 16 << 20, BLOCK = 4096, BLOCKS = DISK_SIZE / BLOCK, WRITERS = 8, FILES = 4 };

/* Each has blocks of its own, so that the model knows what comes last. */
struct writer {
    char bytes[BLOCK];
    struct iovec iov;
    uint32_t block;
};

static ploop_dev *dev;
static ploop_queue *queue;
static struct writer writers[WRITERS];
static char model[BLOCKS]; /* what each block is full of */
static uint64_t writes;
static uint32_t in_flight;
static int stopping, failed;
static ploop_file *files[FILES]; /* NULL: merged away */
static int job_ended, job_result;

static void written(ploop_pio *pio, int result, void *user_data);

static void write_next(struct writer *writer, ploop_pio *pio)
{
    uint32_t number = (uint32_t)(writer - writers);
    writer->block = (uint32_t)rand() % (BLOCKS / WRITERS) * WRITERS + number;
    memset(writer->bytes, 'a' + rand() % 26, BLOCK);
    writer->iov = (struct iovec){writer->bytes, BLOCK};
    ploop_pio_prep_writev(pio, (uint64_t)writer->block * BLOCK, &writer->iov, 1, 0);
    ploop_pio_set_callback(pio, written, writer);
    failed |= ploop_queue_submit(queue, &pio, 1) != 1;
}

static void written(ploop_pio *pio, int result, void *user_data)
{
    struct writer *writer = user_data;
    failed |= result != 0;
    model[writer->block] = writer->bytes[0];
    writes++;
    if (stopping || failed) {
        ploop_pio_put(pio);
        in_flight--;
    } else {
        write_next(writer, pio);
    }
}

/* A real program writes the names of its files durably. It may do that in its own time. */
static void record_stack(void *user_data, ploop_job *job)
{
    (void)user_data;
    printf("the stack changes, after %llu writes\n", (unsigned long long)writes);
    ploop_job_committed(job, 0);
}

static void note_end(void *user_data, ploop_job *job, int result)
{
    (void)user_data;
    job_ended = 1;
    job_result = result;
    ploop_job_free(job);
}

/* Runs the disk until the job has ended, and for some writes more. */
static int run_job(int error)
{
    while (!error && !failed && !job_ended) {
        ploop_queue_wait(queue, UINT64_MAX);
    }
    for (uint64_t until = writes + 500; !error && !failed && writes < until;) {
        ploop_queue_wait(queue, UINT64_MAX);
    }
    job_ended = 0;
    return error ? error : job_result;
}

static int compare(void)
{
    char bytes[BLOCK], expected[BLOCK];
    for (uint32_t block = 0; block < BLOCKS; block++) {
        memset(expected, model[block], BLOCK);
        if (ploop_dev_pread(dev, bytes, BLOCK, (uint64_t)block * BLOCK) != BLOCK ||
            memcmp(bytes, expected, BLOCK) != 0) {
            return -1;
        }
    }
    return 0;
}

static int create_files(void)
{
    struct ploop_image_options image = {
        .size = sizeof(image), .disk_size = DISK_SIZE, .cluster_size = 65536};
    int error = 0;
    for (int i = 0; i < FILES && !error; i++) {
        char name[16];
        (void)snprintf(name, sizeof(name), "stack%d.hds", i);
        (void)remove(name); /* left over from the last run */
        error = ploop_file_open_posix(name, PLOOP_FILE_READ_WRITE | PLOOP_FILE_CREATE, &files[i]);
        error = error ? error : ploop_image_create(files[i], &image);
    }
    return error;
}

int main(void)
{
    ploop_job *job;
    if (create_files() || ploop_dev_open(files, 1, NULL, &dev)) {
        return 1;
    }
    queue = ploop_dev_queue(dev, 0);
    for (; in_flight < WRITERS; in_flight++) {
        write_next(&writers[in_flight], ploop_pio_get(queue));
    }
    int error = 0;
    for (int i = 1; i < FILES && !error; i++) {
        error = run_job(ploop_dev_snapshot(dev, files[i], record_stack, note_end, NULL, &job));
    }
    for (uint32_t level = FILES - 1; level-- > 0 && !error;) {
        /* Into the top, what is right below it. */
        error = run_job(
            ploop_dev_merge(dev, level, PLOOP_MERGE_UP, record_stack, note_end, NULL, &job));
        ploop_file_close(error ? NULL : files[level]);
        files[level] = error ? files[level] : NULL;
    }
    stopping = 1;
    while (in_flight > 0) {
        ploop_queue_wait(queue, UINT64_MAX);
    }
    error = error || failed || compare() || ploop_dev_close(dev) ||
            ploop_dev_open(&files[FILES - 1], 1, NULL, &dev) || compare() || ploop_dev_close(dev);
    for (int i = 0; i < FILES; i++) {
        ploop_file_close(files[i]);
    }
    printf("%llu writes, one file: %s\n", (unsigned long long)writes, error ? "WRONG" : "right");
    return error ? 1 : 0;
}
