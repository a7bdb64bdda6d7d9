/* SPDX-License-Identifier: MIT */
/* See bounded_play.h. */
#include "bounded_play.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "report.h"

enum { RUN_SECONDS_MAX = 20 };

const char *base_name(enum sim_base base)
{
    static const char *const names[] = {
        [SIM_ALONE] = "none", [SIM_OVER_IMAGE] = "image", [SIM_OVER_RAW] = "raw"};
    return names[base];
}

static struct sim *start(const struct world *world)
{
    struct sim *sim = sim_alloc(sizeof(*sim));
    sim_init(sim, 4 + world->base);
    image_small(&sim->image, world->variant & VARIANT_USED, world->variant & VARIANT_SPLIT);
    sim->cut_permille = 1000;
    sim_start(sim, world->base);
    sim->config.pio_count = 8;
    sim->config.preallocate_bytes = 2 * (uint64_t)sim->image.cluster_sectors * DISK_SECTOR;
    sim->config.cow_delay_ns = world->variant & VARIANT_PUT_OFF ? UINT64_MAX : 0;
    sim->backend.quick = true;
    sim->backend.fifo = !(world->variant & VARIANT_LIFO);
    sim->backend.lifo = world->variant & VARIANT_LIFO;
    sim->backend.capabilities |= world->variant & VARIANT_FUA ? PLOOP_FILE_CAN_FUA : 0;
    return sim;
}

static void end(struct sim *sim)
{
    sim_free_all(sim);
    sim_free(sim);
}

bool world_exists(enum sim_base base, uint32_t variant)
{
    return !(variant & VARIANT_PUT_OFF) || (base != SIM_ALONE && !(variant & VARIANT_SPLIT));
}

/* The clusters mapped at the start and the lower deltas decide which clusters are alike. */
void world_init(struct world *world, enum sim_base base, uint32_t variant)
{
    uint32_t alike[BOUNDED_CLUSTERS];
    world->base = base;
    world->variant = variant;
    struct sim *sim = start(world);
    for (uint32_t i = 0; i < BOUNDED_CLUSTERS; i++) {
        uint32_t at = 64 + 4 * sim->image.hot[i], entry;
        memcpy(&entry, sim->disk.current.bytes + at, sizeof(entry));
        alike[i] = (entry ? 1u : 0u) | (base_has(&sim->base, sim->image.hot[i]) ? 2u : 0u) |
                   at / 4096 << 2;
    }
    alphabet_init(&world->alphabet, variant & VARIANT_SPLIT ? 2 : 1, alike);
    end(sim);
}

void sequence_print(const struct world *world, const struct sequence *sequence, char *text,
                    size_t size)
{
    int at = 0;
    *text = '\0';
    for (uint32_t i = 0; i < sequence->length; i++) {
        at += snprintf(text + at, size - (size_t)at, "%s",
                       world->alphabet.requests[sequence->requests[i]].text);
        if (i + 1 == sequence->length)
            return;
        if (sequence->gaps[i] == GAP_REST)
            at += snprintf(text + at, size - (size_t)at, ",");
        else if (sequence->gaps[i] == 0)
            at += snprintf(text + at, size - (size_t)at, "+");
        else
            at += snprintf(text + at, size - (size_t)at, "+%" PRIu32 "+", sequence->gaps[i]);
    }
}

bool sequence_parse(const struct world *world, struct sequence *sequence, const char *text)
{
    memset(sequence, 0, sizeof(*sequence));
    while (*text) {
        int request = alphabet_find(&world->alphabet, text, &text);
        if (request < 0 || sequence->length == BOUNDED_LENGTH_MAX)
            return false;
        uint32_t *gap = &sequence->gaps[sequence->length];
        sequence->requests[sequence->length++] = (uint8_t)request;
        if (*text == ',')
            *gap = GAP_REST;
        else if (*text == '+' && text[1] >= '0' && text[1] <= '9')
            *gap = (uint32_t)strtoul(text + 1, (char **)&text, 10);
        else if (*text && *text != '+')
            return false;
        text += *text != '\0';
    }
    return true;
}

bool sequence_next_gaps(struct sequence *sequence, bool every_gap)
{
    for (uint32_t i = sequence->length; i-- > 1;) {
        uint32_t *gap = &sequence->gaps[i - 1];
        if (!sequence->rested[i - 1]) {
            *gap = every_gap ? *gap + 1 : GAP_REST;
            return true;
        }
        *gap = 0;
    }
    return false;
}

static void submit(struct sim *sim, const struct bounded_request *request)
{
    uint64_t cluster = sim->image.cluster_sectors,
             first = (sim->image.hot[0] + request->cluster) * cluster, count = cluster;
    if (request->extent == EXTENT_PART)
        count = 1;
    if (request->extent == EXTENT_ACROSS && request->kind == 'd')
        count = 2 * cluster;
    else if (request->extent == EXTENT_ACROSS)
        first += cluster / 2;
    switch (request->kind) {
    case 'w':
        guest_do(sim, GUEST_WRITE, first, count, 0);
        break;
    case 'f':
        guest_do(sim, GUEST_WRITE, first, count, PLOOP_PIO_FUA);
        break;
    case 'z':
        guest_do(sim, GUEST_ZEROES, first, count, 0);
        break;
    case 'x':
        guest_do(sim, GUEST_ZEROES, first, count, PLOOP_PIO_FUA);
        break;
    case 'd':
        guest_do(sim, GUEST_DISCARD, first, count, 0);
        break;
    case 's':
        guest_do(sim, GUEST_FLUSH, 0, 0, 0);
        break;
    default:
        guest_do(sim, GUEST_BAT_WRITE, request->cluster, 1, 0);
    }
}

/* Do `steps` steps of the backend, or all there are. Returns whether everything is at rest then. */
static bool wait_for(struct sim *sim, uint32_t steps)
{
    while (steps-- > 0 && backend_step(&sim->backend)) {
    }
    if (sim->backend.in_flight)
        return false;
    session_drain(sim);
    return true;
}

static void read_all(struct sim *sim)
{
    sim->no_cuts = true; /* reads change nothing */
    guest_do(sim, GUEST_READ, sim->image.hot[0] * (uint64_t)sim->image.cluster_sectors,
             (uint64_t)BOUNDED_CLUSTERS * sim->image.cluster_sectors, 0);
    session_drain(sim);
    sim->no_cuts = false;
}

void sequence_play(const struct world *world, struct sequence *sequence,
                   struct bounded_judge *judge)
{
    char line[256], text[128], stack;
    sequence_print(world, sequence, text, sizeof(text));
    snprintf(line, sizeof(line),
             "sim --bounded %" PRIu32 " --base %s --variants %" PRIu32 " --only '%s'",
             sequence->length ? sequence->length : 1, base_name(world->base), world->variant, text);
    report_set_replay(line);
    alarm(RUN_SECONDS_MAX);
    struct sim *sim = start(world);
    sim->backend.stack = &stack;
    sim->no_cuts = sequence->length > 0;
    sim_make_files(sim);
    int result = session_open(sim, SESSION_PLAIN);
    if (result)
        violation("contract", "open gives %d", result);
    for (uint32_t i = 0; i < sequence->length; i++) {
        bool last = i + 1 == sequence->length;
        sim->no_cuts = !last;
        submit(sim, &world->alphabet.requests[sequence->requests[i]]);
        if (!last)
            sequence->rested[i] = wait_for(sim, sequence->gaps[i]);
    }
    session_drain(sim);
    read_all(sim);
    session_close(sim);
    judge->counts->runs++;
    bounded_judge_cuts(judge, sim);
    end(sim);
}
