/* SPDX-License-Identifier: MIT */
/*
 * Internal to the backend: shared by backend.c (the steps of a request), backend_check.c and
 * backend_ops.c (the table).
 */
#ifndef SIM_BACKEND_STEPS_H
#define SIM_BACKEND_STEPS_H

#include "backend.h"

const char *backend_op_name(uint32_t op);
bool backend_is_page(const struct backend *backend, const struct ploop_io *io);
uint64_t backend_sum(const struct ploop_io *io); /* of the memory to be written */
void backend_check(struct backend *backend, const struct ploop_io *io, bool below);

void backend_happened(struct backend *backend); /* an event is over */
void backend_fault(struct backend *backend, enum fault kind);
bool backend_strikes(struct backend *backend,
                     enum fault kind); /* whether this fault strikes now, by chance */
bool backend_nth_fails(
    struct backend *backend);       /* the Nth call, if an exhaustive loop asked for it */
bool backend_again(int64_t result); /* no failure: the library tries again */
void backend_cache_moves(
    struct backend *backend); /* what a cache does by itself between two steps */

void backend_execute(struct backend *backend, struct request *request);
void backend_complete(struct backend *backend, struct request *request);
void backend_ring(
    struct backend *backend,
    const struct request *request); /* it is ready: its queue's descriptor is readable */

#endif
