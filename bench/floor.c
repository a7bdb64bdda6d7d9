/* SPDX-License-Identifier: MIT */
/*
 * P0: the floor. A mapping layer that does only what none can leave out, for one mapped 4 KiB
 * request at a time: take a request from a pool, check its range, look its cluster up in the map,
 * aim a backend request at the place, hand it to a backend through a pointer, hear of the
 * completion through a callback, count the result, call the caller's callback, put the request
 * back. No locks, no threads, no order of writes, no errors but the range's. Completed requests
 * are delivered for each DEPTH submits. bench/callgrind.py counts the instructions of the requests.
 *
 *   floor read|overwrite COUNT DEPTH
 */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "support/bench.h"

enum { BLOCK = 4096, CLUSTERS = 64, CLUSTER_SHIFT = 20, POOL = 128, SECTOR = 512 };
#define DISK ((uint64_t)CLUSTERS << CLUSTER_SHIFT)

enum operation { FLOOR_READ, FLOOR_WRITE };
struct request;
typedef void request_fn(struct request *request, int result, void *user_data);

struct request {
    struct request *next_free;
    enum operation op;
    uint64_t offset, length;
    const struct iovec *iov;
    uint32_t iov_count;
    uint64_t host_offset;
    int64_t result;
    request_fn *callback;
    void *user_data;
};

struct layer {
    uint32_t map[CLUSTERS]; /* host clusters; 0: not mapped */
    struct request *free;
    struct request *done; /* to be delivered by a run */
    int (*backend)(struct layer *layer, struct request *request);
    uint64_t requests;
};

static void complete(struct layer *layer, struct request *request, int64_t result)
{
    request->result = result == (int64_t)request->length ? 0 : -EIO;
    request->next_free = layer->done;
    layer->done = request;
}

static int inline_backend(struct layer *layer, struct request *request)
{
    complete(layer, request, (int64_t)request->length);
    return 0;
}

__attribute__((noinline)) static struct request *take(struct layer *layer)
{
    struct request *request = layer->free;
    if (request) {
        layer->free = request->next_free;
    }
    return request;
}

__attribute__((noinline)) static void put(struct layer *layer, struct request *request)
{
    request->next_free = layer->free;
    layer->free = request;
}

__attribute__((noinline)) static void prepare(struct request *request, enum operation op,
                                              uint64_t offset, const struct iovec *iov,
                                              uint32_t iov_count)
{
    request->op = op;
    request->offset = offset;
    request->iov = iov;
    request->iov_count = iov_count;
    request->length = 0;
    for (uint32_t i = 0; i < iov_count; i++) {
        request->length += iov[i].iov_len;
    }
}

__attribute__((noinline)) static int submit(struct layer *layer, struct request *request)
{
    uint64_t offset = request->offset, length = request->length;
    if ((offset | length) % SECTOR || length > DISK || offset > DISK - length) {
        return -EINVAL;
    }
    uint64_t cluster = offset >> CLUSTER_SHIFT;
    if ((offset + length - 1) >> CLUSTER_SHIFT != cluster || layer->map[cluster] == 0) {
        return -ENOTSUP;
    }
    request->host_offset = ((uint64_t)layer->map[cluster] << CLUSTER_SHIFT) +
                           (offset & ((UINT64_C(1) << CLUSTER_SHIFT) - 1));
    layer->requests++;
    return layer->backend(layer, request);
}

__attribute__((noinline)) static void run(struct layer *layer)
{
    struct request *request;
    while ((request = layer->done) != NULL) {
        layer->done = request->next_free;
        request->callback(request, (int)request->result, request->user_data);
    }
}

static uint64_t failures;

static void done(struct request *request, int result, void *user_data)
{
    failures += result != 0;
    put(user_data, request);
}

static void requests(struct layer *layer, enum operation op, uint64_t count, uint64_t depth)
{
    static char block[BLOCK];
    const struct iovec iov = {block, sizeof(block)};
    for (uint64_t i = 0; i < count; i++) {
        struct request *request = take(layer);
        request->callback = done;
        request->user_data = layer;
        prepare(request, op, (i * 17 % CLUSTERS) << CLUSTER_SHIFT, &iov, 1);
        failures += submit(layer, request) != 0;
        if ((i + 1) % depth == 0) {
            run(layer);
        }
    }
}

int main(int argc, char **argv)
{
    static struct request pool[POOL];
    static struct layer layer;
    if (argc != 4) {
        fprintf(stderr, "usage: floor read|overwrite COUNT DEPTH\n");
        return 1;
    }
    layer.backend = inline_backend;
    for (uint32_t i = 0; i < CLUSTERS; i++) {
        layer.map[i] = i + 1;
    }
    for (uint32_t i = 0; i < POOL; i++) {
        put(&layer, &pool[i]);
    }
    enum operation op = strcmp(argv[1], "overwrite") == 0 ? FLOOR_WRITE : FLOOR_READ;
    BENCH_COUNT_BEGINS();
    requests(&layer, op, strtoull(argv[2], NULL, 10), strtoull(argv[3], NULL, 10));
    BENCH_COUNT_ENDS();
    return failures != 0;
}
