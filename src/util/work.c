/* SPDX-License-Identifier: MIT */
/*
 * The inbox is a stack that its one consumer takes whole and reverses; the turn is a flag around
 * its consumption.
 */
#include "util/work.h"

bool inbox_push(struct inbox *inbox, struct work *work)
{
    struct work *head = atomic_load_explicit(&inbox->head, memory_order_relaxed);
    do {
        work->next = head;
    } while (!atomic_compare_exchange_weak_explicit(&inbox->head, &head, work, memory_order_seq_cst,
                                                    memory_order_relaxed));
    return head == NULL;
}

struct work *inbox_take(struct inbox *inbox)
{
    struct work *stack = atomic_exchange_explicit(&inbox->head, NULL, memory_order_acquire);
    struct work *oldest = NULL;
    while (stack) {
        struct work *next = stack->next;
        stack->next = oldest;
        oldest = stack;
        stack = next;
    }
    return oldest;
}

/* Some batches and not all there will ever be: others' work must not hold this thread for ever. */
enum { TURN_BATCHES_MAX = 16 };

static void turn_work_off(struct turn *turn)
{
    struct work *work;
    for (int batch = 0; batch < TURN_BATCHES_MAX && (work = inbox_take(&turn->inbox)) != NULL;
         batch++) {
        while (work) {
            struct work *next = work->next;
            work->run(work);
            work = next;
        }
        do {
            turn->again = false;
            turn->pump(turn);
        } while (turn->again &&
                 inbox_is_empty(&turn->inbox)); /* else there is something to hear first */
    }
}

void turn_take_with_work(struct turn *turn)
{
    uint64_t since = 0;
    /* Looking again after giving the turn back: work may have come from one who saw it taken. */
    while (!inbox_is_empty(&turn->inbox)) {
        if (atomic_exchange(&turn->owned, true)) {
            break;
        }
        turn_work_off(turn);
        atomic_store(&turn->owned, false);
        turn->leave(turn);
        /* Only now: the thread that is told must find the turn free. */
        if (turn->hand_over && !inbox_is_empty(&turn->inbox) && turn->hand_over(turn, &since)) {
            break;
        }
    }
}

void turn_enqueue(struct turn *turn, struct work *work)
{
    inbox_push(&turn->inbox, work);
}

void turn_visit(struct turn *turn)
{
    atomic_fetch_add(&turn->visitors, 1);
    turn_take(turn);
    atomic_fetch_sub(&turn->visitors, 1);
}

void turn_post(struct turn *turn, struct work *work)
{
    atomic_fetch_add(&turn->visitors, 1);
    inbox_push(&turn->inbox, work);
    turn_take(turn);
    atomic_fetch_sub(&turn->visitors, 1);
}
