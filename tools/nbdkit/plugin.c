/* SPDX-License-Identifier: MIT */
/*
 * nbdkit-ploop-plugin.so: serves a ploop image, so that any client that speaks NBD has a ploop
 * disk.
 *
 * This file is nbdkit's view of the plugin: its parameters and its callbacks, in the order nbdkit
 * calls them. The devices are in device.c.
 *
 *   .get_ready  called before the fork, so that errors of the image still appear at the terminal
 *   .after_fork begins to listen to SIGUSR1
 *   .open       the first call for an image opens its device: only here does nbdkit report -r and
 *               the export's name, and a device does not survive the fork. After a failure the next
 *               connection tries again
 *   .close      with dir= the last connection to an image closes its device
 *   .cleanup    no connection is left: what is open is closed
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "bundle.h"
#include "device.h"
#include "exports.h"
#include "status.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

enum {
    PREFERRED_BLOCK = 4096,
    MAXIMUM_BLOCK = 64 << 20, /* of reads and writes: nbdkit sends no longer ones */
    DELAY_DEFAULT_MS = 500,
    MAX_AGE_DEFAULT_MS = 5000
};

static struct server_config config;
static bool delay_given;
static bool max_age_given;
static bool backend_given;

/* ---- parameters ---- */

static int set_image(const char *value)
{
    if (config.image) {
        nbdkit_error("more than one image: '%s' and '%s'", config.image, value);
        return -1;
    }
    if (!*value) {
        nbdkit_error("image=: missing file name");
        return -1;
    }
    config.image = nbdkit_absolute_path(value);
    return config.image ? 0 : -1;
}

static int set_dir(const char *value)
{
    if (config.dir) {
        nbdkit_error("more than one directory: '%s' and '%s'", config.dir, value);
        return -1;
    }
    if (!*value) {
        nbdkit_error("dir=: missing directory name");
        return -1;
    }
    config.dir = nbdkit_absolute_path(value);
    return config.dir ? 0 : -1;
}

static int add_base(const char *key, const char *value, bool is_raw)
{
    uint32_t at = is_raw ? 0 : config.base_count;
    char *path;

    if (is_raw && config.has_raw_base) {
        nbdkit_error("more than one raw-base=: '%s' and '%s'", config.bases[0], value);
        return -1;
    }
    if (!*value) {
        nbdkit_error("%s=: missing file name", key);
        return -1;
    }
    if (config.base_count == BASES_MAX) {
        nbdkit_error("too many backing files: at most %d are supported", BASES_MAX);
        return -1;
    }
    path = nbdkit_absolute_path(value);
    if (!path) {
        return -1;
    }
    memmove(&config.bases[at + 1], &config.bases[at],
            (config.base_count - at) * sizeof(config.bases[0]));
    config.bases[at] = path;
    config.base_count++;
    config.has_raw_base |= is_raw;
    return 0;
}

static int set_bool(const char *value, bool *target)
{
    int parsed = nbdkit_parse_bool(value);

    if (parsed < 0) {
        return -1;
    }
    *target = parsed;
    return 0;
}

static int set_after_sync_failure(const char *value)
{
    config.refuse_after_sync_failure = !strcmp(value, "refuse");
    if (!config.refuse_after_sync_failure && strcmp(value, "go-on")) {
        nbdkit_error("invalid value '%s' for after-sync-failure=: expected go-on or refuse", value);
        return -1;
    }
    return 0;
}

static int set_backend(const char *value)
{
    backend_given = true;
    config.uring = config.uring_asked = !strcmp(value, "uring");
    if (!config.uring && strcmp(value, "posix")) {
        nbdkit_error("invalid value '%s' for backend=: expected posix or uring", value);
        return -1;
    }
    return 0;
}

static int set_recover(const char *value)
{
    config.recover_cached = !strcmp(value, "cached");
    if (config.recover_cached) {
        config.recover = true;
        return 0;
    }
    return set_bool(value, &config.recover);
}

static int set_ms(const char *key, const char *value, uint32_t *target, bool *given)
{
    *given = true;
    return nbdkit_parse_uint32_t(key, value, target);
}

static int plugin_config(const char *key, const char *value)
{
    if (!strcmp(key, "image")) {
        return set_image(value);
    }
    if (!strcmp(key, "dir")) {
        return set_dir(value);
    }
    if (!strcmp(key, "base") || !strcmp(key, "raw-base")) {
        return add_base(key, value, key[0] == 'r');
    }
    if (!strcmp(key, "recover")) {
        return set_recover(value);
    }
    if (!strcmp(key, "direct")) {
        return set_bool(value, &config.direct);
    }
    if (!strcmp(key, "host-shows-stale")) {
        return set_bool(value, &config.host_shows_stale);
    }
    if (!strcmp(key, "after-sync-failure")) {
        return set_after_sync_failure(value);
    }
    if (!strcmp(key, "delay")) {
        return set_ms(key, value, &config.delay_ms, &delay_given);
    }
    if (!strcmp(key, "max-age")) {
        return set_ms(key, value, &config.max_age_ms, &max_age_given);
    }
    if (!strcmp(key, "backend")) {
        return set_backend(value);
    }
    nbdkit_error("unknown parameter '%s'", key);
    return -1;
}

/* If one of the two times is given, it bounds the default of the other. */
static int plugin_config_complete(void)
{
    if (!config.image == !config.dir) {
        nbdkit_error(config.dir ? "image= and dir= exclude each other"
                                : "image= or dir= is required");
        return -1;
    }
    if (config.dir && config.base_count) {
        nbdkit_error("base= and raw-base= need image=");
        return -1;
    }
    if (config.image && expand_bundle(&config)) {
        return -1;
    }
    /* Buffered writes are faster through threads (bench/backends.c). */
    if (!backend_given) {
        config.uring = config.direct;
    }
    if (!delay_given) {
        config.delay_ms = max_age_given && config.max_age_ms < DELAY_DEFAULT_MS ? config.max_age_ms
                                                                                : DELAY_DEFAULT_MS;
    }
    if (!max_age_given) {
        config.max_age_ms =
            config.delay_ms > MAX_AGE_DEFAULT_MS ? config.delay_ms : MAX_AGE_DEFAULT_MS;
    }
    if (config.max_age_ms < config.delay_ms) {
        nbdkit_error("max-age=%u must not be less than delay=%u", config.max_age_ms,
                     config.delay_ms);
        return -1;
    }
    return 0;
}

static int plugin_list_exports(int read_only, int is_tls, struct nbdkit_exports *exports)
{
    (void)read_only;
    (void)is_tls;
    return exports_list(&config, exports);
}

static void plugin_dump(void)
{
    const uint32_t version = ploop_version();

    printf("ploop_version=%u.%u.%u\n", version >> 16, version >> 8 & 0xff, version & 0xff);
    printf("ploop_backends=posix,uring\n");
}

/* ---- the server's life ---- */

static int plugin_get_ready(void)
{
    struct stat stat_of_dir;

    if (!config.dir) {
        return device_probe(&config);
    }
    if (stat(config.dir, &stat_of_dir) || !S_ISDIR(stat_of_dir.st_mode)) {
        nbdkit_error("%s: not a directory", config.dir);
        return -1;
    }
    return 0;
}

/* Without the thread the server only cannot tell its state. */
static int plugin_after_fork(void)
{
    if (status_start()) {
        nbdkit_error("warning: no thread for SIGUSR1");
    }
    return 0;
}

static bool ended_badly;

static void plugin_cleanup(void)
{
    status_stop();
    ended_badly = device_close_all() != 0;
}

static void plugin_unload(void)
{
    buffers_end();
    free(config.image);
    free(config.dir);
    for (uint32_t i = 0; i < config.base_count; i++) {
        free(config.bases[i]);
    }
    /*
     * The last of the plugin's functions to be called; nbdkit would exit with 0, but a service
     * manager must see an unclean end.
     */
    if (ended_badly) {
        exit(EXIT_FAILURE);
    }
}

/* ---- a connection ---- */

static void *plugin_open(int read_only)
{
    const char *export = nbdkit_export_name();

    return export ? device_open(&config, export, read_only) : NULL;
}

static void plugin_close(void *handle)
{
    device_release(handle);
}

static const struct ploop_dev_info *info_of(void *handle)
{
    const struct device *device = handle;

    return &device->info;
}

static int64_t plugin_get_size(void *handle)
{
    return (int64_t)info_of(handle)->disk_size;
}

static int plugin_block_size(void *handle, uint32_t *minimum, uint32_t *preferred,
                             uint32_t *maximum)
{
    *minimum = info_of(handle)->request_alignment;
    *preferred = PREFERRED_BLOCK;
    *maximum = MAXIMUM_BLOCK;
    return 0;
}

static int plugin_can_write(void *handle)
{
    return !(info_of(handle)->state & PLOOP_STATE_READ_ONLY);
}

/*
 * flush, trim, zero, fast zero, extents; also many connections, because they share one device, and
 * a flush covers all of it.
 */
static int plugin_can(void *handle)
{
    (void)handle;
    return 1;
}

static int plugin_can_fua(void *handle)
{
    (void)handle;
    return NBDKIT_FUA_NATIVE;
}

/*
 * A cache request reads into the host's page cache; if that is bypassed the plugin cannot offer it.
 */
static int plugin_can_cache(void *handle)
{
    (void)handle;
    return config.direct ? NBDKIT_CACHE_NONE : NBDKIT_CACHE_EMULATE;
}

/* ---- requests ---- */

static uint32_t pio_flags(uint32_t flags)
{
    return flags & NBDKIT_FLAG_FUA ? PLOOP_PIO_FUA : 0;
}

static int plugin_pread(void *handle, void *buffer, uint32_t count, uint64_t offset, uint32_t flags)
{
    (void)flags;
    return device_read(handle, buffer, count, offset);
}

static int plugin_pwrite(void *handle, const void *buffer, uint32_t count, uint64_t offset,
                         uint32_t flags)
{
    return device_write(handle, buffer, count, offset, pio_flags(flags));
}

static int plugin_flush(void *handle, uint32_t flags)
{
    (void)flags;
    return device_flush(handle);
}

/* A discard has no FUA, so a flush follows it. */
static int plugin_trim(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
    if (device_discard(handle, count, offset)) {
        return -1;
    }
    return flags & NBDKIT_FLAG_FUA ? device_flush(handle) : 0;
}

static int plugin_zero(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
    uint32_t how = pio_flags(flags);

    if (!(flags & NBDKIT_FLAG_MAY_TRIM)) {
        how |= PLOOP_PIO_NO_UNMAP;
    }
    if (flags & NBDKIT_FLAG_FAST_ZERO) {
        how |= PLOOP_PIO_FAST_ONLY;
    }
    return device_write_zeroes(handle, count, offset, how);
}

/* The list joins adjacent extents of one type, so "one extent" continues until the type changes. */
static int plugin_extents(void *handle, uint32_t count, uint64_t offset, uint32_t flags,
                          struct nbdkit_extents *extents)
{
    const uint64_t end = offset + count;
    uint32_t state = 0;

    while (offset < end) {
        struct ploop_extent extent = {.size = sizeof(extent)};

        if (device_lookup(handle, offset, end - offset, &extent)) {
            return -1;
        }
        if (state && extent.state != state && flags & NBDKIT_FLAG_REQ_ONE) {
            break;
        }
        state = extent.state;
        if (nbdkit_add_extent(extents, offset, extent.length,
                              state == PLOOP_EXTENT_ZERO ? NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO
                                                         : 0)) {
            return -1;
        }
        offset += extent.length;
    }
    return 0;
}

static struct nbdkit_plugin plugin = {
    .name = "ploop",
    .longname = "nbdkit ploop plugin",
    .description = "Serves a ploop image (Parallels expandable image) as a disk.",
    .config = plugin_config,
    .config_complete = plugin_config_complete,
    .config_help =
        "[image=]IMAGE   the ploop image to serve, or a bundle's directory\n"
        "dir=DIRECTORY   serve the images of a directory, by export name\n"
        "base=FILE       backing image; repeat for each, lowest first\n"
        "raw-base=FILE   raw backing disk, below all others\n"
        "recover=BOOL    recover an image that was not closed cleanly\n"
        "recover=cached  the same, even if its page cache cannot be dropped\n"
        "delay=MS        write-back delay after a map page's last change (default 500)\n"
        "max-age=MS      longest write-back delay after its first change (default 5000)\n"
        "direct=BOOL     bypass the host page cache\n"
        "host-shows-stale=BOOL\n"
        "                for host file systems that may show deleted data after power loss\n"
        "after-sync-failure=go-on|refuse\n"
        "                what writes do after a failed sync (default go-on)\n"
        "backend=posix|uring\n"
        "                how files are accessed (default uring\n"
        "                with direct=1, posix without)",
    .magic_config_key = "image",
    .dump_plugin = plugin_dump,
    .get_ready = plugin_get_ready,
    .after_fork = plugin_after_fork,
    .cleanup = plugin_cleanup,
    .unload = plugin_unload,
    .list_exports = plugin_list_exports,
    .open = plugin_open,
    .close = plugin_close,
    .get_size = plugin_get_size,
    .block_size = plugin_block_size,
    .can_write = plugin_can_write,
    .can_flush = plugin_can,
    .can_trim = plugin_can,
    .can_zero = plugin_can,
    .can_fast_zero = plugin_can,
    .can_extents = plugin_can,
    .can_multi_conn = plugin_can,
    .can_fua = plugin_can_fua,
    .can_cache = plugin_can_cache,
    .pread = plugin_pread,
    .pwrite = plugin_pwrite,
    .flush = plugin_flush,
    .trim = plugin_trim,
    .zero = plugin_zero,
    .extents = plugin_extents,
};

struct nbdkit_plugin *plugin_init(void); /* nbdkit's macro defines it without a declaration */

NBDKIT_REGISTER_PLUGIN(plugin)
