/* SPDX-License-Identifier: MIT */
/*
 * Opening read-only, for rescue. Whatever the entries are, a guest cluster reads as its own bytes,
 * as zeros where nothing is mapped, or as EIO, also for what the file's end has cut off; never as
 * zeros for a mapped cluster, never as another cluster's bytes. The test computes the expected
 * result itself, straight from the format's description, and every word of the data area contains
 * its own place in the file.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <ploop/ploop.h>

#include "image_fixture.h"
#include "run_tests.h"
#include "util/bytes.h"

enum { GUESTS = 40, HOSTS = 8, RUNS = 2000, SHARE_IF_SLOW = 100, CLUSTER_MAX = 63 * 512 };

enum expected { ZEROS, OWN_BYTES, BAD };

struct image {
    struct fixture fixture;
    uint32_t version;
    uint64_t cluster, data_start, unit; /* bytes */
    uint64_t random;
    ploop_dev *dev;
};

static uint64_t draw(struct image *image, uint64_t end)
{
    image->random ^= image->random << 13;
    image->random ^= image->random >> 7;
    image->random ^= image->random << 17;
    return image->random % end;
}

static uint32_t entry_at(const struct image *image, uint64_t offset)
{
    return (uint32_t)(offset / image->unit);
}

/* Draw an entry of any kind. */
static uint32_t draw_entry(struct image *image)
{
    uint64_t host = image->data_start + draw(image, HOSTS) * image->cluster;
    uint64_t half = image->cluster / 2 / 512 * 512;

    switch (draw(image, 12)) {
    case 0:
    case 1:
        return 0;
    case 2:
        return entry_at(
            image, draw(image, image->data_start)); /* the header, the BAT, the gap behind it */
    case 3:
        return entry_at(image, image->data_start - 512);
    case 4:
        return entry_at(image, image->fixture.size + draw(image, 3) * image->cluster);
    case 5:
        return entry_at(image, image->fixture.size - half); /* half past an odd end */
    case 6:
        return (uint32_t[]){UINT32_MAX, UINT32_MAX - 1, 0x80000000, 0x7FFFFFFF}[draw(image, 4)];
    case 7:
        return entry_at(image, host + half); /* half over the next cluster, in version 1 */
    case 8:
        return entry_at(image, host) + 1;
    default:
        return entry_at(image, host); /* of 40, many share one */
    }
}

static bool is_good(const struct image *image, uint32_t entry)
{
    uint64_t offset = entry * image->unit;

    return entry != UINT32_MAX && offset >= image->data_start &&
           (offset - image->data_start) % image->cluster == 0 && offset < image->fixture.size;
}

static enum expected expect(const struct image *image, uint32_t guest)
{
    uint32_t entry = image_entry(image->fixture.bytes, guest);

    if (entry == 0) {
        return ZEROS;
    }
    for (uint32_t i = 0; i < guest; i++) {
        if (image_entry(image->fixture.bytes, i) == entry) {
            return BAD; /* another's, or bad for both */
        }
    }
    return is_good(image, entry) ? OWN_BYTES : BAD;
}

static void begin(struct image *image, uint32_t version, uint32_t cluster_sectors, uint64_t seed)
{
    struct image_plan plan = {.version = version,
                              .cluster_sectors = cluster_sectors,
                              .entries = GUESTS,
                              .host_clusters = HOSTS,
                              .map = MAP_NONE};

    memset(image, 0, sizeof(*image));
    image->random = seed * UINT64_C(0x9E3779B97F4A7C15) | 1;
    image->version = version;
    image->cluster = (uint64_t)cluster_sectors * 512;
    image->unit = version == 1 ? 512 : image->cluster;
    fixture_open_image(&image->fixture, &plan);
    image->data_start = image_data_start(image->fixture.bytes);
    image->fixture.size -=
        draw(image, 2) * (image->cluster / 2); /* the last host cluster may be cut */
    for (uint64_t at = image->data_start; at + 8 <= image->fixture.size; at += 8) {
        store_le64(image->fixture.bytes + at, at);
    }
    for (uint32_t guest = 0; guest < GUESTS; guest++) {
        image_set_entry(image->fixture.bytes, guest, draw_entry(image));
    }
}

/* A part of one guest cluster, as read. */
static void expect_bytes(const struct image *image, uint32_t guest, uint64_t inside,
                         const uint8_t *bytes, uint64_t length)
{
    uint64_t place = expect(image, guest) == ZEROS
                         ? 0
                         : image_entry(image->fixture.bytes, guest) * image->unit + inside;

    for (uint64_t at = 0; at < length; at += 8) {
        uint64_t word = load_le64(bytes + at);

        must_msg(word == (place ? place + at : 0),
                 "guest cluster %u + %" PRIu64 " reads as from byte %" PRIu64, guest, inside + at,
                 word);
    }
}

/* The file ends inside the cluster, before this part of it does. */
static bool is_missing(const struct image *image, uint32_t guest, uint64_t inside, uint64_t length)
{
    return expect(image, guest) == OWN_BYTES &&
           image_entry(image->fixture.bytes, guest) * image->unit + inside + length >
               image->fixture.size;
}

/* Read from any sector, sometimes into the next cluster: the whole range or EIO. */
static void read_some(struct image *image, uint32_t guest, uint64_t inside, uint64_t length)
{
    static uint8_t bytes[CLUSTER_MAX];
    uint64_t first = length < image->cluster - inside ? length : image->cluster - inside;
    bool bad = expect(image, guest) == BAD || (length > first && expect(image, guest + 1) == BAD);
    bad |= is_missing(image, guest, inside, first) ||
           (length > first && is_missing(image, guest + 1, 0, length - first));
    int64_t got = ploop_dev_pread(image->dev, bytes, length, guest * image->cluster + inside);

    must(got == (bad ? -EIO : (int64_t)length));
    if (!bad) {
        expect_bytes(image, guest, inside, bytes, first);
        if (length > first) {
            expect_bytes(image, guest + 1, 0, bytes + first, length - first);
        }
    }
}

static void look_up(struct image *image, uint32_t guest)
{
    struct ploop_extent extent = {.size = sizeof(extent)};
    int error = ploop_bat_lookup(image->dev, guest * image->cluster, image->cluster, &extent);

    must(error == (expect(image, guest) == BAD ? -EIO : 0));
    if (!error) {
        must(extent.state ==
             (expect(image, guest) == OWN_BYTES ? PLOOP_EXTENT_MAPPED : PLOOP_EXTENT_ZERO));
    }
    if (!error && extent.state == PLOOP_EXTENT_MAPPED) {
        must(extent.host_offset == image_entry(image->fixture.bytes, guest) * image->unit);
    }
}

static uint64_t rescue(struct image *image, uint32_t flags)
{
    struct ploop_dev_config config;
    struct ploop_dev_info info = {.size = sizeof(info)};
    uint64_t good = 0, sectors = image->cluster / 512;

    ploop_dev_config_init(&config, sizeof(config));
    config.flags = PLOOP_DEV_READ_ONLY | flags;
    must(ploop_dev_open(&image->fixture.file, 1, &config, &image->dev) == 0);
    for (uint32_t guest = 0; guest < GUESTS; guest++) {
        uint64_t from = draw(image, sectors), length = 1 + draw(image, sectors);

        length = guest == GUESTS - 1 && from + length > sectors ? sectors - from : length;
        read_some(image, guest, 0, image->cluster);
        read_some(image, guest, from * 512, length * 512);
        look_up(image, guest);
        good += expect(image, guest) == OWN_BYTES;
    }
    must(ploop_dev_info(image->dev, &info) == 0);
    must(info.clusters_mapped == good);
    must(ploop_dev_close(image->dev) == 0);
    return good;
}

static const struct {
    uint32_t version, cluster_sectors;
} kinds[] = {{1, 1}, {1, 8}, {1, 63}, {2, 1}, {2, 8}, {2, 63}};

START_TEST(any_entries_at_all)
{
    uint64_t good = 0, runs = RUNS / test_share(SHARE_IF_SLOW);

    for (uint64_t seed = 1; seed <= runs; seed++) {
        static struct image image;

        begin(&image, kinds[_i].version, kinds[_i].cluster_sectors, seed);

        uint8_t *before = malloc(image.fixture.size);

        memcpy(before, image.fixture.bytes, image.fixture.size);
        good += rescue(&image, seed % 2 ? 0 : PLOOP_DEV_NO_FAST_PATH);
        ck_assert_uint_eq(image.fixture.log_size, 0);
        ck_assert_mem_eq(before, image.fixture.bytes, image.fixture.size);
        free(before);
        fixture_close(&image.fixture);
    }
    ck_assert_uint_ge(good, runs * 3); /* of 8 that could be good */
}
END_TEST

/*
 * A file so large that its host clusters have no bits each: duplicates are found by sorting, and
 * are not mapped, as elsewhere. 1 GiB in clusters of a sector; guest clusters 0, 3 and 5 share one,
 * so do 1 and 4.
 */
START_TEST(duplicates_in_a_file_of_any_size)
{
    enum { HIGH = 2000000, SECTORS = 2097152 };
    static const uint32_t entries[] = {HIGH, HIGH + 7, 0, HIGH, HIGH + 7, HIGH, 5};
    static const int bad[] = {0, 0, 0, 1, 1, 1, 0};
    struct ploop_dev_info info = {.size = sizeof(info)};
    struct ploop_bat_page_info page = {.size = sizeof(page)};
    struct ploop_dev_config config;
    ploop_file *file;
    ploop_dev *dev;
    uint64_t size;
    uint8_t *image = image_build(
                &(struct image_plan){.cluster_sectors = 1, .entries = GUESTS, .map = MAP_NONE},
                &size),
            sector[512];

    for (uint32_t guest = 0; guest < 7; guest++) {
        image_set_entry(image, guest, entries[guest]);
    }
    ck_assert_int_eq(ploop_file_create_memory((uint64_t)SECTORS * 512, &file), 0);
    ck_assert_int_eq(ploop_file_pwrite(file, image, size, 0), (int64_t)size);
    for (uint32_t guest = 0; guest < 7; guest++) {
        memset(sector, (int)(entries[guest] % 251), sizeof(sector));
        ck_assert(!entries[guest] ||
                  ploop_file_pwrite(file, sector, 512, (uint64_t)entries[guest] * 512) == 512);
    }
    ploop_dev_config_init(&config, sizeof(config));
    ck_assert_int_eq(ploop_dev_open(&file, 1, &config, &dev), -EUCLEAN);
    config.flags = PLOOP_DEV_READ_ONLY;
    ck_assert_int_eq(ploop_dev_open(&file, 1, &config, &dev), 0);
    for (uint32_t guest = 0; guest < 7; guest++) {
        ck_assert_int_eq(ploop_dev_pread(dev, sector, 512, guest * 512), bad[guest] ? -EIO : 512);
        ck_assert(bad[guest] ||
                  (sector[0] == entries[guest] % 251 && sector[511] == entries[guest] % 251));
    }
    ck_assert_int_eq(ploop_dev_info(dev, &info), 0);
    ck_assert_uint_eq(info.clusters_mapped, 3);
    ck_assert_int_eq(ploop_bat_page_info(dev, 0, &page), 0);
    ck_assert_uint_eq(page.mapped, 3);
    ck_assert_int_eq(ploop_dev_close(dev), 0);
    ploop_file_close(file);
    free(image);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("rescue");

    tcase_add_loop_test(tests, any_entries_at_all, 0, sizeof(kinds) / sizeof(*kinds));
    tcase_add_test(tests, duplicates_in_a_file_of_any_size);
    tcase_set_timeout(tests, 120);
    return run_case("rescue", tests);
}
