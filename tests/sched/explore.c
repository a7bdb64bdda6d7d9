/* SPDX-License-Identifier: MIT */
/*
 * A schedule with some deviations is found by running the one without the last of them: each choice
 * that it makes after its own last deviation could have been made otherwise. So every schedule
 * within the bound is run exactly once, and the explorer stores only the deviations on the way and
 * the choices that are still to be tried on each level.
 */
#include "explore.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "fiber.h"
#include "threads.h"

enum {
    DEVIATIONS_MAX = 4096,
    FREE_MAX = 2,
    TO_TRY_MAX = 1 << 20,
    DISCOVERY = 200,
    OBJECTS = 1 << 16,
    DEPTH_MAX = 5,
    EARLY_MAX = 8
};

struct deviation {
    uint32_t step;
    uint8_t value;
    uint8_t cost;
};

/* The fibers that touched an object, one bit each. */
struct object {
    uintptr_t at;
    uint16_t touched;
    bool written;
};

static const struct scenario *scenario;
static enum { REPLAY, EXHAUSTIVE, RANDOM } mode;
static struct exploration exploration;

/* This schedule. */
static uint32_t step;
static uint64_t choices;
static struct deviation made[DEVIATIONS_MAX];
static unsigned made_count;
static struct deviation plan[DEVIATIONS_MAX];
static unsigned plan_count, plan_at, plan_cost;

/* Exhaustive. */
static unsigned bound;
static struct deviation to_try[TO_TRY_MAX];
static unsigned to_try_count;

/* Random. */
static uint64_t random_state;
static uint64_t priorities[FIBERS_MAX], lowest;
static uint64_t changes[DEPTH_MAX];
static unsigned change_count, early_left;

static struct object objects[OBJECTS];
static bool all_are_shared, sharing_grew;

uint32_t explore_step(void)
{
    return ++step;
}

/* ---- objects ---- */

static bool is_shared(const struct object *object)
{
    return object->written && object->touched & (object->touched - 1);
}

bool explore_is_shared(const volatile void *at, unsigned fiber, bool writes)
{
    uintptr_t address = (uintptr_t)at;
    unsigned place = (unsigned)(address * UINT64_C(0x9E3779B97F4A7C15) >> 48);
    while (objects[place].at && objects[place].at != address) {
        place = (place + 1) % OBJECTS;
    }
    struct object *object = &objects[place];
    bool before = is_shared(object);
    object->at = address;
    object->touched |= (uint16_t)(1u << fiber);
    object->written |= writes;
    bool now = is_shared(object);
    sharing_grew |= now && !before;
    return now || all_are_shared;
}

/* ---- choices ---- */

static uint64_t random_next(void)
{
    uint64_t z = (random_state += UINT64_C(0x9E3779B97F4A7C15));
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

static void note_alternatives(const struct way *options, unsigned count)
{
    if (plan_at < plan_count || plan_count >= bound + FREE_MAX) {
        return;
    }
    for (unsigned i = 1; i < count; i++) {
        if (plan_cost + options[i].cost > bound) {
            continue;
        }
        if (to_try_count == TO_TRY_MAX) {
            sched_fail("too much to try on one level");
        }
        to_try[to_try_count++] = (struct deviation){step, options[i].value, options[i].cost};
    }
}

static uint8_t choose_randomly(enum choice choice, const struct way *options, unsigned count)
{
    if (choice == CHOOSE_OTHER) {
        unsigned i = (unsigned)(random_next() % count);
        return options[i].cost && random_next() % 16 ? options[0].value : options[i].value;
    }
    for (unsigned i = 0; i < change_count; i++) {
        if (changes[i] == choices) {
            priorities[options[0].value] = --lowest;
        }
    }
    unsigned best = 0;
    for (unsigned i = 1; i < count; i++) {
        bool allowed = !options[i].early || (early_left && random_next() % 16 == 0);
        if (allowed && priorities[options[i].value] > priorities[options[best].value]) {
            best = i;
        }
    }
    early_left -=
        options[best]
            .early; /* else a fiber that waits for others could keep them from running for ever */
    return options[best].value;
}

uint8_t explore_choose(enum choice choice, const struct way *options, unsigned count)
{
    uint8_t chosen = options[0].value;
    choices += choice == CHOOSE_FIBER && count > 1;
    if (mode == RANDOM) {
        chosen = count > 1 ? choose_randomly(choice, options, count) : chosen;
    } else if (plan_at < plan_count && plan[plan_at].step == step) {
        chosen = plan[plan_at++].value;
        bool possible = false;
        for (unsigned i = 0; i < count; i++) {
            possible |= options[i].value == chosen;
        }
        if (!possible) {
            sched_fail("step %u: %u is no choice here: not a schedule of this program", step,
                       chosen);
        }
    } else if (mode == EXHAUSTIVE) {
        note_alternatives(options, count);
    }
    if (chosen != options[0].value && made_count < DEVIATIONS_MAX) {
        made[made_count++] = (struct deviation){step, chosen, 0};
    }
    return chosen;
}

const char *explore_replay(void)
{
    static char text[16 * DEVIATIONS_MAX];
    size_t at = 0;
    text[0] = 0;
    for (unsigned i = 0; i < made_count; i++) {
        at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%u:%u", i ? "," : "", made[i].step,
                               made[i].value);
    }
    return made_count ? text : "-";
}

/* ---- schedules ---- */

static void run_schedule(void)
{
    arena_restore();
    step = 0;
    choices = 0;
    made_count = plan_at = 0;
    fibers_run();
    if (plan_at < plan_count) {
        sched_fail("ended before step %u: not a schedule of this program", plan[plan_at].step);
    }
    if (!scenario->may_expire && sched_expiries()) {
        sched_fail("nobody could go on until the clock woke one up: a wake-up was lost");
    }
    if (scenario->finish) {
        scenario->finish();
    }
    exploration.schedules++;
    exploration.steps = step > exploration.steps ? step : exploration.steps;
    exploration.choices = choices > exploration.choices ? choices : exploration.choices;
}

void explore_set_up(const struct scenario *given)
{
    scenario = scenario_running = given;
    memset(objects, 0, sizeof(objects));
    step = made_count = plan_count = 0;
    arena_start();
    fibers_start();
    threads_start();
    scenario->set_up();
    arena_keep();
}

static void run_randomly(uint64_t seed)
{
    uint64_t most = exploration.choices ? exploration.choices : 100;
    random_state = seed;
    lowest = UINT64_C(1) << 32;
    for (unsigned i = 0; i < FIBERS_MAX; i++) {
        priorities[i] = lowest + random_next() % lowest;
    }
    change_count = 2 + (unsigned)(random_next() % (DEPTH_MAX - 1));
    for (unsigned i = 0; i < change_count; i++) {
        changes[i] = 1 + random_next() % most;
    }
    early_left = EARLY_MAX;
    plan_count = 0;
    run_schedule();
}

/*
 * Find the shared objects, before any choice is left out because only one fiber touches its object.
 */
static void discover(void)
{
    mode = RANDOM;
    all_are_shared = true;
    exploration = (struct exploration){0};
    for (uint64_t i = 0; i < DISCOVERY; i++) {
        run_randomly(i);
    }
    all_are_shared = false;
    exploration = (struct exploration){0};
}

/* Run the schedule of the plan, and all that differ from it later. False: the limit is reached. */
static bool descend(unsigned level, unsigned cost, uint64_t limit)
{
    unsigned first = to_try_count;
    plan_count = level;
    plan_cost = cost;
    run_schedule();
    unsigned end = to_try_count;
    for (unsigned i = first; i < end; i++) {
        if (limit && exploration.schedules >= limit) {
            return false;
        }
        plan[level] = to_try[i];
        if (!descend(level + 1, cost + to_try[i].cost, limit)) {
            return false;
        }
    }
    to_try_count = first;
    return true;
}

struct exploration explore_exhaustively(unsigned given_bound, uint64_t limit)
{
    discover();
    mode = EXHAUSTIVE;
    bound = given_bound;
    do { /* again if more objects turn out to be shared */
        sharing_grew = false;
        to_try_count = 0;
        exploration = (struct exploration){0};
        exploration.complete = descend(0, 0, limit);
    } while (sharing_grew && exploration.complete);
    return exploration;
}

struct exploration explore_randomly(uint64_t seed, uint64_t schedules)
{
    discover();
    mode = RANDOM;
    for (uint64_t i = 0; i < schedules; i++) {
        run_randomly((seed + i) * UINT64_C(0xD1B54A32D192ED03));
    }
    return exploration;
}

void explore_replayed(const char *deviations)
{
    mode = REPLAY;
    all_are_shared = true;
    plan_count = 0;
    while (*deviations && *deviations != '-' && plan_count < DEVIATIONS_MAX) {
        char *end;
        plan[plan_count].step = (uint32_t)strtoul(deviations, &end, 10);
        plan[plan_count++].value = *end == ':' ? (uint8_t)strtoul(end + 1, &end, 10) : 0;
        deviations = *end == ',' ? end + 1 : end;
    }
    run_schedule();
}
