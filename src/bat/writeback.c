/* SPDX-License-Identifier: MIT */
/*
 * Images of BAT pages on their way to the disk.
 *
 * An image is a frozen run of neighbouring pages, with page 0's header in its first 64 bytes. Its
 * states:
 *
 *     FREE --freeze--> WAITS for its barrier --SYNC done--> SENT to the backend --> FREE
 *             (R1)  \__________ no barrier needed _______/                          ^
 *                        \_______ the SYNC failed ________________________________/
 *
 *     FREE again: its pages are written, or have failed.
 *
 *  1. The barrier is computed from the entries that are in the image, at the moment it is taken: a
 *     change after that moment belongs to the next generation and to the next image's barrier.
 *  2. A page is in at most one image (R16), because only pages that are not under WRITEBACK are on
 *     the due list.
 *  3. An image covers its pages' part of the BAT area, in whole sectors, and not a byte more (R17).
 *  4. Once a SYNC has failed no image is taken any more, and none is sent, nor sent on where a part
 *     of it went out before (R6).
 *  5. The memory is taken at open; when all images are busy the due list waits.
 */
#include "bat/inside.h"

#include "util/bytes.h"
#include "util/probe.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void assert_image(const struct page_image *image)
{
#ifndef NDEBUG
    const struct bat *bat = image->bat;
    assert((image->state == IMAGE_FREE) == (image->count == 0));
    assert(image->count <= IMAGE_PAGES && image->first + image->count <= bat->page_count);
    for (uint32_t i = 0; i < image->count; i++) {
        const struct bat_page *page = &bat->pages[image->first + i];
        assert(page_is(page, PLOOP_BAT_PAGE_WRITEBACK) && image->gen[i] + 1 == page->gen);
    }
#else
    (void)image;
#endif
}

/* The one place where an image's state changes. */
static void set_image_state(struct page_image *image, enum image_state next)
{
    assert(next == IMAGE_SENT ? image->state == IMAGE_WAITS : image->state != next);
    image->state = next;
    assert_image(image);
}

int writeback_init(struct bat *bat)
{
    list_init(&bat->images_free);
    list_init(&bat->images_busy);
    list_init(&bat->due);
    list_init(&bat->unsynced);
    for (uint32_t i = 0; i < IMAGE_COUNT; i++) {
        struct page_image *image = &bat->images[i];
        void *bytes = NULL;
        if (posix_memalign(&bytes, BAT_PAGE_SIZE, (size_t)IMAGE_PAGES * BAT_PAGE_SIZE)) {
            return -ENOMEM;
        }
        image->bytes = bytes;
        image->bat = bat;
        channel_io_init(&image->io, bat->channel);
        image->io.stop = &bat->syncer.tripped;
        list_append(&bat->images_free, &image->link);
    }
    return 0;
}

void writeback_free(struct bat *bat)
{
    for (uint32_t i = 0; i < IMAGE_COUNT; i++) {
        free(bat->images[i].bytes);
        bat->images[i].bytes = NULL;
    }
}

/* One page's bytes as they are now. Returns how many. */
static uint32_t copy_page(const struct bat *bat, uint32_t page, uint8_t *bytes)
{
    uint32_t length = geometry_page_bytes(&bat->geometry, page);
    uint32_t first = geometry_page_first(page),
             entries = geometry_page_entries(&bat->geometry, page);
    uint8_t *at = bytes;
    if (page == 0) {
        header_encode(&bat->header, bytes);
        at += HEADER_SIZE;
    }
    for (uint32_t i = 0; i < entries; i++, at += 4) {
        store_le32(at, atomic_load_explicit(&bat->entries[first + i], memory_order_relaxed));
    }
    assert(at <= bytes + length && length <= BAT_PAGE_SIZE);
    memset(at, 0, (size_t)(bytes + length - at));
    return length;
}

static bool can_freeze(const struct bat *bat, uint32_t page)
{
    return page < bat->page_count && page_is(&bat->pages[page], PAGE_DUE) &&
           !page_is(&bat->pages[page], PLOOP_BAT_PAGE_WRITEBACK);
}

/* Take the run of due pages around one of them. Returns the barrier. */
static struct sync_number freeze(struct bat *bat, struct page_image *image, uint32_t page)
{
    uint32_t first = page, end = page + 1;
    while (first > 0 && end - first < IMAGE_PAGES && can_freeze(bat, first - 1)) {
        first--;
    }
    while (end - first < IMAGE_PAGES && can_freeze(bat, end)) {
        end++;
    }
    image->first = first;
    image->count = end - first;
    struct sync_number barrier = SYNC_NONE;
    uint32_t length = 0;
    for (uint32_t i = 0; i < image->count; i++) {
        struct bat_page *member = &bat->pages[first + i];
        assert(length == i * BAT_PAGE_SIZE);
        length += copy_page(bat, first + i, image->bytes + length);
        barrier = sync_later(barrier, member->barrier);
        image->gen[i] = member->gen;
        page_frozen(bat, first + i);
    }
    image->iov = (struct iovec){image->bytes, length};
    set_image_state(image, IMAGE_WAITS);
    return barrier;
}

static void image_done(struct page_image *image, int result)
{
    struct bat *bat = image->bat;
    uint32_t members = image->count;
    assert_image(image);
    for (uint32_t i = 0; i < members; i++) {
        if (result) {
            page_write_failed(bat, image->first + i, result);
        } else {
            page_written(bat, image->first + i, image->gen[i]);
        }
    }
    image->count = 0;
    set_image_state(image, IMAGE_FREE);
    list_remove(&image->link);
    list_append(&bat->images_free, &image->link);
    for (uint32_t i = 0; i < members; i++) {
        durable_page_done(bat, image->first + i, image->gen[i], result);
        round_page_done(bat, image->first + i, image->gen[i], result);
    }
    if (result) {
        count(&bat->stats.page_write_failures, 1);
        bat->failed(bat->owner, result);
    }
}

static void image_written(struct channel_io *io, int result)
{
    image_done(container_of(io, struct page_image, io), result);
}

static void image_send(struct page_image *image)
{
    struct bat *bat = image->bat;
    set_image_state(image, IMAGE_SENT);
    count(&bat->stats.page_write_calls, 1);
    count(&bat->stats.page_writes, image->count);
    PROBE3(page_write, bat, image->first, image->count);
    struct iov_cursor cursor = {.iov = &image->iov, .count = 1};
    channel_transfer(&image->io, PLOOP_IO_WRITE, 0, cursor, (uint64_t)image->first * BAT_PAGE_SIZE,
                     image->iov.iov_len, image_written);
}

static void image_barrier_done(struct sync_wait *wait, int result)
{
    struct page_image *image = container_of(wait, struct page_image, barrier);
    assert(image->state == IMAGE_WAITS);
    if (result) {
        image_done(image, result);
    } else {
        image_send(image);
    }
}

void writeback_pump(struct bat *bat)
{
    while (!list_is_empty(&bat->due) && !list_is_empty(&bat->images_free) && !bat_latch(bat) &&
           !bat->channel->cut) {
        struct page_image *image =
            container_of(list_take_first(&bat->images_free), struct page_image, link);
        list_append(&bat->images_busy, &image->link);
        struct bat_page *page = container_of(bat->due.next, struct bat_page, due);
        struct sync_number barrier = freeze(bat, image, (uint32_t)(page - bat->pages));
        int wait = sync_wait_for(&bat->syncer, &image->barrier, barrier, image_barrier_done);
        assert(wait >= 0);
        if (wait == 0) {
            image_send(image);
        } else {
            count(&bat->stats.barriers, 1);
        }
    }
}
