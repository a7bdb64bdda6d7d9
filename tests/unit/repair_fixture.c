/* SPDX-License-Identifier: MIT */
#include "repair_fixture.h"

#include <check.h>
#include <stdio.h>
#include <string.h>

#include "oracle/oracle.h"
#include "util/bytes.h"

/* ---- images to repair ---- */

static void set_extension(struct fixture *fixture, uint32_t host, uint32_t bitmap_host,
                          bool transit)
{
    uint64_t start = image_data_start(fixture->bytes);
    struct extension_plan plan;

    store_le64(fixture->bytes + 56, (start + (uint64_t)host * CLUSTER) / 512);
    store_le32(fixture->bytes + 44, CLOSED);
    extension_begin(&plan, fixture->bytes + start + (uint64_t)host * CLUSTER, CLUSTER);
    extension_add_bitmap(&plan, (uint64_t)ENTRIES * 8, 8, 1,
                         (uint64_t[]){(start + (uint64_t)bitmap_host * CLUSTER) / 512});
    if (transit) {
        extension_add(&plan, 0x1122334455667788u, 2, "transit", 7);
    }
    extension_end(&plan);
}

void repair_make(struct fixture *fixture, enum scenario scenario, uint32_t version)
{
    static const uint32_t holes[] = {0,  3,    1,  9, 2, 2, 500,
                                     12, 1099, 11, 0, 0}; /* of 14: 0 3-7 9 12 13 are unowned */
    struct image_plan plan = {.version = version, .map = holes, .host_clusters = 14};

    if (scenario == UNCLEAN) {
        plan.map = NULL;
        plan.host_clusters = 5;
    }
    if (scenario == UNCLEAN || scenario == UNCLEAN_LEAKS || scenario == EVERYTHING) {
        plan.in_use = IN_USE;
        plan.extension_sector = 99999; /* void */
        plan.flags = scenario != UNCLEAN;
    }
    if (scenario == BEYOND || scenario == EVERYTHING) {
        plan.sectors = (uint64_t)1000 * 8 - 3;
    }
    fixture_open_image(fixture, &plan);

    uint8_t *image = fixture->bytes;

    if (scenario == DUPLICATES || scenario == EVERYTHING || scenario == EXTENSION_ENTRIES) {
        image_set_entry(image, 7, image_entry(image, 0));
        image_set_entry(image, 900, image_entry(image, 500));
        image_set_entry(image, 1050, image_entry(image, 0));
    }
    if (scenario == BAD_ENTRIES || scenario == EVERYTHING) {
        image_set_entry(image, 8, 0xFFFFFFFF);
        image_set_entry(image, 9, 1);
        image_set_entry(image, 901, image_entry_for(image, 14));
        image_set_entry(image, 902, version == 1 ? image_entry_for(image, 3) + 1 : 99999);
    }
    switch (scenario) {
    case EXTENSION_LEAKS:
        set_extension(fixture, 12, 13, false);
        break;
    case EXTENSION_INSIDE: /* it moves, and something else to where it was */
        set_extension(fixture, 5, 13, false);
        break;
    case EXTENSION_ENTRIES:
        set_extension(fixture, 13, 4, true);
        break;
    case BITMAP_BAD:
        set_extension(fixture, 12, 1, true);
        break;
    case EXTENSION_BAD:
    case VOID_EXTENSION:
        set_extension(fixture, 12, 13, false);
        image[image_data_start(image) + 12 * CLUSTER + 300] ^= (uint8_t)(scenario == EXTENSION_BAD);
        store_le32(image + 44, scenario == EXTENSION_BAD ? CLOSED : 0);
        break;
    default:
        break;
    }
}

/* ---- the guest's data ---- */

void read_content(const uint8_t *bytes, uint64_t size, struct content *content)
{
    struct oracle_memory memory = {bytes, size};
    struct oracle oracle;
    char message[160];
    uint8_t cluster[CLUSTER];

    ck_assert_int_eq(oracle_open(&oracle, oracle_read_memory, &memory, size, message), ORACLE_OK);
    memset(content, 0, sizeof(*content));
    for (uint64_t i = 0; i < (oracle.disk_sectors + 7) / 8; i++) {
        content->status[i] = (int8_t)oracle_read_cluster(&oracle, i, cluster);
        if (content->status[i] == 1) {
            content->first[i] = cluster[0];
            for (uint64_t at = 1; at < CLUSTER && at < oracle.disk_sectors * 512 - i * CLUSTER;
                 at++) {
                if (cluster[at] != cluster[0]) {
                    ck_abort_msg("guest cluster %llu is a mix", (unsigned long long)i);
                }
            }
        }
    }
    oracle_close(&oracle);
}

void assert_kept(const struct content *before, const struct content *after, const char *what)
{
    for (uint32_t i = 0; i < ENTRIES; i++) {
        bool same = before->status[i] == after->status[i] && before->first[i] == after->first[i];
        bool copied = ((i == 7 || i == 1050) && after->first[i] == before->first[0]) ||
                      (i == 900 && after->first[i] == before->first[500]);

        if (!same && (before->status[i] != -1 || (after->status[i] == 1 && !copied))) {
            ck_abort_msg("%s: guest cluster %u was %d/%02x, is %d/%02x", what, i, before->status[i],
                         before->first[i], after->status[i], after->first[i]);
        }
    }
}
