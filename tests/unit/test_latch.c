/* SPDX-License-Identifier: MIT */
/* A latch excludes, and wakes those that sleep. */
#include <pthread.h>
#include <sched.h>

#include "run_tests.h"
#include "util/latch.h"

enum { THREADS = 4, ROUNDS = 20000 };

static struct latch latch;
static uint64_t count; /* under the latch */

static void *add_often(void *unused)
{
    (void)unused;
    for (int i = 0; i < ROUNDS; i++) {
        latch_lock(&latch);
        uint64_t before = count;
        if (i % 100 == 0) {
            (void)sched_yield(); /* so that others find it held, and sleep */
        }
        count = before + 1;
        latch_unlock(&latch);
    }
    return NULL;
}

START_TEST(one_thread_at_a_time_has_it)
{
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, add_often, NULL), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
    }
    ck_assert_uint_eq(count, (uint64_t)THREADS * ROUNDS);
    ck_assert_uint_eq(latch.state, LATCH_FREE);
}
END_TEST

static void *take(void *unused)
{
    latch_lock(&latch);
    count++;
    latch_unlock(&latch);
    return unused;
}

START_TEST(a_thread_that_sleeps_is_woken)
{
    pthread_t threads[THREADS];
    latch_lock(&latch);
    for (int i = 0; i < THREADS; i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, take, NULL), 0);
    }
    while (atomic_load(&latch.state) != LATCH_WANTED) {
        (void)sched_yield();
    }
    ck_assert_uint_eq(count, 0);
    latch_unlock(&latch);
    for (int i = 0; i < THREADS; i++) {
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
    }
    ck_assert_uint_eq(count, THREADS);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {one_thread_at_a_time_has_it, a_thread_that_sleeps_is_woken};
    return RUN_TESTS("latch", tests);
}
