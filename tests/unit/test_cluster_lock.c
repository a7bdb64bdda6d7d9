/* SPDX-License-Identifier: MIT */
/* Cluster locks alone: which requests get the lock, and in which order. */
#include <stdlib.h>
#include <string.h>

#include "image_fixture.h"
#include "pio/lock.h"
#include "run_tests.h"
#include "util/list.h"
#include "util/work.h"

static struct turn turn;

static void nothing(struct turn *of)
{
    (void)of;
}

static uint64_t random_state = 1;

static uint32_t draw(uint32_t below)
{
    random_state = random_state * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (uint32_t)(random_state >> 33) % below;
}

static int steps(int native)
{
    return is_instrumented() ? native / 10 : native;
}

enum { WAITERS = 12 };

struct holder {
    struct lock_waiter waiter;
    bool holds, exclusive;
    uint32_t number;
};

static struct cluster_lock cluster_lock;
static struct holder holders[WAITERS];
static uint32_t shared, exclusive, granted_last;

static void note_granted(struct lock_waiter *waiter)
{
    struct holder *holder = container_of(waiter, struct holder, waiter);
    ck_assert(!holder->holds);
    holder->holds = true;
    ck_assert_uint_eq(exclusive, 0);
    ck_assert(!holder->exclusive || shared == 0);
    exclusive += holder->exclusive;
    shared += !holder->exclusive;
    granted_last = holder->number;
}

static void take(uint32_t i, bool alone)
{
    holders[i] = (struct holder){.exclusive = alone, .number = i};
    list_init(&holders[i].waiter.link);
    if (lock_take(&cluster_lock, &holders[i].waiter, alone, note_granted)) {
        note_granted(&holders[i].waiter);
    }
}

static void release(uint32_t i)
{
    ck_assert(holders[i].holds);
    holders[i].holds = false;
    exclusive -= holders[i].exclusive;
    shared -= !holders[i].exclusive;
    lock_release(&holders[i].waiter, &turn);
    turn_take(&turn);
}

/* From alone to shared, at once; or from shared to alone, at the head of the line. */
static void change(uint32_t i)
{
    struct holder *holder = &holders[i];
    ck_assert(holder->holds);
    exclusive -= holder->exclusive;
    shared -= !holder->exclusive;
    holder->exclusive = !holder->exclusive;
    if (holder->exclusive) {
        holder->holds = false;
        lock_take_alone(&holder->waiter, &turn);
    } else {
        shared++;
        lock_downgrade(&holder->waiter, &turn);
    }
    turn_take(&turn);
}

static void begin_locks(void)
{
    memset(&cluster_lock, 0, sizeof(cluster_lock));
    turn = (struct turn){.pump = nothing, .leave = nothing};
    shared = exclusive = 0;
    lock_init(&cluster_lock);
}

START_TEST(locks_are_granted_in_order)
{
    begin_locks();
    take(0, false);
    take(1, false);
    ck_assert_uint_eq(shared, 2);
    take(2, true);
    take(3, false);
    take(4, false);
    take(5, true);
    take(6, true);
    /* A shared request does not overtake one that waits to hold the lock alone. */
    ck_assert(!lock_try_shared(&cluster_lock));
    ck_assert_uint_eq(shared, 2);
    release(0);
    ck_assert(!holders[2].holds);
    release(1);
    ck_assert(holders[2].holds && !holders[3].holds);
    release(2);
    ck_assert(holders[3].holds && holders[4].holds && !holders[5].holds);
    ck_assert(!lock_try_shared(&cluster_lock));
    release(4);
    release(3);
    ck_assert(holders[5].holds);
    release(5);
    ck_assert(holders[6].holds);
    release(6);
    ck_assert(lock_try_shared(&cluster_lock));
    lock_release_shared(&cluster_lock, &turn);
    ck_assert_uint_eq(cluster_lock.word, 0);
}
END_TEST

START_TEST(the_fast_path_lets_the_waiters_in_when_it_leaves)
{
    begin_locks();
    ck_assert(lock_try_shared(&cluster_lock));
    take(0, true);
    ck_assert(!holders[0].holds);
    ck_assert(!lock_try_shared(&cluster_lock));
    lock_release_shared(&cluster_lock, &turn);
    ck_assert(holders[0].holds);
    release(0);
    ck_assert_uint_eq(cluster_lock.word, 0);
}
END_TEST

/* Taken between an exclusive release and its effect, which comes with the turn's next batch. */
START_TEST(a_lock_may_be_asked_for_while_it_is_being_given_up)
{
    for (int alone = 0; alone < 2; alone++) {
        begin_locks();
        take(0, true);
        holders[0].holds = false;
        exclusive = 0;
        lock_release(&holders[0].waiter, &turn);
        take(1, alone);
        turn_take(&turn);
        ck_assert(holders[1].holds);
        release(1);
        ck_assert_uint_eq(cluster_lock.word, 0);
    }
}
END_TEST

/*
 * The shared waiters that are first in the line get in while it stays; the exclusive one behind
 * them waits.
 */
START_TEST(a_downgrade_lets_in_the_shared_ones_that_wait)
{
    begin_locks();
    take(0, true);
    take(1, false);
    take(2, false);
    take(3, true);
    take(4, false);
    ck_assert(!holders[1].holds);
    change(0);
    ck_assert(holders[0].holds && holders[1].holds && holders[2].holds);
    ck_assert(!holders[3].holds && !holders[4].holds);
    ck_assert(!lock_try_shared(&cluster_lock));
    release(1);
    release(0);
    release(2);
    ck_assert(holders[3].holds && !holders[4].holds);
    release(3);
    release(4);
    ck_assert_uint_eq(cluster_lock.word, 0);
}
END_TEST

START_TEST(a_downgrade_alone_opens_the_door)
{
    begin_locks();
    take(0, true);
    change(0);
    ck_assert(lock_try_shared(&cluster_lock));
    lock_release_shared(&cluster_lock, &turn);
    release(0);
    ck_assert_uint_eq(cluster_lock.word, 0);
}
END_TEST

/* It overtakes the waiters, and waits for the request that holds the lock beside it. */
START_TEST(a_shared_holder_that_must_be_alone_is_next)
{
    begin_locks();
    take(0, false);
    take(1, false);
    take(2, true);
    take(3, false);
    change(0);
    ck_assert(!holders[0].holds && !holders[2].holds);
    release(1);
    ck_assert(holders[0].holds && !holders[2].holds && !holders[3].holds);
    release(0);
    ck_assert(holders[2].holds);
    release(2);
    ck_assert(holders[3].holds);
    release(3);
    ck_assert_uint_eq(cluster_lock.word, 0);
}
END_TEST

START_TEST(locks_exclude_whatever_the_order)
{
    begin_locks();
    bool used[WAITERS] = {false};
    uint32_t grants = 0;
    for (int step = 0; step < steps(20000); step++) {
        uint32_t i = draw(WAITERS);
        if (!used[i]) {
            used[i] = true;
            take(i, draw(3) == 0);
        } else if (holders[i].holds && draw(4) == 0) {
            change(i);
        } else if (holders[i].holds) {
            grants++;
            used[i] = false;
            release(i);
        }
        /* Every waiter waits for a holder. */
        uint32_t waiting = 0;
        for (uint32_t j = 0; j < WAITERS; j++) {
            waiting += used[j] && !holders[j].holds;
        }
        ck_assert(waiting == 0 || shared + exclusive > 0);
    }
    ck_assert_uint_gt(grants, 100);
    for (int left = 1; left;) {
        left = 0;
        for (uint32_t i = 0; i < WAITERS; i++) {
            if (used[i] && holders[i].holds) {
                used[i] = false;
                release(i);
            }
            left |= used[i];
        }
    }
    ck_assert_uint_eq(cluster_lock.word, 0);
}
END_TEST

START_TEST(clusters_spread_over_the_locks)
{
    static uint32_t count[LOCK_COUNT];
    for (uint32_t cluster = 0; cluster < LOCK_COUNT; cluster++) {
        uint32_t index = lock_index((struct guest_cluster){cluster});
        ck_assert_uint_lt(index, LOCK_COUNT);
        ck_assert_uint_le(++count[index], 4);
    }
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {locks_are_granted_in_order,
                                  the_fast_path_lets_the_waiters_in_when_it_leaves,
                                  a_lock_may_be_asked_for_while_it_is_being_given_up,
                                  a_downgrade_lets_in_the_shared_ones_that_wait,
                                  a_downgrade_alone_opens_the_door,
                                  a_shared_holder_that_must_be_alone_is_next,
                                  locks_exclude_whatever_the_order,
                                  clusters_spread_over_the_locks};
    return RUN_TESTS("cluster-lock", tests);
}
