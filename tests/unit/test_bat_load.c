/* SPDX-License-Identifier: MIT */
/*
 * Maps are loaded and checked in runs. Here what is found must be what a look at one entry after
 * the other finds, whatever mixture of runs, holes, duplicates and nonsense the map is.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dev/dev.h"
#include "image/bat_run.h"
#include "image_fixture.h"
#include "run_tests.h"

enum { ENTRIES = 3000, HOSTS = 2500, HOSTS_FAR = 1 << 24, WINDOW = 1 << 23, SECTORS = 8 };

struct model {
    struct geometry geometry;
    uint64_t file_size;
    uint32_t found[ENTRIES];    /* what the file has */
    uint32_t expected[ENTRIES]; /* what a read-only device has */
    uint64_t judged, duplicates, owners, used_end;
};

static uint64_t state = 1;

static uint32_t draw(uint32_t below)
{
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((state >> 32) % below);
}

static uint32_t step_of(const struct model *model)
{
    return (uint32_t)(model->geometry.cluster_size / model->geometry.entry_unit);
}

static uint32_t entry_of(const struct model *model, uint32_t place)
{
    uint32_t first = (uint32_t)(model->geometry.data_start / model->geometry.entry_unit);
    return first + place * step_of(model);
}

/* A run of `length` from `at` on, of one of the kinds that an image may hold. */
static void fill(struct model *model, uint32_t at, uint32_t length, uint32_t hosts)
{
    uint32_t step = step_of(model), kind = draw(10), first = entry_of(model, draw(hosts));
    uint32_t from = at ? draw(at) : 0, place = draw(length + 2);
    switch (kind) {
    case 0:
        first = entry_of(model, hosts) - place * step; /* over the end of the file, or up to it */
        break;
    case 1:
        first = UINT32_MAX - place * step; /* over the highest number */
        break;
    case 2:
        first += draw(step); /* off the grid in version 1 */
        break;
    case 3:
        first = entry_of(model, 0) - place * step; /* from before the data area on */
        break;
    case 7:
        first = hosts > WINDOW ? entry_of(model, WINDOW - place) : first; /* over a window's end */
        break;
    default:
        break;
    }
    for (uint32_t i = 0; i < length; i++) {
        uint32_t *entry = &model->found[at + i];
        *entry = kind == 4   ? 0
                 : kind == 5 ? model->found[from + i % (at - from + 1)] /* the same once more */
                 : kind == 6 ? entry_of(model, draw(hosts))
                             : first + i * step;
    }
}

/* Every place at most once, in runs. */
static void fill_cleanly(struct model *model, uint32_t hosts)
{
    uint32_t place = 0;
    for (uint32_t i = 0; i < ENTRIES; i++) {
        place += draw(100) == 0 ? draw(9) : 0;
        model->found[i] = place < hosts && draw(60) ? entry_of(model, place++) : 0;
    }
    for (uint32_t i = 0; i < draw(40); i++) {
        uint32_t a = draw(ENTRIES), b = draw(ENTRIES), entry = model->found[a];
        model->found[a] = model->found[b];
        model->found[b] = entry;
    }
}

static void judge(struct model *model, uint32_t hosts)
{
    uint8_t *owned = calloc(hosts, 1);
    for (uint32_t i = 0; i < ENTRIES; i++) {
        uint32_t entry = model->found[i];
        model->expected[i] = entry ? BAT_ENTRY_BAD : 0;
        if (entry == 0) {
            continue;
        }
        if (geometry_judge_entry(&model->geometry, model->file_size, entry) != ENTRY_GOOD) {
            model->judged++;
            continue;
        }
        uint64_t place = geometry_host(&model->geometry, entry).n;
        place -= geometry_host_first(&model->geometry);
        must(place < hosts);
        if (owned[place]) {
            model->duplicates++;
            continue;
        }
        owned[place] = 1;
        model->owners++;
        model->expected[i] = entry;
        model->used_end = place >= model->used_end ? place + 1 : model->used_end;
    }
    free(owned);
}

static void make(struct model *model, struct fixture *fixture, uint32_t hosts, bool is_clean)
{
    uint32_t version = 1 + draw(2);
    const struct image_plan plan = {.version = version,
                                    .cluster_sectors = SECTORS,
                                    .entries = ENTRIES,
                                    .host_clusters = hosts == HOSTS_FAR ? 1 : hosts,
                                    .map = MAP_NONE};
    fixture_open_image(fixture, &plan);
    uint64_t start = image_data_start(fixture->bytes);
    *model = (struct model){
        .geometry = {.cluster_size = SECTORS * SECTOR_SIZE,
                     .disk_size = (uint64_t)ENTRIES * SECTORS * SECTOR_SIZE,
                     .data_start = start,
                     .entry_unit = version == 1 ? SECTOR_SIZE : SECTORS * SECTOR_SIZE,
                     .bat_entries = ENTRIES},
        .file_size = start + (uint64_t)hosts * SECTORS * SECTOR_SIZE,
    };
    fixture->claimed_size = hosts == HOSTS_FAR ? model->file_size : 0;
    if (is_clean) {
        fill_cleanly(model, hosts);
    } else {
        for (uint32_t i = 0, length; i < ENTRIES; i += length) {
            length = draw(4) ? 1 + draw(5) : 1 + draw(1500);
            length = length < ENTRIES - i ? length : ENTRIES - i;
            fill(model, i, length, hosts);
        }
    }
    for (uint32_t i = 0; i < ENTRIES; i++) {
        image_set_entry(fixture->bytes, i, model->found[i]);
    }
    judge(model, hosts);
}

static void check_device(const struct model *model, struct fixture *fixture, bool read_only)
{
    struct ploop_dev_config config;
    ploop_dev *dev;
    bool is_good = model->judged + model->duplicates == 0;
    ploop_dev_config_init(&config, sizeof(config));
    config.flags = read_only ? PLOOP_DEV_READ_ONLY : 0;
    ck_assert_int_eq(ploop_dev_open(&fixture->file, 1, &config, &dev),
                     read_only || is_good ? 0 : -EUCLEAN);
    if (!read_only && !is_good) {
        return;
    }
    const struct bat *bat = dev_bat(dev);
    uint32_t mapped[4] = {0};
    for (uint32_t i = 0; i < ENTRIES; i++) {
        uint32_t entry = bat_entry(bat, (struct guest_cluster){i});
        must_msg(entry == model->expected[i], "BAT[%u]: %u is %u", i, model->found[i], entry);
        mapped[geometry_page_of((struct guest_cluster){i})] += entry && entry != BAT_ENTRY_BAD;
    }
    for (uint32_t page = 0; page < bat->page_count; page++) {
        ck_assert_uint_eq(bat->pages[page].mapped, mapped[page]);
    }
    ck_assert_uint_eq(bat->stats.mapped, model->owners);
    if (space_map_is_whole(&bat->alloc.map)) {
        const struct space_map *map = &bat->alloc.map;
        ck_assert_uint_eq(space_map_count(map, FREE_UNKNOWN),
                          map->file_end - map->first - model->owners);
        ck_assert_uint_eq(space_map_used_end(map), map->first + model->used_end);
    }
    ck_assert_int_eq(ploop_dev_close(dev), 0);
}

static void check_findings(const struct model *model, struct fixture *fixture, uint32_t hosts)
{
    struct check_outcome outcome;
    run_check(fixture, 0, &outcome);
    ck_assert_int_eq(outcome.error, 0);
    ck_assert_uint_eq(outcome.kinds[PLOOP_CHECK_ENTRY_RANGE] +
                          outcome.kinds[PLOOP_CHECK_ENTRY_GRID],
                      model->judged);
    ck_assert_uint_eq(outcome.kinds[PLOOP_CHECK_ENTRY_DUPLICATE], model->duplicates);
    ck_assert_uint_eq(outcome.result.mapped, model->owners);
    ck_assert_uint_eq(outcome.result.leaks, hosts - model->owners);
}

static void try_images(int count, uint32_t hosts, bool is_clean)
{
    static struct model model;
    static struct fixture fixture;
    for (int i = 0; i < (is_instrumented() ? count / 10 + 1 : count); i++) {
        make(&model, &fixture, hosts, is_clean);
        ck_assert(!is_clean || model.judged + model.duplicates == 0);
        check_findings(&model, &fixture, hosts);
        check_device(&model, &fixture, true);
        check_device(&model, &fixture, false);
        fixture_close(&fixture);
    }
}

START_TEST(any_mixture_is_judged_entry_by_entry)
{
    try_images(200, HOSTS, false);
}
END_TEST

START_TEST(a_good_map_is_loaded_whole)
{
    try_images(100, HOSTS, true);
}
END_TEST

/* Not every host cluster has a bit then. */
START_TEST(a_file_far_larger_than_its_map)
{
    try_images(30, HOSTS_FAR, false);
    try_images(10, HOSTS_FAR, true);
}
END_TEST

/* A file can be so large that both ends of a run are good and its middle is not. */
START_TEST(a_run_over_the_highest_number_is_not_good)
{
    const struct good_entries good = {.first = 9, .last = UINT32_MAX - 1, .step = 1};
    uint32_t run[20];
    for (uint32_t i = 0; i < 20; i++) {
        run[i] = UINT32_MAX - 3 + i;
    }
    ck_assert_uint_eq(bat_run_length(run, 20, 1), 20);
    ck_assert(good_entries_have(&good, run[0]) && good_entries_have(&good, run[19]));
    ck_assert(!bat_run_is_good(&good, run, 20));
    ck_assert(bat_run_is_good(&good, run, 3));
    ck_assert(!bat_run_is_good(&good, run, 4));
    ck_assert(bat_run_is_good(&good, run + 13, 7));
    ck_assert(!bat_run_is_good(&good, run + 12, 8));
}
END_TEST

START_TEST(runs_end_where_the_rule_does)
{
    uint32_t entries[200];
    for (int i = 0; i < 20000; i++) {
        uint32_t count = 1 + draw(200), length = 1 + draw(count), step = 1 + draw(2) * 7,
                 first = draw(3) ? draw(1000) : 0 - draw(100);
        for (uint32_t n = 0; n < count; n++) {
            entries[n] = first ? first + n * step : 0;
        }
        if (length < count) {
            entries[length] += 1 + draw(3) * step;
        }
        must(bat_run_length(entries, count, step) == length);
    }
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("bat_load");
    tcase_add_test(tests, any_mixture_is_judged_entry_by_entry);
    tcase_add_test(tests, a_good_map_is_loaded_whole);
    tcase_add_test(tests, a_file_far_larger_than_its_map);
    tcase_add_test(tests, a_run_over_the_highest_number_is_not_good);
    tcase_add_test(tests, runs_end_where_the_rule_does);
    tcase_set_timeout(tests, 120);
    return run_case("bat_load", tests);
}
