/* SPDX-License-Identifier: MIT */
/* Records in an array, on singly linked lists by their index: pending.h. */
#include "space/pending.h"

#include <assert.h>

static void assert_pending(const struct pending_set *set)
{
    (void)set;
    assert(set->count <= PENDING_MAX && set->clusters >= set->count);
    assert((set->free == PENDING_NONE) == (set->count == PENDING_MAX));
    assert((set->ripening_first == PENDING_NONE) == (set->ripening_last == PENDING_NONE));
    assert(set->ripening_first == PENDING_NONE || set->count > 0);
    assert(set->ripening_last == PENDING_NONE ||
           set->records[set->ripening_last].next == PENDING_NONE);
}

void pending_init(struct pending_set *set)
{
    for (int32_t i = 0; i < PENDING_MAX; i++) {
        set->records[i].next = i + 1 < PENDING_MAX ? i + 1 : PENDING_NONE;
    }
    set->free = 0;
    set->ripening_first = set->ripening_last = PENDING_NONE;
    set->count = 0;
    set->clusters = 0;
    assert_pending(set);
}

void pending_add(struct pending_set *set, struct host_cluster host, uint32_t page, uint64_t gen,
                 int32_t *first)
{
    assert(pending_has_room(set));
    struct pending *last = *first == PENDING_NONE ? NULL : &set->records[*first];
    set->clusters++;
    if (last && last->gen == gen && last->run.first.n + last->run.count == host.n) {
        last->run.count++;
        return;
    }
    int32_t at = set->free;
    struct pending *pending = &set->records[at];
    set->free = pending->next;
    set->count++;
    *pending = (struct pending){.run = {host, 1}, .page = page, .gen = gen, .next = *first};
    *first = at;
    assert_pending(set);
}

static void ripening_append(struct pending_set *set, int32_t at)
{
    struct pending *pending = &set->records[at];
    pending->next = PENDING_NONE;
    if (set->ripening_last == PENDING_NONE) {
        set->ripening_first = at;
    } else {
        struct pending *last = &set->records[set->ripening_last];
        assert(last->number.n <= pending->number.n);
        last->next = at;
    }
    set->ripening_last = at;
}

void pending_page_written(struct pending_set *set, const struct syncer *syncer, uint64_t gen,
                          int32_t *first)
{
    int32_t *link = first;
    while (*link != PENDING_NONE) {
        int32_t at = *link;
        struct pending *pending = &set->records[at];
        if (pending->gen > gen) {
            link = &pending->next;
            continue;
        }
        *link = pending->next;
        pending->number = sync_next(syncer);
        ripening_append(set, at);
    }
    assert_pending(set);
}

bool pending_take_ripe(struct pending_set *set, const struct syncer *syncer, struct space_run *run)
{
    int32_t at = set->ripening_first;
    if (at == PENDING_NONE || !sync_is_done(syncer, set->records[at].number)) {
        return false;
    }
    struct pending *pending = &set->records[at];
    assert(set->count > 0);
    set->ripening_first = pending->next;
    if (set->ripening_first == PENDING_NONE) {
        set->ripening_last = PENDING_NONE;
    }
    *run = pending->run;
    set->clusters -= run->count;
    pending->run.count = 0;
    pending->next = set->free;
    set->free = at;
    set->count--;
    assert_pending(set);
    return true;
}

bool pending_below(const struct pending_set *set, uint64_t place)
{
    for (uint32_t i = 0; i < PENDING_MAX && set->count > 0; i++) {
        if (set->records[i].run.count > 0 && set->records[i].run.first.n < place) {
            return true;
        }
    }
    return false;
}
