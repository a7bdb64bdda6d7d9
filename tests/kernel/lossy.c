/* SPDX-License-Identifier: MIT */
/*
 * Promises on a real kernel whose writeback fails: see kernel.sh for what it runs on.
 *
 *     lossy MOUNT TMPFS DEVICE TYPE [--full | --reopen | RUN...]
 *
 * A run is a word, a letter for each step, done by a child process on a fresh image:
 *
 *     W write to a doomed cluster     L what is dirty is written back now: lost where it is doomed
 *     g write to a good one           F flush    S suspend and resume
 *     U FUA write to a good one       u FUA write to a doomed one      P four FUA writes at once to
 *                                     doomed ones
 *     N write to a new cluster, whose blocks are doomed                B the same, and the page of
 *                                                                      the BAT for it is doomed too
 *     G the storage has space again
 *     C close                         A abort                          K the process ends at once
 *
 * and, after a dot: p for the park policy, d for direct, r for io_uring's backend, w for a
 * recovery while the cache is warm; "WLUFC.pw", for example. When the child has ended, caches are
 * dropped, and each sector has to be one of those that were written to it, not older than what was
 * promised: by a FUA write, or by a flush, suspend or close, that succeeded. With w the image is
 * opened with RECOVER first, as it is in the cache; what is read there counts as promised if a
 * flush and the close succeed. Without, it is recovered and judged once more afterwards. Every
 * sector written carries its number and a version.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <ploop/ploop.h>

#include "file/file.h"
#include "world.h"

enum {
    CLUSTER = 65536,
    BLOCK = 4096,
    SECTOR = 512,
    BLOCK_SECTORS = BLOCK / SECTOR,
    DISK_CLUSTERS = 1100,
    OLD_CLUSTERS = 10, /* mapped from the beginning, zeros */
    NEW_AT = 20,
    FAR_AT = 1010, /* in the second page of the BAT */
    NEW_MAX = 8,
    TOGETHER = 4,
    BLOCKS = OLD_CLUSTERS + 2 * NEW_MAX,
    PARK_MS = 20
};

/* Of the first block of these clusters. */
enum { GOOD = 0, GOOD_FUA = 1, DOOMED = 4, DOOMED_FUA = 5, DOOMED_TOGETHER = 6 };

struct sector {
    uint64_t magic, number, version, mirror;
};

#define MAGIC UINT64_C(0x7265646c6f686c73)

/* Shared with the children. */
struct model {
    uint64_t promised[BLOCKS][BLOCK_SECTORS];
    uint64_t completed[BLOCKS];
    uint64_t submitted[BLOCKS];
    uint64_t version;
    uint32_t news, fars;
    int error; /* of a recovery */
    uint64_t flushes_failed, flushes, fuas_failed, fuas;
};

static struct world world;
static struct model *model;
static const char *run_name;
static uint64_t failures;

static void fail(const char *what, int block, int sector, uint64_t found)
{
    failures++;
    printf("FAILED %s: %s", run_name, what);
    if (block >= 0) {
        printf(": block %d sector %d has version %llu, promised %llu, submitted %llu", block,
               sector, (unsigned long long)found,
               (unsigned long long)model->promised[block][sector],
               (unsigned long long)model->submitted[block]);
    }
    printf("\n");
}

static uint64_t block_offset(int block)
{
    uint64_t cluster = (uint64_t)block;
    if (block >= OLD_CLUSTERS + NEW_MAX) {
        cluster = (uint64_t)(block - OLD_CLUSTERS - NEW_MAX) + FAR_AT;
    } else if (block >= OLD_CLUSTERS) {
        cluster = (uint64_t)(block - OLD_CLUSTERS) + NEW_AT;
    }
    return cluster * CLUSTER;
}

/* ---- Requests ---- */

struct request {
    ploop_pio *pio;
    struct iovec iov;
    int left;
    int result;
};

static void request_done(ploop_pio *pio, int result, void *argument)
{
    struct request *request = argument;
    (void)pio;
    request->result = result;
    request->left = 0;
}

static uint8_t *new_block(int block, uint64_t version)
{
    uint8_t *bytes = aligned_alloc(BLOCK, BLOCK);
    memset(bytes, (int)(version & 0xff), BLOCK);
    for (int i = 0; i < BLOCK_SECTORS; i++) {
        uint64_t number = block_offset(block) / SECTOR + (uint64_t)i;
        *(struct sector *)(void *)(bytes + i * SECTOR) =
            (struct sector){MAGIC, number, version, ~version};
    }
    return bytes;
}

static void begin_write(ploop_dev *dev, struct request *request, int block, uint32_t flags)
{
    ploop_queue *queue = ploop_dev_queue(dev, 0);
    uint64_t version = ++model->version;
    model->submitted[block] = version;
    *request = (struct request){
        .pio = ploop_pio_get(queue), .left = 1, .iov = {new_block(block, version), BLOCK}};
    ploop_pio_set_callback(request->pio, request_done, request);
    ploop_pio_prep_writev(request->pio, block_offset(block), &request->iov, 1, flags);
    if (ploop_queue_submit(queue, &request->pio, 1) != 1) {
        world_failed("a write was refused");
    }
}

static void promise(int block, uint64_t version)
{
    for (int i = 0; i < BLOCK_SECTORS; i++) {
        model->promised[block][i] = version;
    }
}

static void end_write(ploop_dev *dev, struct request *request, int block, uint32_t flags,
                      uint64_t version)
{
    while (request->left) {
        ploop_queue_wait(ploop_dev_queue(dev, 0), UINT64_MAX);
    }
    if (request->result == 0) {
        model->completed[block] = version;
    }
    if (flags & PLOOP_PIO_FUA) {
        model->fuas++;
        model->fuas_failed += request->result != 0;
        if (request->result == 0) {
            promise(block, version);
        }
    }
    ploop_pio_put(request->pio);
    free(request->iov.iov_base);
}

static void write_block(ploop_dev *dev, int block, uint32_t flags)
{
    struct request request;
    begin_write(dev, &request, block, flags);
    end_write(dev, &request, block, flags, model->version);
}

static void write_together(ploop_dev *dev)
{
    struct request requests[TOGETHER];
    uint64_t first = model->version + 1;
    for (int i = 0; i < TOGETHER; i++) {
        begin_write(dev, &requests[i], DOOMED_TOGETHER + i, PLOOP_PIO_FUA);
    }
    for (int i = 0; i < TOGETHER; i++) {
        end_write(dev, &requests[i], DOOMED_TOGETHER + i, PLOOP_PIO_FUA, first + (uint64_t)i);
    }
}

/* A flush, suspend or close: the error, or what had completed is promised. */
static void promised_by(int error)
{
    model->flushes++;
    model->flushes_failed += error != 0;
    for (int block = 0; block < BLOCKS && !error; block++) {
        promise(block, model->completed[block]);
    }
}

/* ---- A child ---- */

static bool with_rings; /* of the run */

static ploop_file *open_file(uint32_t flags)
{
    ploop_file *file;
    int error = with_rings ? ploop_file_open_uring(world.image, flags, NULL, &file)
                           : ploop_file_open_posix(world.image, flags, &file);
    if (error) {
        errno = -error;
        world_failed("open the image");
    }
    return file;
}

static int open_device(ploop_file *file, uint32_t flags, const char *options, ploop_dev **dev)
{
    struct ploop_dev_config config;
    ploop_dev_config_init(&config, sizeof(config));
    config.flags = flags;
    if (strchr(options, 'p')) {
        config.enospc_policy = PLOOP_ENOSPC_PARK;
        config.park_timeout_ns = PARK_MS * UINT64_C(1000000);
    }
    return ploop_dev_open(&file, 1, &config, dev);
}

static void step(ploop_dev *dev, char letter)
{
    switch (letter) {
    case 'W':
        write_block(dev, DOOMED, 0);
        break;
    case 'L':
        world_write_back(&world);
        break;
    case 'g':
        write_block(dev, GOOD, 0);
        break;
    case 'U':
        write_block(dev, GOOD_FUA, PLOOP_PIO_FUA);
        break;
    case 'u':
        write_block(dev, DOOMED_FUA, PLOOP_PIO_FUA);
        break;
    case 'P':
        write_together(dev);
        break;
    case 'N':
        write_block(dev, OLD_CLUSTERS + (int)(model->news++ % NEW_MAX), 0);
        break;
    case 'B':
        write_block(dev, OLD_CLUSTERS + NEW_MAX + (int)(model->fars++ % NEW_MAX), 0);
        break;
    case 'F':
        promised_by(ploop_dev_flush(dev));
        break;
    case 'S':
        promised_by(ploop_dev_suspend(dev));
        ploop_dev_resume(dev);
        break;
    case 'G':
        world_give(&world);
        break;
    default:
        world_failed("no step '%c'", letter);
    }
}

static void child_steps(const char *steps, const char *options)
{
    ploop_dev *dev;
    ploop_file *file =
        open_file(PLOOP_FILE_READ_WRITE | (strchr(options, 'd') ? PLOOP_FILE_DIRECT : 0));
    if (open_device(file, 0, options, &dev)) {
        world_failed("open the device");
    }
    world_fill(&world);
    for (; *steps; steps++) {
        if (*steps == 'C') {
            promised_by(ploop_dev_close(dev));
        } else if (*steps == 'A') {
            ploop_dev_abort(dev);
        } else if (*steps == 'K') {
            _exit(0);
        } else {
            step(dev, *steps);
            continue;
        }
        ploop_file_close(file);
        break;
    }
}

/* Each sector's version; UINT64_MAX for bytes that the test never wrote there. */
static uint64_t version_of(const uint8_t *bytes, int block, int sector)
{
    static const uint8_t zeros[SECTOR];
    const uint8_t *at = bytes + (size_t)sector * SECTOR;
    struct sector found;
    memcpy(&found, at, sizeof(found));
    if (memcmp(at, zeros, SECTOR) == 0) {
        return 0;
    }
    uint64_t number = block_offset(block) / SECTOR + (uint64_t)sector;
    bool right = found.magic == MAGIC && found.number == number && found.mirror == ~found.version;
    return right ? found.version : UINT64_MAX;
}

/* Read as the guest does; a sector with a content that is not allowed is a failure. */
static void read_all(ploop_dev *dev, const char *when, uint64_t seen[BLOCKS][BLOCK_SECTORS])
{
    uint8_t *bytes = aligned_alloc(BLOCK, BLOCK);
    for (int block = 0; block < BLOCKS; block++) {
        if (ploop_dev_pread(dev, bytes, BLOCK, block_offset(block)) != BLOCK) {
            fail("a block cannot be read", block, 0, 0);
            continue;
        }
        for (int i = 0; i < BLOCK_SECTORS; i++) {
            uint64_t version = version_of(bytes, block, i);
            seen[block][i] = version;
            if (version < model->promised[block][i] || version > model->submitted[block]) {
                fail(when, block, i, version);
                break;
            }
        }
    }
    free(bytes);
}

/*
 * The data read, flushed and closed counts as promised. A recovery may fail only if the file system
 * itself does not work any more.
 */
static void child_recover(const char *options)
{
    uint64_t seen[BLOCKS][BLOCK_SECTORS];
    ploop_dev *dev;
    ploop_file *file =
        open_file(PLOOP_FILE_READ_WRITE | (strchr(options, 'd') ? PLOOP_FILE_DIRECT : 0));
    model->error = open_device(file, PLOOP_DEV_RECOVER, options, &dev);
    if (!model->error) {
        read_all(dev, "after RECOVER", seen);
        model->error = ploop_dev_flush(dev);
        int closed = ploop_dev_close(dev);
        if (!model->error && !closed) {
            memcpy(model->promised, seen, sizeof(seen));
        }
        model->error = model->error ? model->error : closed;
    }
    ploop_file_close(file);
}

static void in_child(void (*work)(const char *, const char *), const char *steps,
                     const char *options)
{
    int status;
    (void)fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        failures = 0;
        work(steps, options);
        (void)fflush(stdout);
        _exit(failures ? 3 : 0);
    }
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status) ||
        WEXITSTATUS(status) == 2) {
        world_failed("the child of %s", run_name);
    }
    failures += WEXITSTATUS(status) != 0;
}

static void recover_work(const char *steps, const char *options)
{
    (void)steps;
    child_recover(options);
}

/* ---- A run ---- */

static void check_error(int error)
{
    if (error) {
        errno = -error;
        world_failed("prepare the image");
    }
}

/* Clusters of zeros, mapped; then doom the doomed ones. */
static void prepare(void)
{
    struct ploop_image_options options = {.size = sizeof(options),
                                          .disk_size = (uint64_t)DISK_CLUSTERS * CLUSTER,
                                          .cluster_size = CLUSTER};
    ploop_dev *dev;
    world_give(&world);
    world_mend(&world);
    (void)unlink(world.image);
    ploop_file *file = open_file(PLOOP_FILE_READ_WRITE | PLOOP_FILE_CREATE);
    check_error(ploop_image_create(file, &options));
    check_error(open_device(file, PLOOP_DEV_WRITE_ZEROS_AS_DATA, "", &dev));
    char *zeros = calloc(1, CLUSTER);
    uint64_t places[OLD_CLUSTERS];
    for (uint64_t i = 0; i < OLD_CLUSTERS; i++) {
        struct ploop_extent extent = {.size = sizeof(extent)};
        check_error(ploop_dev_pwrite(dev, zeros, CLUSTER, i * CLUSTER) == CLUSTER ? 0 : -EIO);
        check_error(ploop_bat_lookup(dev, i * CLUSTER, CLUSTER, &extent));
        places[i] = extent.host_offset;
    }
    free(zeros);
    check_error(ploop_dev_close(dev));
    ploop_file_close(file);
    world_preallocate(&world, 4 << 20);
    world_sync(&world);
    for (int i = DOOMED; i < OLD_CLUSTERS; i++) {
        world_doom(&world, places[i], CLUSTER);
    }
    world_doom(&world, BLOCK, BLOCK); /* the second page of the BAT: zeros */
    world_doom(&world, places[OLD_CLUSTERS - 1] + CLUSTER, 2 << 20);
}

static void judge(const char *when)
{
    uint64_t seen[BLOCKS][BLOCK_SECTORS];
    ploop_dev *dev;
    ploop_file *file = open_file(PLOOP_FILE_READ_ONLY);
    int error = open_device(file, PLOOP_DEV_READ_ONLY, "", &dev);
    if (error) {
        fail("the image does not open any more", -1, 0, 0);
    } else {
        read_all(dev, when, seen);
        (void)ploop_dev_close(dev);
    }
    ploop_file_close(file);
}

static void recover(const char *options)
{
    in_child(recover_work, NULL, options);
    if (model->error && world.can_doom) {
        fail("the recovery failed", -1, 0, 0);
        printf("    with error %d\n", model->error);
    }
}

static void run(const char *name)
{
    char steps[64];
    const char *dot = strchr(name, '.');
    const char *options = dot ? dot + 1 : "";
    run_name = name;
    with_rings = strchr(options, 'r') != NULL;
    (void)snprintf(steps, sizeof(steps), "%.*s", (int)(dot ? dot - name : (long)strlen(name)),
                   name);
    uint64_t flushes = model->flushes, failed = model->flushes_failed, fuas = model->fuas,
             fuas_failed = model->fuas_failed;
    *model = (struct model){
        .flushes = flushes, .flushes_failed = failed, .fuas = fuas, .fuas_failed = fuas_failed};
    prepare();
    in_child(child_steps, steps, options);
    world_give(&world);
    if (strchr(options, 'w')) {
        recover(options);
    }
    world_drop_caches(&world);
    judge("after its caches were dropped");
    if (!strchr(options, 'w')) {
        recover(options);
        world_drop_caches(&world);
        judge("after RECOVER, closed and its caches dropped");
    }
}

/*
 * The file alone: SYNC must also report, after reopen, a loss that a FUA write was told of; or
 * reopen itself reports it (live handing over of files is to come; the device does not reopen yet).
 */
static void reopen_steps(const char *steps, const char *options)
{
    (void)steps;
    (void)options;
    ploop_file *file = open_file(PLOOP_FILE_READ_WRITE);
    struct ploop_file_info info = {.size = sizeof(info)};
    check_error(ploop_file_info(file, &info));
    world_fill(&world);
    int other = open(world.image, O_RDWR); /* another description, which is told of it too */
    void *bytes = new_block(0, 1);
    if (ploop_file_pwrite(file, bytes, BLOCK, info.file_size - 4 * CLUSTER) !=
        BLOCK) { /* of the doomed ones */
        world_failed("write");
    }
    world_write_back(&world);
    int told = fdatasync(other);
    close(other);
    int reopened = file->ops.reopen(file->context, PLOOP_FILE_READ_ONLY);
    int synced = ploop_file_sync(file);
    if (told == 0 || (reopened == 0 && synced == 0)) {
        fail("a lost write is not told after reopen", -1, 0, 0);
        printf("    another description %d, reopen %d, SYNC %d\n", told, reopened, synced);
    }
    free(bytes);
    ploop_file_close(file);
}

static uint64_t run_reopen(void)
{
    run_name = "reopen";
    with_rings = false;
    *model = (struct model){0};
    if (!world.can_doom) {
        return 0;
    }
    prepare();
    in_child(reopen_steps, "", "");
    world_give(&world);
    return 1;
}

/*
 * All pairs of steps after a loss, each with one of the ends and one of the eight sets of options,
 * in turn, every second one with io_uring. --full: with four of these 24, and also with no loss
 * yet, and with space available again before any loss.
 */
static uint64_t run_all(bool full)
{
    static const char middle[] = "gUuPFSNBGL", ends[] = "CAK";
    static const char *const prefixes[] = {"WL", "", "WG"};
    uint64_t runs = 0;
    for (int prefix = 0; prefix < (full ? 3 : 1); prefix++) {
        for (const char *first = middle; *first; first++) {
            for (const char *second = middle; *second; second++) {
                for (int i = 0; i < (full ? 4 : 1); i++) {
                    char name[32];
                    uint64_t chosen = (runs * 5 + (uint64_t)(first - middle)) % 24;
                    (void)snprintf(name, sizeof(name), "%s%c%c%c.%s%s%s%s", prefixes[prefix],
                                   *first, *second, ends[chosen % 3], chosen / 3 & 1 ? "p" : "",
                                   chosen / 3 & 2 ? "d" : "", chosen / 3 & 4 ? "w" : "",
                                   runs & 1 ? "r" : "");
                    run(name);
                    runs++;
                }
            }
        }
    }
    return runs;
}

int main(int argc, char **argv)
{
    uint64_t runs = 0;
    bool full = false;
    if (argc < 5) {
        (void)fprintf(stderr,
                      "usage: lossy MOUNT TMPFS DEVICE TYPE [--full | --reopen | RUN...]\n");
        return 2;
    }
    world_init(&world, argv[1], argv[2], argv[3], argv[4]);
    model = mmap(NULL, sizeof(*model), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int at = 5;
    if (at < argc && strcmp(argv[at], "--full") == 0) {
        full = true;
        at++;
    }
    if (at == argc) {
        runs = run_reopen();
        runs += run_all(full);
        if (model->flushes_failed == 0) {
            world_failed("no write was lost, so nothing was shown");
        }
    }
    for (; at < argc; at++, runs++) {
        if (strcmp(argv[at], "--reopen") == 0) {
            run_reopen();
        } else {
            run(argv[at]);
        }
    }
    printf("%s: %llu runs; %llu of %llu flushes, suspends and closes failed, %llu of %llu FUA "
           "writes; %llu failures\n",
           world.type, (unsigned long long)runs, (unsigned long long)model->flushes_failed,
           (unsigned long long)model->flushes, (unsigned long long)model->fuas_failed,
           (unsigned long long)model->fuas, (unsigned long long)failures);
    return failures ? 1 : 0;
}
