/* SPDX-License-Identifier: MIT */
#include "fiber.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#include "arena.h"
#include "explore.h"
#include "main.h"
#include "threads.h"

enum { STACK_BYTES = 64 << 10, TLS_MAX = 256, STEPS_MAX = 50000, RED_ZONE = 256 };

/* shim.h puts them there; one of our own, so that the section is never missing. */
extern char __start_sched_tls[], __stop_sched_tls[];
char sched_tls_first __attribute__((section("sched_tls"), used));

struct fiber {
    ucontext_t context;
    const char *name;
    fiber_fn *fn;
    void *argument;
    bool daemon, ended;
    ready_fn *ready; /* waits for this; NULL: it can run */
    void *ready_argument;
    uint64_t until_ns; /* or for this; 0: no time */
    bool expired;
    char *stack;
    char *top; /* of its stack content, while it does not run */
    const char *file, *what;
    int line;
    char tls[TLS_MAX];
};

/* In the arena: each schedule begins with the state after the set-up. */
struct fibers {
    struct fiber all[FIBERS_MAX];
    unsigned count, current;
    bool begun; /* the first one was chosen */
    uint64_t now_ns, expiries;
};

static struct fibers *fibers;

static size_t tls_size(void)
{
    return (size_t)((uintptr_t)__stop_sched_tls - (uintptr_t)__start_sched_tls);
}

static bool running;
static ucontext_t explorer;

void fibers_start(void)
{
    fibers = arena_take(sizeof(*fibers), 64);
    fibers->now_ns = 1000000000;
}

bool sched_is_running(void)
{
    return running;
}

unsigned sched_self(void)
{
    return running ? fibers->current : 0;
}

uint64_t sched_now(void)
{
    return fibers->now_ns;
}

uint64_t sched_expiries(void)
{
    return fibers->expiries;
}

/* ---- the life of a fiber ---- */

static void switch_to(unsigned next)
{
    struct fiber *from = &fibers->all[fibers->current], *to = &fibers->all[next];
    if (from == to) {
        return;
    }
    size_t size = tls_size();
    memcpy(from->tls, __start_sched_tls, size);
    memcpy(__start_sched_tls, to->tls, size);
    from->top = __builtin_frame_address(0);
    fibers->current = next;
    swapcontext(&from->context, &to->context);
}

static unsigned pick(void);

static void fiber_main(void)
{
    struct fiber *fiber = &fibers->all[fibers->current];
    fiber->fn(fiber->argument);
    fiber->ended = true;
    explore_step();
    switch_to(pick());
    abort();
}

unsigned sched_spawn(const char *name, fiber_fn *fn, void *argument, bool daemon)
{
    if (fibers->count == FIBERS_MAX) {
        sched_fail("too many fibers");
    }
    struct fiber *fiber = &fibers->all[fibers->count];
    *fiber = (struct fiber){.name = name, .fn = fn, .argument = argument, .daemon = daemon};
    fiber->stack = arena_take(STACK_BYTES, 4096);
    fiber->top = fiber->stack + STACK_BYTES;
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = fiber->stack;
    fiber->context.uc_stack.ss_size = STACK_BYTES;
    makecontext(&fiber->context, fiber_main, 0);
    return fibers->count++;
}

void sched_rename(unsigned fiber, const char *name)
{
    fibers->all[fiber].name = name;
}

bool sched_has_ended(unsigned fiber)
{
    return fibers->all[fiber].ended;
}

/* ---- who runs next ---- */

static bool can_run(struct fiber *fiber)
{
    return !fiber->ended &&
           (!fiber->ready || fiber->expired || fiber->ready(fiber->ready_argument));
}

/* The running fiber first, then the others in their order, then those that wait for time. */
static unsigned list_options(struct way *list)
{
    unsigned count = 0;
    uint8_t cost = 0;
    for (unsigned i = 0; i < fibers->count; i++) {
        unsigned at = (fibers->current + i) % fibers->count;
        if (can_run(&fibers->all[at])) {
            list[count++] = (struct way){(uint8_t)at, cost, false};
            cost |= i == 0 && fibers->begun;
        }
    }
    for (unsigned i = 0; i < fibers->count && count; i++) {
        struct fiber *fiber = &fibers->all[i];
        if (!fiber->ended && fiber->until_ns && !fiber->expired && !can_run(fiber)) {
            list[count++] = (struct way){(uint8_t)i, 1, true};
        }
    }
    return count;
}

static void move_clock(void)
{
    struct fiber *first = NULL;
    for (unsigned i = 0; i < fibers->count; i++) {
        struct fiber *fiber = &fibers->all[i];
        if (!fiber->ended && fiber->until_ns && (!first || fiber->until_ns < first->until_ns)) {
            first = fiber;
        }
    }
    if (!first) {
        for (unsigned i = 0; i < fibers->count; i++) {
            struct fiber *fiber = &fibers->all[i];
            if (!fiber->ended && !fiber->daemon) {
                sched_fail("deadlock: %s waits at %s:%d (%s)", fiber->name, short_name(fiber->file),
                           fiber->line, fiber->what);
            }
        }
        running = false;
        setcontext(&explorer);
        abort();
    }
    first->expired = true;
    if (first->until_ns <= fibers->now_ns) {
        return; /* it only let the others run first */
    }
    fibers->expiries++;
    fibers->now_ns = first->until_ns;
    if (options.verbose) {
        printf("                the clock moves to %.6f s for %s\n", (double)fibers->now_ns / 1e9,
               first->name);
    }
}

static unsigned pick(void)
{
    struct way possible[OPTIONS_MAX];
    unsigned count;
    while ((count = list_options(possible)) == 0) {
        move_clock();
    }
    unsigned next = explore_choose(CHOOSE_FIBER, possible, count);
    struct fiber *fiber = &fibers->all[next];
    if (!can_run(fiber)) {
        fiber->expired = true; /* it was chosen to end its wait early */
    }
    return next;
}

static void note_place(const char *file, int line, const char *what)
{
    struct fiber *fiber = &fibers->all[fibers->current];
    fiber->file = file;
    fiber->line = line;
    fiber->what = what;
    uint32_t step = explore_step();
    if (step > STEPS_MAX) {
        sched_fail("more than %d steps: this does not end", STEPS_MAX);
    }
    if (options.verbose) {
        printf("%6u  %-12s  %s:%d  %s\n", step, fiber->name, short_name(file), line, what);
    }
}

/* Freed memory, or a frame of another fiber's stack that it has left. */
static void check_object(const volatile void *object)
{
    if (arena_is_freed(object)) {
        sched_fail("freed memory is touched");
    }
    const volatile char *at = object;
    for (unsigned i = 0; i < fibers->count; i++) {
        const struct fiber *fiber = &fibers->all[i];
        if (i != fibers->current && at >= fiber->stack && at < fiber->stack + STACK_BYTES &&
            (fiber->ended || at < fiber->top - RED_ZONE)) {
            sched_fail("a frame that %s has left is touched", fiber->name);
        }
    }
}

void sched_point(const char *file, int line, const char *what, const volatile void *object,
                 bool writes)
{
    if (!running) {
        return;
    }
    note_place(file, line, what);
    check_object(object);
    if (explore_is_shared(object, fibers->current, writes)) {
        switch_to(pick());
        check_object(object); /* it may have been freed meanwhile */
    }
}

bool sched_wait(const char *file, int line, const char *what, ready_fn *ready, void *argument,
                uint64_t until_ns)
{
    if (!running) {
        if (!ready(argument)) {
            sched_fail("outside a schedule %s:%d would wait for ever (%s)", short_name(file), line,
                       what);
        }
        return true;
    }
    struct fiber *fiber = &fibers->all[fibers->current];
    note_place(file, line, what);
    fiber->ready = ready;
    fiber->ready_argument = argument;
    fiber->until_ns = until_ns;
    fiber->expired = false;
    switch_to(pick());
    bool in_time = ready(argument);
    fiber->ready = NULL;
    fiber->until_ns = 0;
    fiber->expired = false;
    return in_time;
}

unsigned sched_choose(unsigned count)
{
    struct way possible[OPTIONS_MAX];
    if (!running || count < 2) {
        return 0;
    }
    explore_step();
    for (unsigned i = 0; i < count; i++) {
        possible[i] = (struct way){(uint8_t)i, 0, false};
    }
    return explore_choose(CHOOSE_OTHER, possible, count);
}

bool sched_fails(void)
{
    const struct way possible[] = {{0, 0, false}, {1, 1, false}};
    if (!running) {
        return false;
    }
    explore_step();
    return explore_choose(CHOOSE_OTHER, possible, 2);
}

void fibers_run(void)
{
    volatile bool begun = false;
    arena_touch(fibers, sizeof(*fibers)); /* swapcontext() saves the signal mask by a system call */
    memset(__start_sched_tls, 0, tls_size());
    getcontext(&explorer);
    if (begun) {
        return;
    }
    begun = true;
    running = true;
    explore_step();
    fibers->current = pick();
    fibers->begun = true;
    setcontext(&fibers->all[fibers->current].context);
}

void sched_fail(const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    report_failure(text);
}
