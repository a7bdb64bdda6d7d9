/* SPDX-License-Identifier: MIT */
/*
 * A counter that one thread at a time changes, and any thread reads by an atomic load. It is never
 * read torn; a reader that must see it before or after something else needs an order of its own:
 * the change is a relaxed one.
 */
#ifndef UTIL_COUNTER_H
#define UTIL_COUNTER_H

#include <stdatomic.h>
#include <stdint.h>

/* One instruction, where gcc makes three of a load and a store. */
static inline void counter_add(_Atomic uint64_t *counter, uint64_t number)
{
#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
    __asm__ volatile("addq %1, %0" : "+m"(*(uint64_t *)counter) : "er"(number) : "cc");
#else
    uint64_t before = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, before + number, memory_order_relaxed);
#endif
}

#endif
