/* SPDX-License-Identifier: MIT */
#include "scripted_backend.h"

#include <check.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { NAPS_MAX = 20000, PAGE = 4096 };
#define SPACE (UINT64_C(2) << 30)

static uint32_t kind_of(const struct script *script, const struct ploop_io *io)
{
    return io->op == PLOOP_IO_WRITE && io->offset < script->meta_end ? SCRIPT_META : io->op;
}

static void check_request(const struct script *script, const struct ploop_io *io)
{
    uint64_t length = 0;
    ck_assert(!script->closed);
    ck_assert_uint_ge(io->op, PLOOP_IO_READ);
    ck_assert_uint_le(io->op, PLOOP_IO_TRUNCATE);
    ck_assert(!(io->flags & ~(uint32_t)PLOOP_IO_ALLOCATES) ||
              script->capabilities & PLOOP_FILE_CAN_FUA);
    ck_assert(!io->flags || io->op == PLOOP_IO_WRITE);
    for (uint32_t i = 0; i < io->iov_count; i++) {
        length += io->iov[i].iov_len;
    }
    if (io->op == PLOOP_IO_READ || io->op == PLOOP_IO_WRITE) {
        ck_assert_uint_eq(length, io->length);
        ck_assert_uint_gt(length, 0);
        ck_assert(!script->max_transfer || length <= script->max_transfer);
    }
    if (script->alignment > 1 && io->op != PLOOP_IO_ALLOCATE && io->op != PLOOP_IO_TRUNCATE) {
        uint64_t memory = script->alignment < PAGE ? script->alignment : PAGE, bits = 0;
        for (uint32_t i = 0; i < io->iov_count; i++) {
            bits |= (uintptr_t)io->iov[i].iov_base;
            bits |= script->alignment > 512 ? io->iov[i].iov_len : 0;
        }
        ck_assert_uint_eq((io->offset | io->length) % script->alignment, 0);
        ck_assert_uint_eq(bits % memory, 0);
    }
    if (io->op == PLOOP_IO_WRITE && io->offset < script->meta_end) {
        /* No metadata write may cover a byte of data, but in the block that it ends in. */
        uint64_t end = script->meta_end + script->alignment - 1;
        ck_assert_uint_le(io->offset + length, end - end % script->alignment);
    }
}

/*
 * Bytes beyond the file's end are zeros. Large files cost nothing, because untouched memory takes
 * no space.
 */
static void resize(struct script *script, uint64_t size)
{
    ck_assert_uint_le(size, SPACE);
    if (size < script->file_size) {
        uint64_t page = (size + PAGE - 1) / PAGE * PAGE,
                 end = (script->file_size + PAGE - 1) / PAGE * PAGE;
        memset(script->bytes + size, 0, page - size);
        if (page < end) {
            ck_assert_int_eq(madvise(script->bytes + page, end - page, MADV_DONTNEED), 0);
        }
    }
    script->file_size = size;
}

static int64_t move(struct script *script, const struct ploop_io *io)
{
    bool write = io->op == PLOOP_IO_WRITE;
    uint64_t end = write ? script->size_max : script->file_size, at = io->offset, left = io->length;
    if (at >= end) {
        return write ? -ENOSPC : 0;
    }
    left = left < end - at ? left : end - at;
    if (script->short_bytes && left > script->short_bytes) {
        left = script->short_bytes;
    }
    int64_t moved = (int64_t)left;
    if (write && at + left > script->file_size) {
        resize(script, at + left);
    }
    for (uint32_t i = 0; i < io->iov_count && left; i++) {
        size_t piece = io->iov[i].iov_len < left ? io->iov[i].iov_len : (size_t)left;
        if (write) {
            memcpy(script->bytes + at, io->iov[i].iov_base, piece);
        } else {
            memcpy(io->iov[i].iov_base, script->bytes + at, piece);
        }
        at += piece;
        left -= piece;
    }
    return moved;
}

static bool fails(struct script *script, uint32_t kind)
{
    if (!script->fail[kind].times) {
        return false;
    }
    if (script->fail[kind].after) {
        script->fail[kind].after--;
        return false;
    }
    if (script->fail[kind].times != UINT64_MAX) {
        script->fail[kind].times--;
    }
    return true;
}

static int64_t carry_out(struct script *script, const struct ploop_io *io)
{
    uint32_t kind = kind_of(script, io);
    uint64_t end = io->offset + io->length;
    if (fails(script, kind)) {
        return script->fail[kind].error;
    }
    switch (io->op) {
    case PLOOP_IO_READ:
    case PLOOP_IO_WRITE:
        return move(script, io);
    case PLOOP_IO_ALLOCATE:
    case PLOOP_IO_TRUNCATE:
        if (end > script->size_max) {
            return -ENOSPC;
        }
        if (io->op == PLOOP_IO_TRUNCATE || end > script->file_size) {
            resize(script, end);
        }
        return 0;
    case PLOOP_IO_PUNCH:
        if (!(script->capabilities & PLOOP_FILE_CAN_PUNCH)) {
            return -ENOTSUP;
        }
        ck_assert_uint_le(end, script->file_size);
        memset(script->bytes + io->offset, 0, io->length);
        return 0;
    default:
        return 0;
    }
}

/* Called with the mutex held; releases it for the completion. */
static void finish(struct script *script, struct ploop_io *io, uint32_t kind)
{
    int64_t result = carry_out(script, io);
    script->completed[kind]++;
    script->naps = 0;
    pthread_mutex_unlock(&script->mutex);
    ploop_io_complete(io, result);
    pthread_mutex_lock(&script->mutex);
    script->in_flight--;
}

static struct ploop_io *take_held(struct script *script, uint32_t at, uint32_t *kind)
{
    ck_assert_uint_lt(at, script->held_count);
    struct ploop_io *io = script->held[at].io;
    *kind = script->held[at].kind;
    memmove(&script->held[at], &script->held[at + 1],
            (--script->held_count - at) * sizeof(script->held[0]));
    return io;
}

static void *completer(void *argument)
{
    struct script *script = argument;
    uint32_t kind;
    pthread_mutex_lock(&script->mutex);
    while (!script->stop) {
        if (script->held_count == 0) {
            pthread_cond_wait(&script->work, &script->mutex);
            continue;
        }
        script->random = script->random * UINT64_C(6364136223846793005) + 1442695040888963407u;
        struct ploop_io *io =
            take_held(script, (uint32_t)(script->random >> 33) % script->held_count, &kind);
        finish(script, io, kind);
    }
    pthread_mutex_unlock(&script->mutex);
    return NULL;
}

static int script_submit(void *context, struct ploop_io *io)
{
    struct script *script = context;
    pthread_mutex_lock(&script->mutex);
    uint32_t kind = kind_of(script, io);
    check_request(script, io);
    if (script->refuse) {
        script->refuse--;
        pthread_mutex_unlock(&script->mutex);
        return -EAGAIN;
    }
    script->submitted[kind]++;
    script->in_flight++;
    script->in_flight_most =
        script->in_flight > script->in_flight_most ? script->in_flight : script->in_flight_most;
    if (script->log_count < SCRIPT_LOG_MAX) {
        script->log[script->log_count++] =
            (struct script_entry){kind, io->flags, io->offset, io->length};
    }
    if (script->threaded || script->hold & SCRIPT_BIT(kind)) {
        ck_assert_uint_lt(script->held_count, SCRIPT_HELD_MAX);
        script->held[script->held_count++] = (struct script_held){io, kind};
        pthread_cond_signal(&script->work);
    } else {
        finish(script, io, kind);
    }
    pthread_mutex_unlock(&script->mutex);
    return 0;
}

static void script_kick(void *context, uint32_t queue)
{
    struct script *script = context;
    (void)queue;
    pthread_mutex_lock(&script->mutex);
    script->kicks++;
    pthread_mutex_unlock(&script->mutex);
}

static int script_wait(void *context, uint32_t queue, uint64_t timeout_ns)
{
    struct script *script = context;
    (void)queue;
    (void)timeout_ns;
    ck_assert_msg(++script->naps < NAPS_MAX, "the library waits for what never comes");
    if (script->idle) {
        script->idle(script, script->idle_argument);
    } else {
        usleep(100);
    }
    return 0;
}

static int script_get_info(void *context, struct ploop_file_info *info)
{
    struct script *script = context;
    pthread_mutex_lock(&script->mutex);
    info->file_size = script->file_size;
    info->capabilities = script->capabilities;
    info->max_transfer = script->max_transfer;
    info->request_alignment = script->alignment;
    pthread_mutex_unlock(&script->mutex);
    return 0;
}

static int script_invalidate(void *context)
{
    struct script *script = context;
    pthread_mutex_lock(&script->mutex);
    script->invalidates++;
    int result = script->invalidate_error;
    if (!result && script->disk) {
        resize(script, script->disk_size);
        memcpy(script->bytes, script->disk, script->disk_size);
    }
    pthread_mutex_unlock(&script->mutex);
    return result;
}

static void script_closed(void *context)
{
    struct script *script = context;
    pthread_mutex_lock(&script->mutex);
    ck_assert_uint_eq(script->held_count, 0);
    script->closed = true;
    pthread_mutex_unlock(&script->mutex);
}

static void make_file(struct script *script, uint32_t options)
{
    struct ploop_io_ops ops = {.size = sizeof(ops),
                               .get_info = script_get_info,
                               .submit = script_submit,
                               .kick = script_kick,
                               .wait = options & SCRIPT_NO_WAIT ? NULL : script_wait,
                               .close = script_closed,
                               .invalidate =
                                   options & SCRIPT_NO_INVALIDATE ? NULL : script_invalidate};
    script->closed = false;
    ck_assert_int_eq(ploop_file_create(&ops, script, &script->file), 0);
}

void script_open(struct script *script, const void *bytes, uint64_t size, uint32_t options)
{
    memset(script, 0, sizeof(*script));
    script->capabilities = SCRIPT_CAN_ALL;
    script->alignment = 1;
    script->size_max = UINT64_C(1) << 40;
    script->random = 1;
    script->bytes = mmap(NULL, SPACE, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ck_assert_ptr_ne(script->bytes, MAP_FAILED);
    resize(script, size);
    if (bytes && size) {
        memcpy(script->bytes, bytes, size);
    }
    pthread_mutex_init(&script->mutex, NULL);
    pthread_cond_init(&script->work, NULL);
    make_file(script, options);
    if (options & SCRIPT_THREAD) {
        script->threaded = true;
        ck_assert_int_eq(pthread_create(&script->thread, NULL, completer, script), 0);
    }
}

void script_reopen(struct script *script, uint32_t options)
{
    ploop_file_close(script->file);
    make_file(script, options);
}

void script_close(struct script *script)
{
    if (script->threaded) {
        pthread_mutex_lock(&script->mutex);
        script->stop = true;
        pthread_cond_broadcast(&script->work);
        pthread_mutex_unlock(&script->mutex);
        pthread_join(script->thread, NULL);
    }
    ploop_file_close(script->file);
    ck_assert_uint_eq(script->in_flight, 0);
    pthread_cond_destroy(&script->work);
    pthread_mutex_destroy(&script->mutex);
    munmap(script->bytes, SPACE);
}

void script_forget(struct script *script)
{
    pthread_mutex_lock(&script->mutex);
    memset(script->submitted, 0, sizeof(script->submitted));
    memset(script->completed, 0, sizeof(script->completed));
    script->kicks = 0;
    script->invalidates = 0;
    script->log_count = 0;
    script->in_flight_most = script->in_flight;
    pthread_mutex_unlock(&script->mutex);
}

void script_fail(struct script *script, uint32_t kind, uint64_t after, uint64_t times, int error)
{
    pthread_mutex_lock(&script->mutex);
    script->fail[kind].after = after;
    script->fail[kind].times = times;
    script->fail[kind].error = error;
    pthread_mutex_unlock(&script->mutex);
}

void script_release(struct script *script, uint32_t at)
{
    uint32_t kind;
    pthread_mutex_lock(&script->mutex);
    struct ploop_io *io = take_held(script, at, &kind);
    finish(script, io, kind);
    pthread_mutex_unlock(&script->mutex);
}

bool script_release_kind(struct script *script, uint32_t kind)
{
    bool found = false;
    pthread_mutex_lock(&script->mutex);
    for (uint32_t i = 0; i < script->held_count && !found; i++) {
        if (script->held[i].kind == kind) {
            found = true;
            struct ploop_io *io = take_held(script, i, &kind);
            finish(script, io, kind);
        }
    }
    pthread_mutex_unlock(&script->mutex);
    return found;
}

void script_release_all(struct script *script)
{
    uint32_t kind;
    pthread_mutex_lock(&script->mutex);
    script->hold = 0;
    while (script->held_count) {
        struct ploop_io *io = take_held(script, 0, &kind);
        finish(script, io, kind);
    }
    pthread_mutex_unlock(&script->mutex);
}

uint32_t script_held_of(struct script *script, uint32_t kind)
{
    uint32_t count = 0;
    pthread_mutex_lock(&script->mutex);
    for (uint32_t i = 0; i < script->held_count; i++) {
        count += script->held[i].kind == kind;
    }
    pthread_mutex_unlock(&script->mutex);
    return count;
}

uint32_t script_log_find(const struct script *script, uint32_t kind, uint32_t nth)
{
    for (uint32_t i = 0; i < script->log_count; i++) {
        if (script->log[i].kind == kind && nth-- == 0) {
            return i;
        }
    }
    ck_abort_msg("no such request was submitted");
}
