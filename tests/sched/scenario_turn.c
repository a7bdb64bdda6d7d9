/* SPDX-License-Identifier: MIT */
/*
 * The turn and the cluster locks alone, and work that two threads bring to a device at the same
 * time.
 */
#include "scenarios.h"

#include <stdlib.h>

#include "pio/lock.h"
#include "world.h"

/* ---- the turn alone ---- */

enum { WORKERS = 3, POSTS = 2 };

struct bare_work {
    struct work work;
    unsigned ran;
};

struct bare {
    struct turn turn;
    struct bare_work works[WORKERS][POSTS];
    bool inside, in_pump;
    unsigned pumps;
    bool told; /* hand_over has found another thread */
    unsigned ran;
};

static struct bare *bare;

/* Mark this fiber as inside, and check that no other one is. */
static void be_alone(bool *inside, const char *what)
{
    sched_point(HERE, what, inside, true);
    if (*inside) {
        sched_fail("two at once: %s", what);
    }
    *inside = true;
    sched_point(HERE, what, inside, true);
    *inside = false;
}

static void bare_run(struct work *work)
{
    be_alone(&bare->inside, "work");
    container_of(work, struct bare_work, work)->ran++;
    bare->ran++;
}

static void bare_pump(struct turn *turn)
{
    (void)turn;
    be_alone(&bare->inside, "pump");
    bare->pumps++;
}

static void bare_leave(struct turn *turn)
{
    (void)turn;
}

static void post_some(void *argument)
{
    struct bare_work *works = argument;
    for (unsigned i = 0; i < POSTS; i++) {
        turn_post(&bare->turn, &works[i].work);
    }
}

static void bare_set_up(unsigned workers)
{
    static const char *const names[WORKERS] = {"one", "two", "three"};
    bare = calloc(1, sizeof(*bare));
    bare->turn.pump = bare_pump;
    bare->turn.leave = bare_leave;
    for (unsigned i = 0; i < workers; i++) {
        for (unsigned j = 0; j < POSTS; j++) {
            bare->works[i][j].work.run = bare_run;
        }
        sched_spawn(names[i], post_some, bare->works[i], false);
    }
}

static void turn_set_up(void)
{
    bare_set_up(WORKERS);
}

static void bare_finish(unsigned workers)
{
    for (unsigned i = 0; i < workers * POSTS; i++) {
        must_be((int)bare->works[i / POSTS][i % POSTS].ran, 1, "runs of a work");
    }
    must_be(bare->turn.inbox.head != NULL, false, "work that is left");
    must_be(bare->turn.owned, false, "the turn is taken");
    must_be((int)bare->turn.visitors, 0, "visitors");
}

static void turn_finish(void)
{
    bare_finish(WORKERS);
}

const struct scenario turn_posts = {
    .name = "turn-posts",
    .about = "three threads post work: each is run once, one at a time, and none is left",
    .set_up = turn_set_up,
    .finish = turn_finish,
    .bound = 2,
    .random = 3000,
};

static bool bare_hand_over(struct turn *turn, uint64_t *since)
{
    (void)turn;
    (void)since;
    sched_point(HERE, "tells the runner", &bare->told, true);
    bare->told = true;
    return true;
}

static bool is_told(void *unused)
{
    (void)unused;
    return bare->told;
}

static void bare_runner(void *unused)
{
    for (;;) {
        sched_wait(HERE, "waits to be told", is_told, unused, 0);
        bare->told = false;
        turn_take(&bare->turn);
    }
}

static void hand_over_set_up(void)
{
    bare_set_up(2);
    bare->turn.hand_over = bare_hand_over;
    sched_spawn("runner", bare_runner, NULL, true);
}

static void hand_over_finish(void)
{
    bare_finish(2);
}

const struct scenario turn_hand_over = {
    .name = "turn-hand-over",
    .about = "the turn is handed over whenever work came meanwhile: no work is left",
    .set_up = hand_over_set_up,
    .finish = hand_over_finish,
    .bound = 3,
    .random = 3000,
};

/* ---- one cluster's lock ---- */

struct locker {
    struct work work; /* asks in the turn */
    struct lock_waiter waiter;
    bool exclusive, fast, had;
    bool changes; /* in the turn: from alone to shared, or from shared to alone */
};

struct lock_world {
    struct turn turn;
    struct cluster_lock lock;
    struct locker lockers[4];
    unsigned shared, exclusive; /* inside now */
};

static struct lock_world *locks;

static void get_in(const struct locker *locker)
{
    sched_point(HERE, "goes in", &locks->shared, true);
    if (locks->exclusive || (locker->exclusive && locks->shared)) {
        sched_fail("a cluster's lock lets in who must wait");
    }
    locks->exclusive += locker->exclusive;
    locks->shared += !locker->exclusive;
}

static void get_out(struct locker *locker)
{
    sched_point(HERE, "goes out", &locks->shared, true);
    locks->exclusive -= locker->exclusive;
    locks->shared -= !locker->exclusive;
    locker->had = true;
}

static void lock_run(struct work *work);

/* The lock is held: leave again in a later turn. */
static void lock_granted(struct lock_waiter *waiter)
{
    struct locker *locker = container_of(waiter, struct locker, waiter);
    get_in(locker);
    turn_enqueue(&locks->turn, &locker->work);
}

/* The exclusive holder lets others in; the shared one gives the lock back to have it alone. */
static void lock_change(struct locker *locker)
{
    bool was_exclusive = locker->exclusive;
    get_out(locker);
    locker->had = false;
    locker->exclusive = !was_exclusive;
    if (was_exclusive) {
        get_in(locker);
        lock_downgrade(&locker->waiter, &locks->turn);
        get_out(locker); /* at once, like a step with nothing to do */
        lock_release(&locker->waiter, &locks->turn);
    } else {
        lock_take_alone(&locker->waiter, &locks->turn);
    }
}

static void lock_run(struct work *work)
{
    struct locker *locker = container_of(work, struct locker, work);
    if (!locker->waiter.lock) {
        if (lock_take(&locks->lock, &locker->waiter, locker->exclusive, lock_granted)) {
            lock_granted(&locker->waiter);
        }
        return;
    }
    if (locker->changes) {
        locker->changes = false;
        lock_change(locker);
        return;
    }
    get_out(locker);
    lock_release(&locker->waiter, &locks->turn);
}

static void no_pump(struct turn *turn)
{
    (void)turn;
}

static bool has_had(void *argument)
{
    const struct locker *locker = argument;
    return locker->had;
}

static void lock_and_unlock(void *argument)
{
    struct locker *locker = argument;
    if (locker->fast && lock_try_shared(&locks->lock)) {
        get_in(locker);
        get_out(locker);
        lock_release_shared(&locks->lock, &locks->turn);
        return;
    }
    locker->work.run = lock_run;
    turn_post(&locks->turn, &locker->work);
    sched_wait(HERE, "waits for the cluster", has_had, locker, 0);
}

static void add_locker(const char *name, unsigned index, bool fast, bool exclusive)
{
    struct locker *locker = &locks->lockers[index];
    locker->fast = fast;
    locker->exclusive = exclusive;
    list_init(&locker->waiter.link);
    sched_spawn(name, lock_and_unlock, locker, false);
}

static void lock_world_open(void)
{
    locks = calloc(1, sizeof(*locks));
    locks->turn.pump = no_pump;
    locks->turn.leave = no_pump;
    lock_init(&locks->lock);
}

static void lock_mixed_set_up(void)
{
    lock_world_open();
    add_locker("fast one", 0, true, false);
    add_locker("fast two", 1, true, false);
    add_locker("alone", 2, false, true);
}

static void lock_queued_set_up(void)
{
    lock_world_open();
    add_locker("fast", 0, true, false);
    add_locker("alone", 1, false, true);
    add_locker("shared", 2, false, false);
    add_locker("alone too", 3, false, true);
}

static void lock_changed_set_up(void)
{
    lock_world_open();
    add_locker("fast", 0, true, false);
    add_locker("becomes shared", 1, false, true);
    add_locker("becomes alone", 2, false, false);
    locks->lockers[1].changes = locks->lockers[2].changes = true;
}

static void lock_finish(void)
{
    must_be((int)locks->lock.word, 0, "the lock's word");
    must_be(locks->lock.held_exclusive, false, "the lock is held");
    must_be(list_is_empty(&locks->lock.waiters), true, "nobody waits for the lock");
}

const struct scenario lock_mixed = {
    .name = "lock-mixed",
    .about = "a cluster's lock: two fast sharers and one that wants it alone",
    .set_up = lock_mixed_set_up,
    .finish = lock_finish,
    .bound = 3,
    .random = 3000,
};

const struct scenario lock_queued = {
    .name = "lock-queued",
    .about = "a cluster's lock: a fast sharer, a queued one, and two that want it alone",
    .set_up = lock_queued_set_up,
    .finish = lock_finish,
    .bound = 2,
    .random = 10000,
};

const struct scenario lock_changed = {
    .name = "lock-changed",
    .about = "a cluster's lock: a fast sharer, one that lets others in, one that has to be alone",
    .set_up = lock_changed_set_up,
    .finish = lock_finish,
    .bound = 2,
    .random = 10000,
};

/* ---- a device's turn ---- */

static void write_new(void *argument)
{
    uint64_t cluster = (uint64_t)(uintptr_t)argument;
    must_be(end(begin_write(world->queue, cluster * CLUSTER, CLUSTER, (char)('a' + cluster), 0)), 0,
            "a write");
}

static void two_set_up(void)
{
    world_open(&(struct plan){.mode = DISK_INLINE});
    sched_spawn("first", write_new, (void *)(uintptr_t)0, false);
    sched_spawn("second", write_new, (void *)(uintptr_t)1, false);
}

static void two_finish(void)
{
    world_is_quiet();
    expect(0, CLUSTER, 'a', "the first cluster");
    expect(CLUSTER, CLUSTER, 'b', "the second cluster");
}

const struct scenario two_submitters = {
    .name = "two-submitters",
    .about = "two threads write to new clusters and sleep: one of them does the work of both",
    .set_up = two_set_up,
    .finish = two_finish,
    .bound = 2,
    .random = 1000,
};

static void write_two_new(void *argument)
{
    struct request *requests[2];
    uint64_t first = (uint64_t)(uintptr_t)argument;
    for (unsigned i = 0; i < 2; i++) {
        uint64_t cluster = first + 2 * i;
        requests[i] =
            begin_write(world->queue, cluster * CLUSTER, CLUSTER, (char)('a' + cluster), 0);
    }
    for (unsigned i = 0; i < 2; i++) {
        must_be(end(requests[i]), 0, "a write");
    }
}

/*
 * The clock runs so fast that the turn is handed over at every opportunity; a runner does what
 * wake_at requests.
 */
static void device_hand_over_set_up(void)
{
    world_open(&(struct plan){.mode = DISK_INLINE, .tick_ns = 2000000});
    sched_spawn("first", write_two_new, (void *)(uintptr_t)0, false);
    sched_spawn("second", write_two_new, (void *)(uintptr_t)1, false);
    sched_spawn("runner", world_runner, NULL, true);
}

const struct scenario device_hand_over = {
    .name = "device-hand-over",
    .about =
        "two threads write while time flies: the turn is handed over to the one that wake_at wakes",
    .set_up = device_hand_over_set_up,
    .finish = two_finish,
    .bound = 1,
    .random = 10000,
};
