/* SPDX-License-Identifier: MIT */
/*
 * What a run exercised: plain numbers, and a cell for each (rule, page state, fault). They live in
 * memory that the worker processes share with their parent.
 *
 * A fault exercises a rule if the operation that the rule is about was going on when the fault
 * struck; the page states are those of the device's pages at that moment, from
 * ploop_bat_page_info().
 */
#ifndef SIM_COUNTERS_H
#define SIM_COUNTERS_H

#include <stdbool.h>
#include <stdint.h>

enum fault {
    FAULT_CUT,          /* F1 */
    FAULT_TORN,         /* F2: a page write torn by a cut */
    FAULT_SHORT,        /* F3 */
    FAULT_EINTR,        /* F3 */
    FAULT_EAGAIN,       /* F3: at submit */
    FAULT_FULL,         /* F3: EAGAIN until the ring is reaped */
    FAULT_NO_PROGRESS,  /* F3: 0 bytes */
    FAULT_EIO_READ,     /* F4 */
    FAULT_EIO_DATA,     /* F4 */
    FAULT_EIO_PAGE,     /* F5 */
    FAULT_EIO_SYNC,     /* F6 */
    FAULT_EIO_PUNCH,    /* F12 */
    FAULT_EIO_RESIZE,   /* F12 */
    FAULT_EIO_SUBMIT,   /* F4: not taken */
    FAULT_ENOSPC,       /* F7: the file cannot grow */
    FAULT_ENOSPC_WRITE, /* F7: a hole cannot be filled */
    FAULT_LATE,         /* F8: completed out of order */
    FAULT_INLINE,       /* F8: completed before submit returned */
    FAULT_CLOCK,        /* F10: jumped or went back */
    FAULT_MEMORY,       /* F11 */
    FAULT_CRASH,        /* the process dies, the cache does not */
    FAULT_TOLD,         /* F14: a FUA write reports a loss that the next SYNC reports too */
    FAULT_LOST,         /* F15: writeback fails, the cache still shows what is lost */
    FAULT_BUSY,         /* F15: the cache cannot be dropped */
    FAULT_COUNT
};

enum rule {
    RULE_R1,
    RULE_R2,
    RULE_R3,
    RULE_R4,
    RULE_R5,
    RULE_R6,
    RULE_R7,
    RULE_R11,
    RULE_R14,
    RULE_R15,
    RULE_R16,
    RULE_R17,
    RULE_COUNT
};

enum page_state {
    STATE_CLEAN,
    STATE_DIRTY,
    STATE_HIGH,
    STATE_WRITEBACK,
    STATE_WRITEBACK_DIRTY,
    STATE_UNSYNCED,
    STATE_UNSYNCED_DIRTY,
    STATE_FAILED,
    STATE_COUNT
};

struct counters {
    uint64_t runs, events, sessions, requests, cuts, disks, recoveries, continued, ends,
        reads_checked;
    uint64_t faults[FAULT_COUNT];
    uint64_t cells[RULE_COUNT][STATE_COUNT][FAULT_COUNT];
    uint64_t current_seed; /* of this worker, for a crash */
};

extern struct counters *counters;

/* `rules` and `states` are masks of the rules and states at that moment. */
void counters_fault(enum fault fault, uint32_t rules, uint32_t states);
void counters_add(struct counters *sum, const struct counters *part);
void counters_print(const struct counters *all);
void counters_print_cells(const struct counters *all);

/* Print the cells that are listed as reachable and stayed at zero; returns their number. */
unsigned counters_missing(const struct counters *all);

const char *fault_name(enum fault fault);

#endif
