/* SPDX-License-Identifier: MIT */
/* See counters.h. */
#include "counters.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>

static struct counters own;
struct counters *counters = &own;

static const char *const fault_names[FAULT_COUNT] = {
    [FAULT_CUT] = "power cut",
    [FAULT_TORN] = "torn page",
    [FAULT_SHORT] = "short transfer",
    [FAULT_EINTR] = "EINTR",
    [FAULT_EAGAIN] = "EAGAIN",
    [FAULT_NO_PROGRESS] = "0 bytes",
    [FAULT_EIO_READ] = "EIO read",
    [FAULT_EIO_DATA] = "EIO data",
    [FAULT_EIO_PAGE] = "EIO page",
    [FAULT_EIO_SYNC] = "EIO sync",
    [FAULT_EIO_PUNCH] = "EIO punch",
    [FAULT_EIO_RESIZE] = "EIO resize",
    [FAULT_EIO_SUBMIT] = "EIO submit",
    [FAULT_ENOSPC] = "ENOSPC grow",
    [FAULT_ENOSPC_WRITE] = "ENOSPC write",
    [FAULT_LATE] = "out of order",
    [FAULT_INLINE] = "inline",
    [FAULT_CLOCK] = "clock",
    [FAULT_MEMORY] = "no memory",
    [FAULT_CRASH] = "process dies",
    [FAULT_TOLD] = "told to FUA",
    [FAULT_LOST] = "lost",
    [FAULT_BUSY] = "cache stays",
    [FAULT_FULL] = "ring full",
};

static const char *const rule_names[RULE_COUNT] = {"R1", "R2",  "R3",  "R4",  "R5",  "R6",
                                                   "R7", "R11", "R14", "R15", "R16", "R17"};

static const char *const state_names[STATE_COUNT] = {
    "clean",           "dirty",    "high priority",  "writeback",
    "writeback+dirty", "unsynced", "unsynced+dirty", "failed"};

const char *fault_name(enum fault fault)
{
    return fault_names[fault];
}

void counters_fault(enum fault fault, uint32_t rules, uint32_t states)
{
    counters->faults[fault]++;
    for (unsigned rule = 0; rule < RULE_COUNT; rule++)
        for (unsigned state = 0; state < STATE_COUNT; state++)
            if (rules & 1u << rule && states & 1u << state)
                counters->cells[rule][state][fault]++;
}

void counters_add(struct counters *sum, const struct counters *part)
{
    const uint64_t *from = (const uint64_t *)part;
    uint64_t *to = (uint64_t *)sum;
    for (unsigned i = 0; i < sizeof(*sum) / sizeof(*to); i++)
        to[i] += from[i];
}

void counters_print(const struct counters *all)
{
    printf("runs %" PRIu64 ", events %" PRIu64 ", sessions %" PRIu64 ", requests %" PRIu64
           ", sectors read and checked %" PRIu64 "\n",
           all->runs, all->events, all->sessions, all->requests, all->reads_checked);
    printf("cuts %" PRIu64 ", disks judged %" PRIu64 ", of these recovered %" PRIu64
           "; gone on after a cut %" PRIu64 "\n",
           all->cuts, all->disks, all->recoveries, all->continued);
    printf("faults:");
    for (unsigned fault = 0; fault < FAULT_COUNT; fault++)
        printf("%s %s %" PRIu64, fault ? "," : "", fault_names[fault], all->faults[fault]);
    printf("\n");
}

void counters_print_cells(const struct counters *all)
{
    printf("\n%-28s", "while (rule, page state)");
    for (unsigned fault = 0; fault < FAULT_COUNT; fault++)
        printf(" %8.8s", fault_names[fault]);
    printf("\n");
    for (unsigned rule = 0; rule < RULE_COUNT; rule++) {
        for (unsigned state = 0; state < STATE_COUNT; state++) {
            printf("%-4s %-23s", rule_names[rule], state_names[state]);
            for (unsigned fault = 0; fault < FAULT_COUNT; fault++)
                printf(" %8" PRIu64, all->cells[rule][state][fault]);
            printf("\n");
        }
    }
}

/* Cells that are not claimed, and why; every other cell is reachable and must not stay at zero. */
struct unclaimed {
    uint32_t rules, states, faults;
    const char *why;
};

#define ANY UINT32_MAX
#define BIT(n) (1u << (n))
#define SPACE_FAULTS                                                                               \
    (BIT(FAULT_EIO_PUNCH) | BIT(FAULT_EIO_RESIZE) | BIT(FAULT_ENOSPC) | BIT(FAULT_ENOSPC_WRITE))
#define DATA_FAULTS                                                                                \
    (BIT(FAULT_EIO_READ) | BIT(FAULT_EIO_DATA) | BIT(FAULT_EIO_SUBMIT) | BIT(FAULT_NO_PROGRESS) |  \
     BIT(FAULT_TOLD))
#define BETWEEN_CALLS (BIT(FAULT_CLOCK) | BIT(FAULT_MEMORY) | BIT(FAULT_CRASH))

static const struct unclaimed unclaimed[] = {
    {ANY, ANY, BIT(FAULT_BUSY),
     "the cache is dropped before there is a device: counted without a rule and a page state"},
    {BIT(RULE_R11), ANY, BETWEEN_CALLS,
     "opening and closing are one call each; memory that fails in open is counted without a page "
     "state"},
    {BIT(RULE_R11), ANY, SPACE_FAULTS | DATA_FAULTS,
     "no guest request is in flight while a device opens or closes"},
    {BIT(RULE_R11), ANY & ~(BIT(STATE_CLEAN) | BIT(STATE_DIRTY)),
     BIT(FAULT_EIO_PAGE) | BIT(FAULT_EIO_SYNC) | BIT(FAULT_LOST) | BIT(FAULT_FULL),
     "the states are those before the call, and most devices come to close with their pages at "
     "rest"},
    {BIT(RULE_R6), ANY, BIT(FAULT_EIO_SYNC), "after a failed SYNC no other is sent"},
    {BIT(RULE_R6), ANY, BIT(FAULT_EIO_PAGE), "after a failed SYNC no page is written"},
    {BIT(RULE_R6), ANY, SPACE_FAULTS | DATA_FAULTS,
     "after a failed SYNC nothing is freed; other requests are R4's and R14's"},
    {BIT(RULE_R6), BIT(STATE_WRITEBACK) | BIT(STATE_WRITEBACK_DIRTY), ANY,
     "after a failed SYNC no page is written"},
    {BIT(RULE_R6), BIT(STATE_HIGH) | BIT(STATE_UNSYNCED_DIRTY), BETWEEN_CALLS,
     "two rare things at once: soaks see them"},
    {BIT(RULE_R5), ANY & ~BIT(STATE_FAILED), ANY,
     "the rule is about failed pages; what another page does beside adds nothing"},
    {BIT(RULE_R16), ANY & ~(BIT(STATE_WRITEBACK) | BIT(STATE_WRITEBACK_DIRTY)), ANY,
     "the rule is about pages under writeback; what another page does beside adds nothing"},
    {ANY, ANY & ~(BIT(STATE_CLEAN) | BIT(STATE_DIRTY)), SPACE_FAULTS,
     "finding and freeing space does not look at what a page is doing"},
    {ANY, BIT(STATE_HIGH) | BIT(STATE_UNSYNCED_DIRTY) | BIT(STATE_FAILED),
     DATA_FAULTS | BETWEEN_CALLS, "data requests do not look at what a page is doing"},
    {ANY, BIT(STATE_WRITEBACK_DIRTY), BIT(FAULT_TOLD), "two rare things at once: soaks see them"},
    {ANY, BIT(STATE_HIGH) | BIT(STATE_UNSYNCED_DIRTY) | BIT(STATE_FAILED),
     BIT(FAULT_EIO_PAGE) | BIT(FAULT_EIO_SYNC),
     "two pages in two short-lived states at once: soaks see them"},
};

static const char *why_unclaimed(unsigned rule, unsigned state, unsigned fault)
{
    for (unsigned i = 0; i < sizeof(unclaimed) / sizeof(unclaimed[0]); i++)
        if (unclaimed[i].rules & BIT(rule) && unclaimed[i].states & BIT(state) &&
            unclaimed[i].faults & BIT(fault))
            return unclaimed[i].why;
    return NULL;
}

unsigned counters_missing(const struct counters *all)
{
    unsigned missing = 0, reachable = 0, seldom = 0;
    for (unsigned fault = 0; fault < FAULT_COUNT; fault++) {
        if (!all->faults[fault]) {
            printf("never: %s\n", fault_names[fault]);
            missing++;
        }
    }
    for (unsigned rule = 0; rule < RULE_COUNT; rule++) {
        for (unsigned state = 0; state < STATE_COUNT; state++) {
            for (unsigned fault = 0; fault < FAULT_COUNT; fault++) {
                if (why_unclaimed(rule, state, fault))
                    continue;
                reachable++;
                seldom += all->cells[rule][state][fault] < 3;
                if (all->cells[rule][state][fault])
                    continue;
                printf("reachable and never exercised: %s, page %s, %s\n", rule_names[rule],
                       state_names[state], fault_names[fault]);
                missing++;
            }
        }
    }
    printf("(rule, page state, fault): %u reachable, %u things missing, %u less than three times\n",
           reachable, missing, seldom);
    printf("not claimed:\n");
    for (unsigned i = 0; i < sizeof(unclaimed) / sizeof(unclaimed[0]); i++) {
        unsigned cells = 0;
        for (unsigned rule = 0; rule < RULE_COUNT; rule++)
            for (unsigned state = 0; state < STATE_COUNT; state++)
                for (unsigned fault = 0; fault < FAULT_COUNT; fault++)
                    cells += why_unclaimed(rule, state, fault) == unclaimed[i].why;
        printf("  %4u cells: %s\n", cells, unclaimed[i].why);
    }
    return missing;
}
