/* SPDX-License-Identifier: MIT */
/* What is known of a request as a whole while its parts do the work, and its completion. */
#include "pio/pio.h"

#include "pio/queue.h"
#include "util/probe.h"

#include <assert.h>

void pio_init(ploop_pio *pio, ploop_queue *queue)
{
    *pio = (ploop_pio){.queue = queue, .queue_index = queue->index, .part_ended = pio_part_ended};
    list_init(&pio->link);
    part_init(&pio->part, queue->dev);
    pio->part.pio = pio;
    fast_rest(pio);
}

struct part *pio_own_part(ploop_pio *pio)
{
    part_take(&pio->part, pio, pio->part_ended);
    pio->live++;
    return &pio->part;
}

void pio_set_stuck(ploop_pio *pio)
{
    assert(pio->parked <= pio->live);
    bool stuck = pio->parked > 0 && pio->parked == pio->live && !pio->advancing;
    if (stuck != pio->stuck) {
        pio->stuck = stuck;
        uint64_t weight = pio_weight(pio);
        atomic_fetch_add(&pio->queue->dev->stuck_count, stuck ? weight : -weight);
    }
}

void pio_note_parked(ploop_pio *pio, bool parked)
{
    assert(parked || pio->parked > 0);
    pio->parked += parked ? 1u : UINT32_MAX;
    pio_set_stuck(pio);
}

/*
 * A request waits for space from when a part of it is parked until no such part is left, however
 * often that part is tried again.
 */
void part_wants_space(struct part *part, bool wants)
{
    ploop_pio *pio = part->pio;
    if (part->wants_space == wants) {
        return;
    }
    assert(wants || pio->want_space > 0);
    part->wants_space = wants;
    uint32_t before = pio->want_space;
    pio->want_space += wants ? 1u : UINT32_MAX;
    if ((before == 0) != (pio->want_space == 0)) {
        pio->queue->dev->parked_count += wants ? 1u : UINT32_MAX;
    }
}

/* A caller looks at `finished` after it was counted, and before it sleeps. */
void pio_call_over(ploop_pio *pio)
{
    ploop_queue *queue = pio->queue;
    assert(pio->blocking);
    PROBE2(complete, pio, pio->result);
    atomic_store(&pio->finished, true); /* the caller's again, and perhaps gone */
    if (queue == dev_engine_queue(queue->dev)) {
        dev_wake(queue->dev);
    } else if (atomic_load(&queue->callers) && queue->dev->config.runner_count == 0) {
        queue_wake(queue);
    } else if (atomic_load(&queue->callers)) {
        pthread_mutex_lock(&queue->call_mutex);
        pthread_cond_broadcast(&queue->call_changed);
        pthread_mutex_unlock(&queue->call_mutex);
    }
}

void pio_complete(ploop_pio *pio, int result)
{
    ploop_queue *queue = pio->queue;
    uint64_t weight = pio_weight(pio); /* before it is the caller's again */
    pio->result = result;
    if (result) {
        atomic_fetch_add_explicit(&queue->counts[pio->op].errors, 1, memory_order_relaxed);
    }
    fast_rest(pio);
    if (pio->blocking) {
        pio_call_over(pio);
        atomic_fetch_sub(&queue->in_flight, weight);
        return;
    }
    (void)queue_push(queue, pio); /* announced with others, or when the turn is given back */
    atomic_fetch_sub(&queue->in_flight, weight);
}
