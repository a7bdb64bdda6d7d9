/* SPDX-License-Identifier: MIT */
/*
 * What ploopctl convert is measured against: a raw file copied to another one through the POSIX
 * backend, with as many requests in flight and of the same size, and synced. No map, no search for
 * zeros.
 *
 *   copy SOURCE TARGET
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ploop/ploop.h>

enum { WORKERS = 8, PIECE_BYTES = 1048576 };

static ploop_file *source, *target;
static uint64_t file_size;
static _Atomic uint64_t next_offset;

static void must(const char *what, int64_t result)
{
    if (result < 0) {
        fprintf(stderr, "copy: %s: %s\n", what, strerror((int)-result));
        exit(1);
    }
}

static void *work(void *argument)
{
    uint8_t *bytes = aligned_alloc(4096, PIECE_BYTES);
    uint64_t offset;

    (void)argument;
    must("memory", bytes ? 0 : -12);
    while ((offset = atomic_fetch_add(&next_offset, PIECE_BYTES)) < file_size) {
        int64_t length = ploop_file_pread(source, bytes, PIECE_BYTES, offset);
        must("read", length);
        must("write", ploop_file_pwrite(target, bytes, (uint64_t)length, offset));
    }
    free(bytes);
    return NULL;
}

int main(int argc, char **argv)
{
    struct ploop_file_info info = {.size = sizeof(info)};
    pthread_t threads[WORKERS];

    if (argc != 3) {
        fprintf(stderr, "usage: copy SOURCE TARGET\n");
        return 1;
    }
    must(argv[1], ploop_file_open_posix(argv[1], PLOOP_FILE_READ_ONLY, &source));
    must(argv[2],
         ploop_file_open_posix(argv[2], PLOOP_FILE_READ_WRITE | PLOOP_FILE_CREATE, &target));
    must("size", ploop_file_info(source, &info));
    file_size = info.file_size;
    must("resize", ploop_file_truncate(target, file_size));
    for (int i = 0; i < WORKERS; i++) {
        must("thread", -pthread_create(&threads[i], NULL, work, NULL));
    }
    for (int i = 0; i < WORKERS; i++) {
        pthread_join(threads[i], NULL);
    }
    must("sync", ploop_file_sync(target));
    ploop_file_close(target);
    ploop_file_close(source);
    return 0;
}
