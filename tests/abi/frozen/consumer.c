/* SPDX-License-Identifier: MIT */
/*
 * An embedder, as it was written for 2.0: a backend of its own, a clock, callbacks; it uses every
 * structure. frozen.sh keeps a program that was compiled from it and from the headers of 2.0; this
 * source is compiled against today's headers and their imagined successors, too. Exit status 0, or
 * the line that failed.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ploop/ploop.h>

#define MUST(what)                                                                                 \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            fprintf(stderr, "line %d: %s\n", __LINE__, #what);                                     \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

enum { FILE_BYTES = 16 << 20, DISK_BYTES = 8 << 20, CLUSTER_BYTES = 1 << 16, SECTOR = 512 };

/* ---- A backend ---- */

static unsigned char storage[FILE_BYTES];
static uint64_t storage_size;
static int closed;

static int get_info(void *context, struct ploop_file_info *info)
{
    (void)context;
    info->file_size = storage_size;
    info->capabilities = PLOOP_FILE_CAN_GROW;
    info->request_alignment = 1;
    return 0;
}

static int64_t transfer(const struct ploop_io *io)
{
    uint64_t offset = io->offset;
    if (io->op == PLOOP_IO_WRITE && offset + io->length > storage_size) {
        storage_size = offset + io->length;
    }
    for (uint32_t i = 0; i < io->iov_count && offset < storage_size; i++) {
        size_t length = io->iov[i].iov_len;
        length = length < storage_size - offset ? length : (size_t)(storage_size - offset);
        if (io->op == PLOOP_IO_WRITE) {
            memcpy(storage + offset, io->iov[i].iov_base, length);
        } else {
            memcpy(io->iov[i].iov_base, storage + offset, length);
        }
        offset += length;
    }
    return (int64_t)(offset - io->offset);
}

static int submit(void *context, struct ploop_io *io)
{
    int64_t result = 0;
    MUST(context == storage && io->size >= sizeof(*io));
    if (io->offset > FILE_BYTES || io->length > FILE_BYTES - io->offset) {
        return -ENOSPC;
    }
    if (io->op == PLOOP_IO_READ || io->op == PLOOP_IO_WRITE) {
        result = transfer(io);
    } else if (io->op == PLOOP_IO_TRUNCATE) {
        storage_size = io->offset;
    } else if (io->op != PLOOP_IO_SYNC) {
        result = -EOPNOTSUPP;
    }
    ploop_io_complete(io, result);
    return 0;
}

static void close_storage(void *context)
{
    (void)context;
    closed++;
}

/* ---- A device on it ---- */

static uint64_t now;

static uint64_t now_ns(void *context)
{
    (void)context;
    return now += 1000;
}

static void log_line(void *user_data, uint32_t level, uint32_t message_id, const char *text)
{
    MUST(user_data == &now && level >= PLOOP_LOG_ERROR && text[0]);
    (void)message_id;
}

static void event(void *user_data, uint32_t number, uint64_t value)
{
    MUST(user_data == &now && number);
    (void)value;
}

static void done(ploop_pio *pio, int result, void *user_data)
{
    MUST(pio);
    *(int *)user_data = result ? result : 1;
}

static void finish(ploop_queue *queue, ploop_pio *pio)
{
    int state = 0;
    ploop_pio_set_callback(pio, done, &state);
    MUST(ploop_queue_submit(queue, &pio, 1) == 1);
    while (!state) {
        MUST(ploop_queue_wait(queue, 1000000) >= 0);
    }
    MUST(state == 1);
}

static void use_queue(ploop_dev *dev)
{
    static unsigned char out[SECTOR], in[SECTOR];
    ploop_queue *queue = ploop_dev_queue(dev, 0);
    ploop_pio *pio = ploop_pio_get(queue);
    struct iovec iov = {out, sizeof(out)};
    MUST(queue && pio && ploop_queue_poll_fd(queue) >= 0);
    memset(out, 0x5a, sizeof(out));
    ploop_pio_prep_writev(pio, 3 * CLUSTER_BYTES, &iov, 1, PLOOP_PIO_FUA);
    finish(queue, pio);
    ploop_pio_prep_write_zeroes(pio, 0, CLUSTER_BYTES, 0);
    finish(queue, pio);
    iov.iov_base = in;
    ploop_pio_prep_readv(pio, 3 * CLUSTER_BYTES, &iov, 1);
    finish(queue, pio);
    MUST(memcmp(in, out, sizeof(in)) == 0);
    ploop_pio_prep_discard(pio, 5 * CLUSTER_BYTES, CLUSTER_BYTES);
    finish(queue, pio);
    ploop_pio_prep_flush(pio);
    finish(queue, pio);
    ploop_pio_prep_bat_write(pio, 0, 1);
    finish(queue, pio);
    ploop_pio_put(pio);
}

static void look(ploop_dev *dev)
{
    struct ploop_dev_info info = {.size = sizeof(info)};
    struct ploop_bat_page_info page = {.size = sizeof(page)};
    struct ploop_extent extent = {.size = sizeof(extent)};
    uint32_t entries[16], number;
    MUST(ploop_dev_info(dev, &info) == 0 && info.disk_size == DISK_BYTES);
    MUST(info.cluster_size == CLUSTER_BYTES && info.clusters_mapped == 1 && info.requests >= 6);
    MUST(ploop_bat_page_count(dev) == 1 && ploop_bat_page_info(dev, 0, &page) == 0);
    MUST(page.mapped == 1 && ploop_bat_page_read(dev, 0, entries, 16) == 16 && entries[3]);
    MUST(ploop_bat_lookup(dev, 3 * CLUSTER_BYTES, CLUSTER_BYTES, &extent) == 0);
    MUST(extent.state == PLOOP_EXTENT_MAPPED && extent.length == CLUSTER_BYTES);
    MUST(storage[extent.host_offset] == 0x5a);
    MUST(ploop_bat_set_delay(dev, 0, 0) == 0 && ploop_bat_page_write(dev, 0) == 0);
    MUST(ploop_dev_flush(dev) == 0 && ploop_bat_page_next_dirty(dev, 0, &number) == -ENOENT);
    MUST(ploop_dev_suspend(dev) == 0 && ploop_dev_resume(dev) == 0);
    MUST(ploop_dev_run(dev) >= 0 && ploop_dev_next_deadline(dev) > 0);
    MUST(ploop_dev_retry_parked(dev) == 0);
}

static void use_device(ploop_file *file)
{
    static unsigned char bytes[SECTOR] = {1}; /* zeros would take no cluster */
    struct ploop_clock clock = {.size = sizeof(clock), .now_ns = now_ns};
    struct ploop_dev_config config;
    ploop_dev *dev;
    ploop_dev_config_init(&config, sizeof(config));
    config.clock = &clock;
    config.log = log_line;
    config.event = event;
    config.user_data = &now;
    config.pio_count = 4;
    MUST(ploop_dev_open(&file, 1, &config, &dev) == 0);
    use_queue(dev);
    look(dev);
    MUST(ploop_dev_pwrite(dev, bytes, SECTOR, 0) == SECTOR);
    MUST(ploop_dev_pread(dev, bytes, SECTOR, 3 * CLUSTER_BYTES) == SECTOR && bytes[0] == 0x5a);
    MUST(ploop_dev_close(dev) == 0);
}

static void record(void *user_data, const struct ploop_check_record *finding, const char *text)
{
    MUST(finding->size >= sizeof(*finding) && text[0]);
    ++*(int *)user_data;
}

static void check(ploop_file *file)
{
    int records = 0;
    struct ploop_image_info info = {.size = sizeof(info)};
    struct ploop_check_options options = {
        .size = sizeof(options), .record = record, .user_data = &records};
    struct ploop_check_result result = {.size = sizeof(result)};
    MUST(ploop_image_probe(file, &info) == 0 && info.version == 2);
    MUST(info.disk_size == DISK_BYTES && info.cluster_size == CLUSTER_BYTES);
    MUST(ploop_image_check(file, &options, &result) == 0);
    MUST(result.errors == 0 && result.leaks == 0 && records == 0 && result.mapped == 2);
}

int main(void)
{
    struct ploop_io_ops ops = {
        .size = sizeof(ops), .get_info = get_info, .submit = submit, .close = close_storage};
    struct ploop_image_options options = {
        .size = sizeof(options), .disk_size = DISK_BYTES, .cluster_size = CLUSTER_BYTES};
    struct ploop_file_info info = {.size = sizeof(info)};
    ploop_file *file;
    MUST(ploop_version() >> 16 == PLOOP_VERSION_MAJOR);
    MUST(ploop_file_create(&ops, storage, &file) == 0 && ploop_image_create(file, &options) == 0);
    use_device(file);
    check(file);
    MUST(ploop_file_info(file, &info) == 0 && info.file_size == storage_size);
    ploop_file_close(file);
    MUST(closed == 1);
    return 0;
}
