/* SPDX-License-Identifier: MIT */
/*
 * Lists whose links live in their members: a doubly linked one, and container_of to get back from a
 * link to its member.
 */
#ifndef UTIL_LIST_H
#define UTIL_LIST_H

#include <stdbool.h>
#include <stddef.h>

#define container_of(pointer, type, member)                                                        \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

struct list {
    struct list *next, *prev;
};

/* An empty list, or a link that is on none. */
static inline void list_init(struct list *list)
{
    list->next = list->prev = list;
}

static inline bool list_is_empty(const struct list *list)
{
    return list->next == list;
}

static inline void list_append(struct list *list, struct list *link)
{
    link->prev = list->prev;
    link->next = list;
    list->prev->next = link;
    list->prev = link;
}

static inline void list_prepend(struct list *list, struct list *link)
{
    list_append(list->next, link);
}

/* Harmless for a link that is on no list. */
static inline void list_remove(struct list *link)
{
    link->prev->next = link->next;
    link->next->prev = link->prev;
    list_init(link);
}

/* The first link, taken off; NULL from an empty list. */
static inline struct list *list_take_first(struct list *list)
{
    if (list_is_empty(list)) {
        return NULL;
    }
    struct list *first = list->next;
    list_remove(first);
    return first;
}

/* Everything of `from` to the end of `to`; `from` is empty then. */
static inline void list_move_all(struct list *to, struct list *from)
{
    if (list_is_empty(from)) {
        return;
    }
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    list_init(from);
}

#endif
