/* SPDX-License-Identifier: MIT */
/*
 * The end of space on a file system that really runs full.
 *
 *   full DIRECTORY posix|uring      a small file system that holds nothing else
 *
 * Exit status 0: all is as promised; else a line says what is not.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include <ploop/ploop.h>

enum { CLUSTER = 65536, CLUSTERS = 2048, ROOM = 2 << 20, REQUESTS = 96 };
#define SECOND UINT64_C(1000000000)

static bool use_uring;
static char image[256], filler[256];
static char bytes[CLUSTER];
static int results[REQUESTS];
static unsigned finished, failed;
static _Atomic unsigned long parked_told, resumed_told;

#define must(condition, ...)                                                                       \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            printf("line %d: %s: ", __LINE__, #condition);                                         \
            printf(__VA_ARGS__);                                                                   \
            printf("\n");                                                                          \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static ploop_file *open_image(uint32_t flags)
{
    ploop_file *file;
    int error = use_uring ? ploop_file_open_uring(image, flags, NULL, &file)
                          : ploop_file_open_posix(image, flags, &file);
    must(error == 0, "open: %s", strerror(-error));
    return file;
}

/* All but ROOM bytes of the file system are taken. */
static void fill_up(void)
{
    struct statvfs space;
    must(statvfs(filler, &space) == 0 || errno == ENOENT, "statvfs");
    int fd = open(filler, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    must(fd >= 0 && fstatvfs(fd, &space) == 0, "the filler");
    uint64_t left = (uint64_t)space.f_bavail * space.f_frsize;
    must(left > ROOM, "%llu bytes are left", (unsigned long long)left);
    int error = posix_fallocate(fd, 0, (off_t)(left - ROOM));
    must(error == 0, "the filler: %s", strerror(error));
    close(fd);
}

static void event(void *user_data, uint32_t what, uint64_t value)
{
    (void)user_data;
    parked_told += what == PLOOP_EVENT_PARKED && value > 0;
    resumed_told += what == PLOOP_EVENT_RESUMED;
}

static ploop_dev *open_device(ploop_file **file, uint32_t policy)
{
    struct ploop_image_options options = {.size = sizeof(options),
                                          .disk_size = (uint64_t)CLUSTERS * CLUSTER,
                                          .cluster_size = CLUSTER};
    struct ploop_dev_config config;
    ploop_dev *dev;
    unlink(filler);
    unlink(image);
    *file = open_image(PLOOP_FILE_READ_WRITE | PLOOP_FILE_CREATE);
    must(ploop_image_create(*file, &options) == 0, "create");
    fill_up();
    ploop_dev_config_init(&config, sizeof(config));
    config.enospc_policy = policy;
    config.event = event;
    int error = ploop_dev_open(file, 1, &config, &dev);
    must(error == 0, "open: %s", strerror(-error));
    return dev;
}

static void heard(ploop_pio *pio, int result, void *user_data)
{
    *(int *)user_data = result;
    finished++;
    failed += result != 0;
    ploop_pio_put(pio);
}

/* A write of a whole cluster each, of which most find no space. */
static void send_writes(ploop_dev *dev)
{
    static struct iovec iov = {bytes, CLUSTER};
    ploop_queue *queue = ploop_dev_queue(dev, 0);
    memset(bytes, 0x5A, sizeof(bytes));
    finished = failed = 0;
    for (uint64_t i = 0; i < REQUESTS; i++) {
        ploop_pio *pio = ploop_pio_get(queue);
        must(pio != NULL, "no request");
        ploop_pio_set_callback(pio, heard, &results[i]);
        ploop_pio_prep_writev(pio, i * CLUSTER, &iov, 1, 0);
        must(ploop_queue_submit(queue, &pio, 1) == 1, "submit");
    }
}

static struct ploop_dev_info info_of(ploop_dev *dev)
{
    struct ploop_dev_info info = {.size = sizeof(info)};
    must(ploop_dev_info(dev, &info) == 0, "info");
    return info;
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec;
}

/* Until as many writes as that are over, or some seconds. */
static void run_until(ploop_dev *dev, unsigned count, uint64_t seconds)
{
    uint64_t end = now_ns() + seconds * SECOND;
    while (finished < count && now_ns() < end) {
        ploop_queue_wait(ploop_dev_queue(dev, 0), SECOND / 20);
    }
}

/* What was written is there, after a close without an error. A check finds nothing. */
static void end(ploop_dev *dev, ploop_file *file)
{
    int error = ploop_dev_close(dev);
    must(error == 0, "close: %s", strerror(-error));
    struct ploop_check_result result = {.size = sizeof(result)};
    error = ploop_image_check(file, NULL, &result);
    must(error == 0 && result.errors == 0 && result.leaks == 0,
         "check: %d, %llu errors, %llu leaks", error, (unsigned long long)result.errors,
         (unsigned long long)result.leaks);
    must(ploop_dev_open(&file, 1, NULL, &dev) == 0, "open again");
    for (uint64_t i = 0; i < REQUESTS; i++) {
        char read[CLUSTER];
        must(ploop_dev_pread(dev, read, CLUSTER, i * CLUSTER) == CLUSTER, "read");
        must(results[i] || memcmp(read, bytes, CLUSTER) == 0, "cluster %llu",
             (unsigned long long)i);
    }
    must(ploop_dev_close(dev) == 0, "close");
    ploop_file_close(file);
}

static void fail_at_once(void)
{
    ploop_file *file;
    ploop_dev *dev = open_device(&file, PLOOP_ENOSPC_FAIL);
    send_writes(dev);
    run_until(dev, REQUESTS, 30);
    must(finished == REQUESTS && failed > 0 && failed < REQUESTS, "%u of %u failed", failed,
         finished);
    for (unsigned i = 0; i < REQUESTS; i++) {
        must(results[i] == 0 || results[i] == -ENOSPC, "%s", strerror(-results[i]));
    }
    must(ploop_dev_flush(dev) == 0, "flush");
    /* What is discarded comes back, for this image and for nobody else. */
    uint64_t again = 0;
    for (uint64_t i = 0; i < REQUESTS && again < 4; i++) {
        if (results[i] == 0) {
            ploop_pio *pio = ploop_pio_get(ploop_dev_queue(dev, 0));
            ploop_pio_prep_discard(pio, i * CLUSTER, CLUSTER);
            must(ploop_pio_execute(pio) == 0, "discard");
            ploop_pio_put(pio);
            results[i] = -ENOSPC;
            again++;
        }
    }
    /* But for one block, which ext4 needs for its own map of a file that has more holes now. */
    uint64_t written = 0;
    for (uint64_t i = 0; i < again; i++) {
        int64_t done = ploop_dev_pwrite(dev, bytes, CLUSTER, (CLUSTERS - 1 - i) * CLUSTER);
        must(done == CLUSTER || done == -ENOSPC, "write: %lld", (long long)done);
        written += done == CLUSTER;
    }
    must(written + 1 >= again, "%llu of %llu written in the place of discarded clusters",
         (unsigned long long)written, (unsigned long long)again);
    must(ploop_dev_flush(dev) == 0, "flush");
    end(dev, file);
}

/* Parked writes are told of, and go on when there is space again: by the clock, or asked to. */
static void park_and_go_on(bool ask)
{
    ploop_file *file;
    ploop_dev *dev = open_device(&file, PLOOP_ENOSPC_PARK);
    parked_told = resumed_told = 0;
    send_writes(dev);
    run_until(dev, REQUESTS, 1);
    must(finished < REQUESTS && failed == 0, "%u finished, %u failed", finished, failed);
    must(info_of(dev).requests_parked == REQUESTS - finished && parked_told > 0, "%llu parked",
         (unsigned long long)info_of(dev).requests_parked);
    must(unlink(filler) == 0, "the filler");
    if (ask) {
        ploop_dev_retry_parked(dev);
    }
    run_until(dev, REQUESTS, 30);
    must(finished == REQUESTS && failed == 0, "%u finished, %u failed", finished, failed);
    must(info_of(dev).requests_parked == 0 && resumed_told > 0, "not resumed");
    must(ploop_dev_flush(dev) == 0, "flush");
    end(dev, file);
}

static void park_and_close(void)
{
    ploop_file *file;
    ploop_dev *dev = open_device(&file, PLOOP_ENOSPC_PARK);
    send_writes(dev);
    run_until(dev, REQUESTS, 1);
    must(finished < REQUESTS, "nothing is parked");
    unsigned before = finished;
    end(dev, file);
    must(finished == REQUESTS && failed == REQUESTS - before, "%u finished, %u failed", finished,
         failed);
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        printf("full DIRECTORY posix|uring\n");
        return 2;
    }
    use_uring = strcmp(argv[2], "uring") == 0;
    snprintf(image, sizeof(image), "%s/image", argv[1]);
    snprintf(filler, sizeof(filler), "%s/filler", argv[1]);
    fail_at_once();
    park_and_go_on(false);
    park_and_go_on(true);
    park_and_close();
    unlink(image);
    unlink(filler);
    return 0;
}
