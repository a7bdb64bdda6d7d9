/* SPDX-License-Identifier: MIT */
/* The states and the gate of state.h, executed. */
#include "engine/state.h"

#include "pio/pio.h"

#include <assert.h>

#define BIT(state) (1u << DEV_##state)

/* The reasons for a closed gate that a state brings. */
static const uint32_t reasons_of[DEV_STATES] = {
    [DEV_SUSPENDED] = GATE_SUSPENDED,
    [DEV_CLOSED] = GATE_CLOSED,
    [DEV_ABORTING] = GATE_ABORTING,
};

#ifndef NDEBUG
/* Where each state may go. */
static const uint32_t next_states[DEV_STATES] = {
    [DEV_OPENING] = BIT(RUNNING) | BIT(ABORTING),
    [DEV_RUNNING] = BIT(SUSPENDED) | BIT(CLOSING) | BIT(ABORTING),
    [DEV_SUSPENDED] = BIT(RUNNING) | BIT(CLOSING) | BIT(ABORTING),
    [DEV_CLOSING] = BIT(CLOSED),
};

enum { GATE_OF_STATES = GATE_SUSPENDED | GATE_CLOSED | GATE_ABORTING };

/* Before the device runs no other thread knows it; after that only the turn's owner may. */
static bool may_change(ploop_dev *dev)
{
    return dev->state == DEV_OPENING || atomic_load(&dev->turn.owned);
}
#endif

void assert_dev(const ploop_dev *dev)
{
    (void)dev;
    assert(dev->state < DEV_STATES);
    assert((dev->gate_reasons & GATE_OF_STATES) == reasons_of[dev->state]);
    assert(dev->gate_reasons & GATE_HOLDS || list_is_empty(&dev->held));
    assert(dev->state != DEV_CLOSED || list_is_empty(&dev->parked));
    assert(!(dev->gate_reasons & GATE_CHANGES_REFUSED) || dev->refusal < 0);
    assert(!(dev->all_durable || dev->in_commit) || dev->gate_reasons & GATE_JOB);
}

void gate_change(ploop_dev *dev, uint32_t remove, uint32_t add)
{
    uint32_t before = dev->gate_reasons, after = (before & ~remove) | add;
    assert(may_change(dev));
    assert((before & remove) == remove && !(before & ~remove & add));
    assert(!((remove | add) & GATE_ENGINE_ONLY) || dev->state == DEV_OPENING);
    assert(!(remove & GATE_CHANGES_REFUSED)); /* it is never taken back */
    dev->gate_reasons = after;
    dev->all_durable &= (after & GATE_JOB) != 0;
    dev->in_commit &= (after & GATE_JOB) != 0;
    /* Before the gate opens: a request that finds it open comes after those that were held. */
    if ((before & ~after & GATE_HOLDS) || add & GATE_ENDS) {
        pio_restart_held(dev);
    }
    atomic_store(&dev->fast_top, after ? NULL : dev_top(dev));
    assert_dev(dev);
}

void dev_set_state(ploop_dev *dev, enum dev_state state)
{
    uint32_t before = reasons_of[dev->state], after = reasons_of[state];
    assert(may_change(dev));
    assert(next_states[dev->state] & 1u << state);
    dev->state = state;
    gate_change(dev, before & ~after, after & ~before);
}
