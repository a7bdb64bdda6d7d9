/* SPDX-License-Identifier: MIT */
/*
 * Fuzz target: a split disk, and requests to it. The input says how many parts there are, how long
 * and of what kind each is, what is wrong with one of them, and what is done.
 *
 *  1. A disk with a fault is refused in one line, and no file of it is changed.
 *  2. The others are an array of bytes, for requests anywhere, and after closing and opening again.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ploop/bundle.h>
#include <ploop/ploop.h>

#include "must.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
    SECTOR = 512,
    PARTS_MAX = 4,
    SECTORS_MAX = 256,
    DISK_MAX = PARTS_MAX * SECTORS_MAX * SECTOR
};
enum fault { FAULT_NONE, FAULT_END, FAULT_FILE, FAULT_CLUSTER, FAULT_MARK, FAULT_MISSING, FAULTS };

#define TOP "{5fbaabe3-6958-40ff-92a7-860e329aab41}"
#define NONE "{00000000-0000-0000-0000-000000000000}"

static char directory[64];
static uint8_t model[DISK_MAX], bytes[DISK_MAX];
static unsigned lines;

struct input {
    const uint8_t *at, *end;
};

struct plan {
    uint32_t count, sectors[PARTS_MAX], disk_sectors, at_fault;
    bool plain[PARTS_MAX];
    enum fault fault;
};

static uint32_t next(struct input *input)
{
    return input->at < input->end ? *input->at++ : 0;
}

static void count_line(void *user_data, uint32_t level, uint32_t message_id, const char *text)
{
    (void)user_data;
    (void)message_id;
    MUST(!strchr(text, '\n'), "told: %s", text);
    lines += level == PLOOP_LOG_ERROR;
}

static const char *path_of(const char *name)
{
    static char path[128];

    snprintf(path, sizeof(path), "%s/%s", directory, name);
    return path;
}

static const char *part_name(uint32_t part)
{
    static char name[2];

    name[0] = (char)('0' + part);
    return name;
}

static void remove_directory(void)
{
    for (uint32_t i = 0; i < PARTS_MAX; i++) {
        unlink(path_of(part_name(i)));
    }
    unlink(path_of("DiskDescriptor.xml"));
    rmdir(directory);
}

static void make_directory(void)
{
    const char *where = access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm";

    snprintf(directory, sizeof(directory), "%s/fuzz-split-XXXXXX", where);
    MUST(mkdtemp(directory), "no directory: %d", errno);
    atexit(remove_directory);
}

static struct plan read_plan(struct input *input)
{
    struct plan plan = {.count = 1 + next(input) % PARTS_MAX};

    for (uint32_t i = 0; i < plan.count; i++) {
        plan.sectors[i] = 1 + next(input);
        plan.plain[i] = next(input) % 3 == 0;
        plan.disk_sectors += plan.sectors[i];
    }
    uint32_t fault = next(input);
    plan.fault = fault < FAULTS ? (enum fault)fault : FAULT_NONE;
    plan.at_fault = next(input) % plan.count;
    return plan;
}

static void write_part(const struct plan *plan, uint32_t part)
{
    struct ploop_image_options options = {.size = sizeof(options), .cluster_size = 4096};
    bool faulty = part == plan->at_fault;
    ploop_file *file;

    unlink(path_of(part_name(part)));
    if (faulty && plan->fault == FAULT_MISSING) {
        return;
    }
    options.disk_size = (plan->sectors[part] + (faulty && plan->fault == FAULT_FILE)) * SECTOR;
    options.cluster_size *= faulty && plan->fault == FAULT_CLUSTER ? 2 : 1;
    MUST(ploop_file_open_posix(path_of(part_name(part)), PLOOP_FILE_READ_WRITE | PLOOP_FILE_CREATE,
                               &file) == 0,
         "part %u", part);
    MUST((plan->plain[part] ? ploop_file_truncate(file, options.disk_size)
                            : ploop_image_create(file, &options)) == 0,
         "part %u", part);
    if (faulty && plan->fault == FAULT_MARK && !plan->plain[part]) {
        MUST(ploop_file_pwrite(file, "\x59\x6e\x6f\x74", 4, 44) == 4, "part %u", part);
    }
    ploop_file_close(file);
}

static void write_all(const struct plan *plan)
{
    FILE *xml = fopen(path_of("DiskDescriptor.xml"), "w");
    uint32_t start = 0;

    MUST(xml, "no XML: %d", errno);
    fprintf(xml,
            "<Parallels_disk_image><Disk_Parameters><Disk_size>%u</Disk_size></Disk_Parameters>"
            "<StorageData>",
            plan->disk_sectors);
    for (uint32_t i = 0; i < plan->count; i++) {
        uint32_t end = start + plan->sectors[i];
        fprintf(xml,
                "<Storage><Start>%u</Start><End>%u</End><Blocksize>8</Blocksize><Image><GUID>" TOP
                "</GUID><Type>%s</Type><File>%s</File></Image></Storage>",
                start, end + (i == plan->at_fault && plan->fault == FAULT_END),
                plan->plain[i] ? "Plain" : "Compressed", part_name(i));
        start = end;
        write_part(plan, i);
    }
    fprintf(xml, "</StorageData><Snapshots><Shot><GUID>" TOP "</GUID><ParentGUID>" NONE
                 "</ParentGUID></Shot></Snapshots></Parallels_disk_image>");
    MUST(fclose(xml) == 0, "no XML: %d", errno);
}

/* A fault that there is: a raw file has neither clusters nor a mark. */
static bool has_fault(const struct plan *plan)
{
    bool is_of_image = plan->fault == FAULT_CLUSTER || plan->fault == FAULT_MARK;

    return plan->fault != FAULT_NONE && !(is_of_image && plan->plain[plan->at_fault]);
}

static int open_disk(uint32_t flags, ploop_bundle_disk **disk)
{
    const struct ploop_bundle_config config = {.size = sizeof(config), .log = count_line};
    struct ploop_dev_config dev_config;
    ploop_bundle *bundle;

    lines = 0;
    ploop_dev_config_init(&dev_config, sizeof(dev_config));
    dev_config.flags = flags;
    int error = ploop_bundle_open(directory, &config, &bundle);
    if (!error) {
        error = ploop_bundle_disk_open(bundle, 0, &dev_config, disk);
        ploop_bundle_close(bundle);
    }
    return error;
}

static void judge_refused(const struct plan *plan)
{
    ploop_bundle_disk *disk;
    int error = open_disk(0, &disk);

    MUST(error && lines == 1, "fault %d gives %d in %u lines", plan->fault, error, lines);
    for (uint32_t i = 0; i < plan->count; i++) {
        uint32_t in_use = 0;
        int fd = plan->plain[i] ? -1 : open(path_of(part_name(i)), O_RDONLY);
        if (fd >= 0) {
            MUST(pread(fd, &in_use, sizeof(in_use), 44) == sizeof(in_use), "part %u", i);
            bool marked = i == plan->at_fault && plan->fault == FAULT_MARK;
            MUST((in_use != 0) == marked, "part %u was marked", i);
            close(fd);
        }
    }
}

static void request(ploop_bundle_disk *disk, const struct plan *plan, struct input *input)
{
    uint32_t what = next(input), at = next(input) * 256 + next(input),
             length = next(input) * 256 + next(input);
    uint64_t offset = (uint64_t)(at % plan->disk_sectors) * SECTOR;
    uint64_t most = plan->disk_sectors * UINT64_C(512) - offset;
    uint64_t count = (1 + length % (most / SECTOR)) * SECTOR;
    uint32_t flags = what & 8 ? PLOOP_PIO_FUA : 0;

    switch (what % 4) {
    case 0:
        memset(model + offset, (int)(what | 1), count);
        MUST(ploop_bundle_disk_pwrite(disk, model + offset, count, offset, flags) == (int64_t)count,
             "a write");
        break;
    case 1:
        memset(model + offset, 0, count);
        MUST(ploop_bundle_disk_write_zeroes(disk, count, offset, flags) == 0, "zeros");
        break;
    case 2:
        MUST(ploop_bundle_disk_pread(disk, bytes, count, offset) == (int64_t)count, "a read");
        MUST(memcmp(bytes, model + offset, count) == 0, "a read is not what was written");
        break;
    default:
        MUST(ploop_bundle_disk_flush(disk) == 0, "a flush");
        MUST(ploop_bundle_disk_pread(disk, bytes, count + most, offset) == -EINVAL,
             "a read past the end");
    }
}

static void judge_content(ploop_bundle_disk *disk, const struct plan *plan)
{
    uint64_t size = plan->disk_sectors * UINT64_C(512);

    MUST(ploop_bundle_disk_pread(disk, bytes, size, 0) == (int64_t)size, "reading all of it");
    MUST(memcmp(bytes, model, size) == 0, "the disk is not what was written");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, data + size};
    ploop_bundle_disk *disk;

    if (!directory[0]) {
        make_directory();
    }
    struct plan plan = read_plan(&input);
    write_all(&plan);
    if (has_fault(&plan)) {
        judge_refused(&plan);
        return 0;
    }
    memset(model, 0, sizeof(model));
    MUST(open_disk(0, &disk) == 0, "it does not open");
    for (int i = 0; i < 32 && input.at < input.end; i++) {
        request(disk, &plan, &input);
    }
    judge_content(disk, &plan);
    MUST(ploop_bundle_disk_close(disk) == 0, "it does not close");
    MUST(open_disk(PLOOP_DEV_READ_ONLY, &disk) == 0, "it does not open again");
    judge_content(disk, &plan);
    ploop_bundle_disk_close(disk);
    return 0;
}
