/* SPDX-License-Identifier: MIT */
/*
 * A file in memory: for tests, benchmarks and throw-away disks. Sparse at any size: bytes live in
 * chunks, found through a hash of their number, and a chunk exists once something was written or
 * allocated in it.
 *
 *  1. Where there is no chunk, the file reads as zeros; so do a chunk's bytes that lie beyond the
 *     end of the file, which is why growing the file has nothing to do.
 *  2. Requests complete before submit returns, with no lock held. Reads run side by side; whatever
 *     changes the file runs alone, so that a read sees a write whole or not at all.
 */
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "file/file.h"

enum { CHUNK_BYTES = 64 * 1024, BUCKETS_AT_FIRST = 64 };

struct chunk {
    struct chunk *next; /* of the same bucket */
    uint64_t number;
    uint8_t bytes[CHUNK_BYTES];
};

struct memory {
    pthread_rwlock_t lock;
    uint64_t file_size;
    struct chunk **buckets;
    uint64_t bucket_count; /* a power of two */
    uint64_t chunk_count;
};

static struct chunk **bucket_of(struct chunk **buckets, uint64_t count, uint64_t number)
{
    return &buckets[number & (count - 1)];
}

static struct chunk *find_chunk(const struct memory *memory, uint64_t number)
{
    struct chunk *chunk = *bucket_of(memory->buckets, memory->bucket_count, number);
    while (chunk && chunk->number != number) {
        chunk = chunk->next;
    }
    return chunk;
}

/* Without memory for more buckets the chains just become longer. */
static void grow_buckets(struct memory *memory)
{
    uint64_t count = memory->bucket_count * 2;
    struct chunk **buckets = calloc(count, sizeof(struct chunk *));
    if (!buckets) {
        return;
    }
    for (uint64_t i = 0; i < memory->bucket_count; i++) {
        struct chunk *next;
        for (struct chunk *chunk = memory->buckets[i]; chunk; chunk = next) {
            struct chunk **bucket = bucket_of(buckets, count, chunk->number);
            next = chunk->next;
            chunk->next = *bucket;
            *bucket = chunk;
        }
    }
    free(memory->buckets);
    memory->buckets = buckets;
    memory->bucket_count = count;
}

/* The chunk of this number, made of zeros if need be; NULL: no memory. */
static struct chunk *get_chunk(struct memory *memory, uint64_t number)
{
    struct chunk *chunk = find_chunk(memory, number);
    if (chunk) {
        return chunk;
    }
    chunk = calloc(1, sizeof(*chunk));
    if (!chunk) {
        return NULL;
    }
    if (memory->chunk_count >= memory->bucket_count) {
        grow_buckets(memory);
    }
    struct chunk **bucket = bucket_of(memory->buckets, memory->bucket_count, number);
    chunk->number = number;
    chunk->next = *bucket;
    *bucket = chunk;
    memory->chunk_count++;
    return chunk;
}

/*
 * Free the chunks in [first, end). By number where that is fewer steps than looking at every chunk.
 */
static void drop_chunks(struct memory *memory, uint64_t first, uint64_t end)
{
    if (first >= end) {
        return;
    }
    bool by_number = end - first < memory->bucket_count;
    uint64_t steps = by_number ? end - first : memory->bucket_count;
    for (uint64_t i = 0; i < steps; i++) {
        struct chunk **link = by_number
                                  ? bucket_of(memory->buckets, memory->bucket_count, first + i)
                                  : &memory->buckets[i];
        while (*link) {
            struct chunk *chunk = *link;
            if (chunk->number < first || chunk->number >= end) {
                link = &chunk->next;
                continue;
            }
            *link = chunk->next;
            memory->chunk_count--;
            free(chunk);
        }
    }
}

static void zero_in_chunk(struct memory *memory, uint64_t offset, uint64_t length)
{
    struct chunk *chunk = find_chunk(memory, offset / CHUNK_BYTES);
    if (chunk) {
        memset(chunk->bytes + offset % CHUNK_BYTES, 0, length);
    }
}

/* [offset, end) reads as zeros afterwards; whole chunks are given back. */
static void punch(struct memory *memory, uint64_t offset, uint64_t end)
{
    uint64_t first = (offset + CHUNK_BYTES - 1) / CHUNK_BYTES;
    uint64_t last = end / CHUNK_BYTES;
    if (first > last) { /* inside one chunk */
        zero_in_chunk(memory, offset, end - offset);
        return;
    }
    zero_in_chunk(memory, offset, first * CHUNK_BYTES - offset);
    drop_chunks(memory, first, last);
    zero_in_chunk(memory, last * CHUNK_BYTES, end - last * CHUNK_BYTES);
}

static int64_t allocate(struct memory *memory, uint64_t offset, uint64_t end)
{
    for (uint64_t number = offset / CHUNK_BYTES; number * CHUNK_BYTES < end; number++) {
        if (!get_chunk(memory, number)) {
            return -ENOSPC;
        }
    }
    memory->file_size = memory->file_size < end ? end : memory->file_size;
    return 0;
}

static void truncate_to(struct memory *memory, uint64_t file_size)
{
    if (file_size < memory->file_size) {
        uint64_t end = (memory->file_size + CHUNK_BYTES - 1) / CHUNK_BYTES * CHUNK_BYTES;
        punch(memory, file_size, end);
    }
    memory->file_size = file_size;
}

/* Move one segment, which may span chunks. Fewer bytes than asked for: no memory. */
static uint64_t move_segment(struct memory *memory, bool write, uint8_t *buffer, uint64_t length,
                             uint64_t offset)
{
    uint64_t moved = 0;
    while (moved < length) {
        uint64_t inside = (offset + moved) % CHUNK_BYTES;
        uint64_t number = (offset + moved) / CHUNK_BYTES;
        uint64_t piece =
            length - moved < CHUNK_BYTES - inside ? length - moved : CHUNK_BYTES - inside;
        struct chunk *chunk = write ? get_chunk(memory, number) : find_chunk(memory, number);
        if (write && !chunk) {
            break;
        } else if (write) {
            memcpy(chunk->bytes + inside, buffer + moved, piece);
        } else if (chunk) {
            memcpy(buffer + moved, chunk->bytes + inside, piece);
        } else {
            memset(buffer + moved, 0, piece);
        }
        moved += piece;
    }
    return moved;
}

static int64_t move(struct memory *memory, const struct ploop_io *io)
{
    bool write = io->op == PLOOP_IO_WRITE;
    uint64_t left = io->length;
    uint64_t moved = 0;
    if (!write) {
        uint64_t readable = memory->file_size > io->offset ? memory->file_size - io->offset : 0;
        left = left < readable ? left : readable;
    }
    for (uint32_t i = 0; i < io->iov_count && moved < left; i++) {
        uint64_t piece = io->iov[i].iov_len < left - moved ? io->iov[i].iov_len : left - moved;
        uint64_t done = move_segment(memory, write, io->iov[i].iov_base, piece, io->offset + moved);
        moved += done;
        if (done < piece) {
            break;
        }
    }
    if (write && io->offset + moved > memory->file_size && moved) {
        memory->file_size = io->offset + moved;
    }
    return write && left && !moved ? -ENOSPC : (int64_t)moved;
}

static int64_t execute(struct memory *memory, const struct ploop_io *io)
{
    uint64_t end = io->offset + io->length;
    switch (io->op) {
    case PLOOP_IO_READ:
    case PLOOP_IO_WRITE:
        return move(memory, io);
    case PLOOP_IO_SYNC:
        return 0;
    case PLOOP_IO_ALLOCATE:
        return allocate(memory, io->offset, end);
    case PLOOP_IO_PUNCH:
        punch(memory, io->offset, end);
        return 0;
    case PLOOP_IO_TRUNCATE:
        truncate_to(memory, io->offset);
        return 0;
    default:
        return -EINVAL;
    }
}

static int memory_submit(void *context, struct ploop_io *io)
{
    struct memory *memory = context;
    if (io->offset > INT64_MAX || io->length > INT64_MAX - io->offset) {
        return -EINVAL;
    }
    if (io->op == PLOOP_IO_READ) {
        pthread_rwlock_rdlock(&memory->lock);
    } else {
        pthread_rwlock_wrlock(&memory->lock);
    }
    int64_t result = execute(memory, io);
    pthread_rwlock_unlock(&memory->lock);
    ploop_io_complete(io, result);
    return 0;
}

static int memory_get_info(void *context, struct ploop_file_info *info)
{
    struct memory *memory = context;
    pthread_rwlock_rdlock(&memory->lock);
    info->file_size = memory->file_size;
    pthread_rwlock_unlock(&memory->lock);
    info->capabilities =
        PLOOP_FILE_CAN_FUA | PLOOP_FILE_CAN_PUNCH | PLOOP_FILE_CAN_ALLOCATE | PLOOP_FILE_CAN_GROW;
    info->request_alignment = 1;
    info->max_transfer = 0;
    return 0;
}

/* The memory is the storage. */
static int memory_invalidate(void *context)
{
    (void)context;
    return 0;
}

/* The chunk with the lowest number from `first` on, below `limit`, or `limit`. */
static uint64_t next_chunk(const struct memory *memory, uint64_t first, uint64_t limit)
{
    uint64_t lowest = limit;
    if (limit > first && limit - first <= memory->bucket_count) {
        while (first < limit && !find_chunk(memory, first)) {
            first++;
        }
        return first;
    }
    for (uint64_t i = 0; i < memory->bucket_count; i++) {
        for (const struct chunk *chunk = memory->buckets[i]; chunk; chunk = chunk->next) {
            lowest = chunk->number >= first && chunk->number < lowest ? chunk->number : lowest;
        }
    }
    return lowest;
}

static int memory_data_extent(void *context, uint64_t offset, uint64_t *data_offset,
                              uint64_t *data_length)
{
    struct memory *memory = context;
    pthread_rwlock_rdlock(&memory->lock);
    uint64_t size = memory->file_size, limit = (size + CHUNK_BYTES - 1) / CHUNK_BYTES;
    uint64_t first = next_chunk(memory, offset / CHUNK_BYTES, limit), end = first;
    while (end < limit && find_chunk(memory, end)) {
        end++;
    }
    pthread_rwlock_unlock(&memory->lock);
    *data_offset = first * CHUNK_BYTES < offset ? offset : first * CHUNK_BYTES;
    uint64_t data_end = end * CHUNK_BYTES < size ? end * CHUNK_BYTES : size;
    *data_length = first < end && data_end > *data_offset ? data_end - *data_offset : 0;
    return 0;
}

static void memory_close(void *context)
{
    struct memory *memory = context;
    drop_chunks(memory, 0, UINT64_MAX);
    pthread_rwlock_destroy(&memory->lock);
    free(memory->buckets);
    free(memory);
}

int ploop_file_create_memory(uint64_t file_size, ploop_file **file)
{
    static const struct ploop_io_ops ops = {.size = sizeof(ops),
                                            .get_info = memory_get_info,
                                            .submit = memory_submit,
                                            .close = memory_close,
                                            .invalidate = memory_invalidate,
                                            .data_extent = memory_data_extent};
    if (!file) {
        return -EINVAL;
    }
    *file = NULL;
    if (file_size > INT64_MAX) {
        return -EINVAL;
    }
    struct memory *memory = calloc(1, sizeof(*memory));
    if (!memory) {
        return -ENOMEM;
    }
    memory->file_size = file_size;
    memory->bucket_count = BUCKETS_AT_FIRST;
    memory->buckets = calloc(memory->bucket_count, sizeof(struct chunk *));
    int error = memory->buckets ? ploop_file_create(&ops, memory, file) : -ENOMEM;
    if (!error) {
        error = -pthread_rwlock_init(&memory->lock, NULL);
    }
    if (error) {
        free(*file);
        *file = NULL;
        free(memory->buckets);
        free(memory);
    }
    return error;
}
