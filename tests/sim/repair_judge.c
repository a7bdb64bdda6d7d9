/* SPDX-License-Identifier: MIT */
/* See repair_judge.h. */
#include "repair_judge.h"

#include <inttypes.h>
#include <string.h>

#include "counters.h"
#include "memfile.h"
#include "report.h"

static void read_or_die(struct showings *showings, const struct disk_state *state, const char *name)
{
    char message[160];
    if (!showings_read(showings, state, message))
        violation("F1", "%s: no image any more: %s", name, message);
}

/* The library's check of it, or its repair. */
static struct ploop_check_result check(struct memfile *memfile, uint32_t repair, const char *name)
{
    const struct ploop_check_options options = {.size = sizeof(options), .repair = repair};
    struct ploop_check_result result = {.size = sizeof(result)};
    int error = ploop_image_check(memfile->file, &options, &result);
    if (error)
        violation("repair", "%s: %s it gives %d", name, repair ? "repairing" : "checking", error);
    return result;
}

static bool is_recoverable(const struct disk_state *state, const char *name)
{
    struct memfile memfile;
    memfile_open(&memfile, state);
    struct ploop_check_result result = check(&memfile, 0, name);
    memfile_close(&memfile);
    return result.recoverable;
}

void repair_judge_init(struct repair_judge *judge, const struct disk *disk, uint32_t repair)
{
    memset(judge, 0, sizeof(*judge));
    judge->repair = repair;
    read_or_die(&judge->found, &disk->current, "as it is found");
    judge->has_older = disk->op_count != 0;
    if (judge->has_older)
        read_or_die(&judge->older, &disk->durable, "as it was before");
    judge->recoverable = is_recoverable(&disk->current, "as it is found") &&
                         (!judge->has_older || is_recoverable(&disk->durable, "before"));
    judge->errors =
        judge->older.errors > judge->found.errors ? judge->older.errors : judge->found.errors;
}

void repair_judge_free(struct repair_judge *judge)
{
    showings_free(&judge->found);
    if (judge->has_older)
        showings_free(&judge->older);
    sim_free(judge->seen);
}

static bool same_bytes(const struct showings *now, uint64_t guest, const struct showing_of *before)
{
    return !memcmp(now->of[guest].bytes, before->bytes, showings_visible(now, guest));
}

/*
 * Whether the present content is allowed, given the content before; `mended`: a repair of all has
 * ended.
 */
static bool is_allowed(const struct showings *now, uint64_t guest, const struct showing_of *before,
                       bool mended)
{
    enum showing how = now->of[guest].how;
    switch (before->how) {
    case SHOWS_ZEROS:
        return how == SHOWS_ZEROS;
    case SHOWS_BYTES:
        return how == SHOWS_BYTES && same_bytes(now, guest, before);
    case SHOWS_BAD:
        return how == SHOWS_ZEROS || (how == SHOWS_BAD && !mended);
    case SHOWS_COPY:
        return (how == SHOWS_BYTES && same_bytes(now, guest, before)) ||
               (how == SHOWS_COPY && !mended);
    case SHOWS_CUT:
        return (how == SHOWS_BYTES || (how == SHOWS_CUT && !mended)) &&
               same_bytes(now, guest, before);
    }
    return false;
}

static void compare(const struct repair_judge *judge, const struct showings *now, bool mended,
                    const char *name)
{
    static const char *const words[] = {"zeros", "content", "an error", "an error for a duplicate",
                                        "a part of its content"};
    if (now->guests != judge->found.guests)
        violation("F1", "%s: the disk's size changed", name);
    for (uint64_t guest = 0; guest < now->guests; guest++) {
        const struct showing_of *found = &judge->found.of[guest];
        if (is_allowed(now, guest, found, mended) ||
            (judge->has_older && is_allowed(now, guest, &judge->older.of[guest], mended)))
            continue;
        violation("F1", "%s%s: guest cluster %" PRIu64 " showed %s, shows %s", name,
                  mended ? ", repaired" : "", guest, words[found->how],
                  now->of[guest].how == found->how ? "other bytes" : words[now->of[guest].how]);
    }
    const uint8_t *bits = judge->found.bits;
    if (bits && now->bits && memcmp(bits, now->bits, now->cluster))
        violation("F1", "%s%s: the extension counts, and its bitmap holds other bits", name,
                  mended ? ", repaired" : "");
}

/* The library's check agrees with the oracle. */
static void judge_check(const struct repair_judge *judge, struct memfile *memfile,
                        const struct showings *now, const char *name)
{
    struct ploop_check_result result = check(memfile, 0, name);
    uint64_t errors = now->errors + now->marked;
    if (!result.errors != !errors || (!errors && result.leaks != now->leaks))
        violation("repair",
                  "%s: the check finds %" PRIu64 " errors and %" PRIu64
                  " leaks, the oracle %" PRIu64 " and %" PRIu64,
                  name, result.errors, result.leaks, errors, now->leaks);
    if (judge->recoverable && !result.recoverable)
        violation("F1", "%s: RECOVER would not open it any more", name);
}

static void judge_as_it_is(const struct repair_judge *judge, const struct disk_state *state,
                           struct memfile *memfile, const char *name)
{
    struct showings now;
    read_or_die(&now, state, name);
    if (now.errors > judge->errors)
        violation("F1", "%s: %" PRIu64 " errors, there were %" PRIu64, name, now.errors,
                  judge->errors);
    bool was_marked = judge->found.marked && !(judge->has_older && !judge->older.marked);
    if (was_marked && !now.marked && (now.errors || !(judge->repair & PLOOP_REPAIR_UNCLEAN)))
        violation("R11", "%s: the mark is gone%s", name, now.errors ? ", and errors are left" : "");
    compare(judge, &now, false, name);
    judge_check(judge, memfile, &now, name);
    showings_free(&now);
}

void repair_judge_clean(const struct disk_state *state, const char *name)
{
    struct showings now;
    read_or_die(&now, state, name);
    if (now.errors || now.leaks || now.marked)
        violation("repair", "%s, repaired: %" PRIu64 " errors, %" PRIu64 " leaks, %s", name,
                  now.errors, now.leaks, now.marked ? "marked" : "not marked");
    showings_free(&now);
}

void repair_judge_disk(struct repair_judge *judge, const struct disk_state *state, const char *name)
{
    struct memfile memfile;
    struct showings now;
    uint64_t hash = disk_state_hash(state);
    for (uint64_t i = 0; i < judge->seen_count; i++)
        if (judge->seen[i] == hash)
            return;
    judge->seen = sim_realloc(judge->seen, (judge->seen_count + 1) * sizeof(*judge->seen));
    judge->seen[judge->seen_count++] = hash;
    counters->disks++;
    memfile_open(&memfile, state);
    judge_as_it_is(judge, state, &memfile, name);
    check(&memfile, REPAIR_ALL, name);
    repair_judge_clean(&memfile.state, name);
    read_or_die(&now, &memfile.state, name);
    compare(judge, &now, true, name);
    showings_free(&now);
    uint64_t changes = memfile.changes;
    struct ploop_check_result result = check(&memfile, REPAIR_ALL, name);
    if (result.errors || result.leaks || result.repaired || memfile.changes != changes)
        violation("repair",
                  "%s: repaired twice, the second finds %" PRIu64 " errors, %" PRIu64
                  " leaks, and sends %" PRIu64 " changes",
                  name, result.errors, result.leaks, memfile.changes - changes);
    memfile_close(&memfile);
}
