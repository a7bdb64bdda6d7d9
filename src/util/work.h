/* SPDX-License-Identifier: MIT */
/*
 * Work and turns: how one thread at a time changes the engine's state although any thread may
 * bring work.
 *
 * A thread that has work posts it. The thread that finds the turn free takes it and does all that
 * was posted, the others' work too, until nothing is left. No thread ever waits for the turn, so it
 * cannot be part of a deadlock.
 *
 *  1. work->run is called once for each post, by the owner of the turn, in the order of the posts
 *     of one thread.
 *  2. A work item is posted again only after its run has begun.
 *  3. A turn runs a limited number of batches, so a busy device cannot keep a thread. `pump` runs
 *     after each of them and before the turn is given back, and once more for as long as a step
 *     called turn_again() meanwhile and nothing new was posted: a step that changes what an earlier
 *     step of the pump looked at says so. `leave` runs after the turn was given back: what must not
 *     happen under it (callbacks into the embedder) happens there.
 *  4. A thread that took the turn takes it again while there is work, unless `hand_over` has found
 *     another thread to do so. Otherwise threads that keep bringing work would hold this one for
 *     ever.
 */
#ifndef UTIL_WORK_H
#define UTIL_WORK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct work;
typedef void work_fn(struct work *work);

struct work {
    struct work *next;
    work_fn *run;
};

/* Many producers, one consumer that takes everything at once. */
struct inbox {
    _Atomic(struct work *) head;
};

struct turn {
    struct inbox inbox;
    atomic_bool owned;
    _Atomic uint32_t visitors; /* threads inside turn_post(): the turn must outlive them */
    bool again;                /* what the pump did calls for another pump: the owner's */
    void (*pump)(struct turn *turn);
    void (*leave)(struct turn *turn);
    /*
     * Optional. Called after the turn was given back, where work has come meanwhile; *since is 0 at
     * first, and the callee's. True: another thread was told to take the turn.
     */
    bool (*hand_over)(struct turn *turn, uint64_t *since);
};

/* True where the inbox was empty before. */
bool inbox_push(struct inbox *inbox, struct work *work);

/* Everything, oldest first; NULL for nothing. */
struct work *inbox_take(struct inbox *inbox);

static inline bool inbox_is_empty(const struct inbox *inbox)
{
    return atomic_load(&inbox->head) == NULL;
}

/*
 * Post work and do it, unless the turn's owner will. For threads that no other holds back from
 * freeing the turn: it is safe until `visitors` is 0 again.
 */
void turn_post(struct turn *turn, struct work *work);

/* As turn_post(), without work of one's own: what another thread has left. */
void turn_visit(struct turn *turn);

/* Take a turn if it is free and there is work. */
void turn_take_with_work(struct turn *turn);
static inline void turn_take(struct turn *turn)
{
    if (!inbox_is_empty(&turn->inbox)) {
        turn_take_with_work(turn);
    }
}

/* For the owner: pump once more. */
static inline void turn_again(struct turn *turn)
{
    turn->again = true;
}

/* Enqueue only: for the owner, or where a turn_take() follows. */
void turn_enqueue(struct turn *turn, struct work *work);

#endif
