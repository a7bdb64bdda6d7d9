/* SPDX-License-Identifier: MIT */
/*
 * The engine's small parts: bitmaps, lists, iovec cursors, the deadline heap, turns.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "bat/deadline.h"
#include "image_fixture.h"
#include "run_tests.h"
#include "util/bitmap.h"
#include "util/growing.h"
#include "util/iov.h"
#include "util/list.h"
#include "util/numbers.h"
#include "util/work.h"

static uint64_t random_state = 1;

static uint32_t draw(uint32_t below)
{
    random_state = random_state * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (uint32_t)(random_state >> 33) % below;
}

static int steps(int native)
{
    return is_instrumented() ? native / 25 : native;
}

/* ---- bitmaps ---- */

START_TEST(a_bitmap_is_an_array_of_bits)
{
    enum { BITS = 517 };
    struct bitmap bitmap;
    bool model[BITS] = {false};
    ck_assert_int_eq(bitmap_init(&bitmap, BITS), 0);
    for (int i = 0; i < steps(3000); i++) {
        uint32_t bit = draw(BITS);
        if (draw(2)) {
            ck_assert_int_eq(bitmap_set(&bitmap, bit), !model[bit]);
            model[bit] = true;
        } else {
            ck_assert_int_eq(bitmap_clear(&bitmap, bit), model[bit]);
            model[bit] = false;
        }
        uint32_t from = draw(BITS), end = from + draw(BITS - from + 1), next = from, run = from;
        while (next < end && !model[next]) {
            next++;
        }
        ck_assert_uint_eq(bitmap_next_set(&bitmap, from, end), next);
        while (run < BITS && model[run] && run - from < 70) {
            run++;
        }
        ck_assert_uint_eq(bitmap_run(&bitmap, from, 70), run - from);
        ck_assert_int_eq(bitmap_test(&bitmap, from), model[from]);
    }
    ck_assert_uint_eq(bitmap_next_set(&bitmap, 100, 50), 50);
    bitmap_free(&bitmap);
}
END_TEST

/* Few members far apart, many side by side, in a set of several levels that grows. */
START_TEST(a_set_of_numbers_finds_the_next)
{
    enum { MOST = 1 << 19, AT_FIRST = 70000 };
    struct numbers numbers;
    static bool model[MOST];
    uint64_t end = AT_FIRST, count = 0;
    memset(model, 0, sizeof(model));
    ck_assert_int_eq(numbers_init(&numbers, end, MOST), 0);
    for (int i = 0; i < steps(4000); i++) {
        uint64_t from = draw((uint32_t)end), run = draw(20) ? 1 : draw(9000), till = from + run;
        till = till < end ? till : end;
        bool put = draw(5) < 2, fits = true;
        for (uint64_t n = from; n < till; n++) {
            fits &= model[n] != put;
        }
        ck_assert_int_eq(
            put ? numbers_put(&numbers, from, till) : numbers_take(&numbers, from, till), fits);
        for (uint64_t n = from; n < till && fits; n++) {
            model[n] = put;
            count += put ? 1 : UINT64_MAX;
        }
        ck_assert_uint_eq(numbers.count, count);
        uint64_t start = draw((uint32_t)end), last = start + draw((uint32_t)(end - start)),
                 next = start;
        while (next < last && !model[next]) {
            next++;
        }
        ck_assert_uint_eq(numbers_next(&numbers, start, last), next);
        if (i % steps(400) == 0 && end < MOST) {
            end = end + MOST / 8 < MOST ? end + MOST / 8 : MOST;
            ck_assert_int_eq(numbers_extend(&numbers, end), 0);
        }
    }
    numbers_free(&numbers);
}
END_TEST

START_TEST(a_range_of_bits_is_set)
{
    static const uint64_t borders[] = {0, 1, 63, 64, 65, 128, 130, 200};
    enum { BORDERS = sizeof(borders) / sizeof(borders[0]) };
    for (size_t i = 0; i < (size_t)BORDERS * BORDERS; i++) {
        uint64_t from = borders[i / BORDERS], end = borders[i % BORDERS];
        if (from > end) {
            continue;
        }
        struct bitmap bitmap;
        ck_assert_int_eq(bitmap_init(&bitmap, 200), 0);
        ck_assert(bitmap_set_range(&bitmap, from, end));
        ck_assert_uint_eq(bitmap_next_set(&bitmap, 0, 200), from < end ? from : 200);
        ck_assert_uint_eq(bitmap_run(&bitmap, from, 1000), end - from);
        ck_assert_uint_eq(bitmap_next_set(&bitmap, end, 200), 200);
        ck_assert_int_eq(bitmap_set_range(&bitmap, from, end), from == end);
        for (uint64_t bit = from; bit < end; bit += 1 + (end - from) / 3) {
            bitmap_clear(&bitmap, bit); /* one that is missing: nothing is cleared */
            ck_assert(!bitmap_clear_range(&bitmap, from, end));
            ck_assert_uint_eq(bitmap_run(&bitmap, from, 1000), bit - from);
            ck_assert_uint_eq(bitmap_run(&bitmap, bit + 1, 1000), end - bit - 1);
            bitmap_set(&bitmap, bit);
        }
        ck_assert(from == 0 || bitmap_set(&bitmap, from - 1));
        ck_assert(end == 200 || bitmap_set(&bitmap, end));
        ck_assert(bitmap_clear_range(&bitmap, from, end));
        ck_assert_uint_eq(bitmap_next_set(&bitmap, from, 200), end);
        ck_assert(from == 0 || bitmap_test(&bitmap, from - 1));
        bitmap_free(&bitmap);
    }
    if (!is_instrumented()) { /* a sanitizer ends the program over such a size */
        struct bitmap huge;
        ck_assert_int_eq(bitmap_init(&huge, UINT64_MAX - 1), -ENOMEM);
        ck_assert_ptr_null(huge.words);
    }
}
END_TEST

/* ---- memory that grows ---- */

enum { MEGABYTE = 1 << 20 };

static void is_zero(const uint8_t *bytes, size_t from, size_t end)
{
    static const uint8_t zeros[4096];
    for (size_t i = from, length; i < end; i += length) {
        length = end - i < sizeof(zeros) ? end - i : sizeof(zeros);
        ck_assert_mem_eq(bytes + i, zeros, length);
    }
}

START_TEST(memory_grows_where_it_lies)
{
    struct growing growing;
    ck_assert_int_eq(growing_init(&growing, 100, (uint64_t)64 * MEGABYTE), 0);
    uint8_t *bytes = growing.memory;
    ck_assert_ptr_nonnull(bytes);
    ck_assert_uint_eq(growing.size, 100);
    is_zero(bytes, 0, 100);
    memset(bytes, 7, 100);
    size_t size = 100;
    while (size < MEGABYTE) {
        size_t larger = size + 1 + draw(50000);
        ck_assert_int_eq(growing_extend(&growing, larger), 0);
        ck_assert_ptr_eq(growing.memory, bytes);
        ck_assert_uint_eq(growing.size, larger);
        is_zero(bytes, size, larger);
        ck_assert_uint_eq(bytes[0], 7);
        ck_assert_uint_eq(bytes[size - 1], 7);
        memset(bytes + size, 7, larger - size);
        size = larger;
    }
    ck_assert_int_eq(growing_extend(&growing, size), 0);
    ck_assert_int_eq(growing_extend(&growing, (uint64_t)64 * MEGABYTE), 0);
    ck_assert_int_eq(growing_extend(&growing, (uint64_t)65 * MEGABYTE), -ENOMEM);
    ck_assert_uint_eq(growing.size, 64 * MEGABYTE);
    ck_assert_uint_eq(bytes[size - 1], 7);
    ck_assert_uint_eq(bytes[size], 0);
    growing_free(&growing);
    ck_assert_ptr_null(growing.memory);
    growing_free(&growing);
    ck_assert_int_eq(growing_init(&growing, 0, MEGABYTE), 0);
    ck_assert_int_eq(growing_extend(&growing, 10), 0);
    is_zero(growing.memory, 0, 10);
    growing_free(&growing);
}
END_TEST

/* It has as much as is needed now, zeros, and stays unchanged. */
static void cannot_grow(struct growing *growing)
{
    uint8_t *bytes = growing->memory;
    ck_assert_uint_eq(growing->size, 5000);
    ck_assert_uint_eq(growing->reserved, 0);
    is_zero(bytes, 0, 5000);
    memset(bytes, 7, 5000);
    ck_assert_int_eq(growing_extend(growing, 5001), -ENOMEM);
    ck_assert_int_eq(growing_extend(growing, 5000), 0);
    ck_assert_ptr_eq(growing->memory, bytes);
    ck_assert_uint_eq(growing->size, 5000);
    growing_free(growing);
}

START_TEST(memory_without_a_reservation_does_not_grow)
{
    struct growing growing;
    ck_assert_int_eq(growing_init(&growing, 5000, 5000), 0); /* it does not have to grow */
    cannot_grow(&growing);
    ck_assert_int_eq(growing_init(&growing, 5000, UINT64_MAX), 0); /* more than the format allows */
    cannot_grow(&growing);
    ck_assert_int_eq(growing_init(&growing, 5000, UINT64_C(1) << 62),
                     0); /* more memory than exists */
    cannot_grow(&growing);
    if (!is_instrumented()) { /* a sanitizer ends the program over such a size */
        ck_assert_int_eq(growing_init(&growing, UINT64_MAX, UINT64_MAX), -ENOMEM);
        ck_assert_int_eq(growing_init(&growing, UINT64_C(1) << 62, UINT64_MAX), -ENOMEM);
        ck_assert_ptr_null(growing.memory);
        struct rlimit limit = {.rlim_cur = UINT64_C(1) << 40, .rlim_max = UINT64_C(1) << 40};
        ck_assert_int_eq(setrlimit(RLIMIT_AS, &limit),
                         0); /* of this process, forked for the test */
        ck_assert_int_eq(growing_init(&growing, 5000, MEGABYTE), 0);
        cannot_grow(&growing);
    }
}
END_TEST

/* Filled in pieces, in order and not; what lies between stays zeros. */
START_TEST(memory_is_filled_in_pieces)
{
    enum { PIECE = 5000 };
    static uint8_t piece[PIECE];
    static const size_t at[] = {0, 2 * MEGABYTE - 100, 7 * MEGABYTE + 11};
    const size_t size = 9 * MEGABYTE;
    memset(piece, 0x5a, sizeof(piece));
    for (size_t limit = size; limit <= 2 * size; limit += size) { /* not reserved, and reserved */
        struct growing growing;
        ck_assert_int_eq(growing_init(&growing, size, limit), 0);
        for (size_t i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
            size_t end = i + 1 < sizeof(at) / sizeof(at[0]) ? at[i + 1] - PIECE : size;
            size_t from = at[i];
            for (; from + PIECE < end; from += PIECE) {
                growing_fill(&growing, from, piece, PIECE);
            }
            const uint8_t *bytes = growing.memory;
            ck_assert_mem_eq(bytes + at[i], piece, PIECE);
            ck_assert_mem_eq(bytes + from - PIECE, piece, PIECE);
            ck_assert_uint_eq(bytes[from], 0);
        }
        growing_free(&growing);
    }
}
END_TEST

START_TEST(a_bitmap_with_room_to_grow)
{
    struct bitmap bitmap;
    ck_assert_int_eq(bitmap_init_growing(&bitmap, 1000, UINT64_C(1) << 32), 0);
    ck_assert_uint_eq(bitmap_next_set(&bitmap, 0, 1000), 1000);
    ck_assert(bitmap_set(&bitmap, 999));
    uint64_t *words = bitmap.words;
    ck_assert_int_eq(growing_extend(&bitmap.memory, 8 * MEGABYTE), 0);
    ck_assert_ptr_eq(bitmap.memory.memory, words);
    bitmap.bits = 64 * MEGABYTE;
    ck_assert_uint_eq(bitmap_next_set(&bitmap, 0, bitmap.bits), 999);
    ck_assert_uint_eq(bitmap_next_set(&bitmap, 1000, bitmap.bits), bitmap.bits);
    bitmap_free(&bitmap);
}
END_TEST

/* ---- lists ---- */

START_TEST(lists_keep_their_order)
{
    struct item {
        int value;
        struct list link;
    } items[6];
    struct list a, b;
    list_init(&a);
    list_init(&b);
    ck_assert_ptr_null(list_take_first(&a));
    for (int i = 0; i < 6; i++) {
        items[i].value = i;
        list_init(&items[i].link);
        list_remove(&items[i].link); /* on no list: harmless */
        list_append(i < 3 ? &a : &b, &items[i].link);
    }
    list_move_all(&a, &b);
    ck_assert(list_is_empty(&b));
    list_move_all(&a, &b);
    list_remove(&items[2].link);
    ck_assert(list_is_empty(&items[2].link));
    static const int order[] = {0, 1, 3, 4, 5};
    for (int i = 0; i < 5; i++) {
        struct list *link = list_take_first(&a);
        ck_assert_int_eq(container_of(link, struct item, link)->value, order[i]);
        ck_assert(list_is_empty(link));
    }
    ck_assert(list_is_empty(&a));
    list_append(&b, &items[0].link);
    list_move_all(&a, &b);
    ck_assert_ptr_eq(list_take_first(&a), &items[0].link);
}
END_TEST

/* ---- iovecs ---- */

START_TEST(a_window_shows_the_bytes_at_the_cursor)
{
    uint8_t bytes[300], seen[300];
    struct iovec iov[40], window[5];
    for (int round = 0; round < steps(300); round++) {
        uint32_t count = 0, total = 0;
        while (total < sizeof(bytes) && count < 40) {
            uint32_t piece = draw(20) % (uint32_t)(sizeof(bytes) - total + 1);
            iov[count++] = (struct iovec){bytes + total, piece};
            total += piece;
        }
        for (uint32_t i = 0; i < total; i++) {
            bytes[i] = (uint8_t)draw(256);
        }
        ck_assert_uint_eq(iov_length(iov, count), total);
        struct iov_cursor cursor = {.iov = iov, .count = count};
        uint32_t at = 0;
        while (at < total) {
            uint32_t limit = 1 + draw(5), most = 1 + draw(60), got = 0;
            uint64_t length;
            uint32_t used = iov_window(&cursor, most, window, limit, &length);
            ck_assert_uint_ge(used, 1);
            ck_assert_uint_le(used, limit);
            ck_assert_uint_le(length, most);
            for (uint32_t i = 0; i < used; i++) {
                ck_assert_uint_gt(window[i].iov_len, 0);
                memcpy(seen + got, window[i].iov_base, window[i].iov_len);
                got += (uint32_t)window[i].iov_len;
            }
            ck_assert_uint_eq(got, length);
            ck_assert_int_eq(memcmp(seen, bytes + at, got), 0);
            uint32_t step = 1 + draw(got);
            if (draw(4) == 0) {
                iov_zero(&cursor, step);
                for (uint32_t i = 0; i < step; i++) {
                    ck_assert_uint_eq(bytes[at + i], 0);
                }
                ck_assert(at + step == total || got <= step || bytes[at + step] == seen[step]);
            }
            iov_advance(&cursor, step);
            at += step;
        }
        uint64_t length = 9;
        ck_assert_uint_eq(iov_window(&cursor, 100, window, 5, &length), 0);
        ck_assert_uint_eq(length, 0);
    }
}
END_TEST

START_TEST(a_length_that_overflows_is_the_largest)
{
    struct iovec iov[2] = {{NULL, SIZE_MAX}, {NULL, 2}};
    ck_assert_uint_eq(iov_length(iov, 2), UINT64_MAX);
    ck_assert_uint_eq(iov_length(NULL, 0), 0);
}
END_TEST

/* ---- deadlines ---- */

START_TEST(the_earliest_deadline_is_first)
{
    enum { NUMBERS = 64 };
    struct deadlines deadlines;
    uint64_t model[NUMBERS];
    ck_assert_int_eq(deadlines_init(&deadlines, NUMBERS, NUMBERS), 0);
    memset(model, 0xff, sizeof(model));
    for (int step = 0; step < steps(5000); step++) {
        uint32_t number = draw(NUMBERS);
        if (draw(3)) {
            model[number] = draw(1000);
            deadlines_set(&deadlines, number, model[number]);
        } else {
            model[number] = UINT64_MAX;
            deadlines_remove(&deadlines, number);
        }
        uint64_t earliest = UINT64_MAX;
        uint32_t count = 0;
        for (uint32_t i = 0; i < NUMBERS; i++) {
            earliest = model[i] < earliest ? model[i] : earliest;
            count += model[i] != UINT64_MAX;
            ck_assert_int_eq(deadlines_has(&deadlines, i), model[i] != UINT64_MAX);
        }
        ck_assert_uint_eq(deadlines.count, count);
        ck_assert_uint_eq(deadlines_next(&deadlines), earliest);
        if (count) {
            ck_assert_uint_eq(model[deadlines_first(&deadlines)], earliest);
        }
    }
    uint64_t last = 0;
    while (deadlines.count) {
        uint32_t number = deadlines_first(&deadlines);
        ck_assert_uint_ge(model[number], last);
        last = model[number];
        deadlines_remove(&deadlines, number);
    }
    deadlines_free(&deadlines);
    ck_assert_int_eq(deadlines_init(&deadlines, 0, 100), 0);
    ck_assert_uint_eq(deadlines_next(&deadlines), UINT64_MAX);
    deadlines_free(&deadlines);
}
END_TEST

/* ---- turns ---- */

enum { THREADS = 4, POSTS = 5000 };

struct item {
    struct work work;
    uint32_t thread, number;
};

struct hall {
    struct turn turn;
    uint64_t done, pumps, leaves;
    uint32_t next[THREADS]; /* the number that is due of each thread */
    bool inside, out_of_order, together;
};

static struct hall hall;

static void item_run(struct work *work)
{
    struct item *item = container_of(work, struct item, work);
    hall.together |= hall.inside;
    hall.inside = true;
    hall.out_of_order |= hall.next[item->thread]++ != item->number;
    hall.done++;
    hall.inside = false;
}

static void hall_pump(struct turn *turn)
{
    (void)turn;
    hall.together |= hall.inside;
    hall.pumps++;
}

static void hall_leave(struct turn *turn)
{
    (void)turn;
    __atomic_fetch_add(&hall.leaves, 1, __ATOMIC_RELAXED);
}

static void *poster(void *argument)
{
    struct item *items = argument;
    int posts = steps(POSTS);
    for (int i = 0; i < posts; i++) {
        turn_post(&hall.turn, &items[i].work);
    }
    return NULL;
}

START_TEST(a_turn_does_everything_once_in_order_and_alone)
{
    static struct item items[THREADS][POSTS];
    pthread_t threads[THREADS];
    memset(&hall, 0, sizeof(hall));
    hall.turn.pump = hall_pump;
    hall.turn.leave = hall_leave;
    for (uint32_t thread = 0; thread < THREADS; thread++) {
        for (uint32_t i = 0; i < POSTS; i++) {
            items[thread][i] = (struct item){.work.run = item_run, .thread = thread, .number = i};
        }
        ck_assert_int_eq(pthread_create(&threads[thread], NULL, poster, items[thread]), 0);
    }
    for (uint32_t thread = 0; thread < THREADS; thread++) {
        pthread_join(threads[thread], NULL);
    }
    /* No work was left behind. */
    ck_assert_uint_eq(hall.done, THREADS * (unsigned)steps(POSTS));
    ck_assert(inbox_is_empty(&hall.turn.inbox));
    ck_assert_uint_eq(hall.turn.visitors, 0);
    ck_assert(!hall.out_of_order && !hall.together);
    ck_assert_uint_ge(hall.pumps, 1);
    ck_assert_uint_ge(hall.leaves, 1);
}
END_TEST

static struct item inner;

static void post_from_inside(struct work *work)
{
    (void)work;
    turn_post(&hall.turn, &inner.work);
    ck_assert_uint_eq(hall.done, 0); /* later, not inside */
    turn_take(&hall.turn);
    ck_assert_uint_eq(hall.done, 0);
}

START_TEST(work_posted_inside_a_turn_comes_after)
{
    struct work outer = {.run = post_from_inside};
    memset(&hall, 0, sizeof(hall));
    hall.turn.pump = hall_pump;
    hall.turn.leave = hall_leave;
    inner = (struct item){.work.run = item_run};
    turn_take(&hall.turn);
    ck_assert_uint_eq(hall.leaves, 0);
    turn_enqueue(&hall.turn, &outer);
    ck_assert_uint_eq(hall.pumps, 0);
    turn_take(&hall.turn);
    ck_assert_uint_eq(hall.done, 1);
    ck_assert_uint_eq(hall.pumps, 2);
    ck_assert_uint_eq(hall.leaves, 1);
}
END_TEST

static uint32_t hand_overs;

/* Another thread posts work whenever the turn is given back. */
static void hall_leave_with_work(struct turn *turn)
{
    hall.leaves++;
    if (hall.leaves < 100) {
        turn_enqueue(turn, &inner.work);
    }
}

static bool hall_hand_over(struct turn *turn, uint64_t *since)
{
    ck_assert_uint_eq(*since, hand_overs); /* each call finds the work that the one before left */
    ck_assert(!turn->owned);
    *since = ++hand_overs;
    return hand_overs == 3;
}

START_TEST(others_work_does_not_hold_a_thread_for_ever)
{
    memset(&hall, 0, sizeof(hall));
    hall.turn.pump = hall_pump;
    hall.turn.leave = hall_leave_with_work;
    hall.turn.hand_over = hall_hand_over;
    hand_overs = 0;
    inner = (struct item){.work.run = item_run};
    hall.next[0] = 0;
    turn_enqueue(&hall.turn, &inner.work);
    turn_take(&hall.turn);
    ck_assert_uint_eq(hall.leaves, 3);
    ck_assert(!inbox_is_empty(&hall.turn.inbox));
    /* Without another thread it keeps the turn to the end. */
    hall.turn.hand_over = NULL;
    turn_take(&hall.turn);
    ck_assert_uint_eq(hall.leaves, 100);
    ck_assert(inbox_is_empty(&hall.turn.inbox));
    ck_assert(!hall.turn.owned);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {a_bitmap_is_an_array_of_bits,
                                  a_set_of_numbers_finds_the_next,
                                  a_range_of_bits_is_set,
                                  memory_grows_where_it_lies,
                                  memory_without_a_reservation_does_not_grow,
                                  memory_is_filled_in_pieces,
                                  a_bitmap_with_room_to_grow,
                                  lists_keep_their_order,
                                  a_window_shows_the_bytes_at_the_cursor,
                                  a_length_that_overflows_is_the_largest,
                                  the_earliest_deadline_is_first,
                                  a_turn_does_everything_once_in_order_and_alone,
                                  work_posted_inside_a_turn_comes_after,
                                  others_work_does_not_hold_a_thread_for_ever};
    return RUN_TESTS("units", tests);
}
