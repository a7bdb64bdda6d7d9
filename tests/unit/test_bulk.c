/* SPDX-License-Identifier: MIT */
/*
 * Bulk work on memory is done while the turn is free. The memory of a request is without access,
 * and the fault at the library's first touch tells whether the turn was owned then.
 */
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <ploop/ploop.h>

#include "dev/dev.h"
#include "image_fixture.h"
#include "run_tests.h"

enum { CLUSTER = 1 << 20, DISK = 8 * CLUSTER, BULK = 256 << 10, BASE = 3 * CLUSTER + 1024 };

static ploop_dev *dev;
static ploop_file *base, *top;
static uint8_t *memory; /* of the request under way */
static struct {
    volatile sig_atomic_t faults, in_turn;
} seen;

static void touched(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)context;
    const uint8_t *at = info->si_addr;
    if (at < memory || at >= memory + BULK) {
        abort();
    }
    seen.faults++;
    seen.in_turn += atomic_load(&dev->turn.owned);
    mprotect(memory, BULK, PROT_READ | PROT_WRITE);
}

/* A base of 0xB0 that ends in its fourth cluster, behind a sector of that. */
static void begin(void)
{
    const struct sigaction action = {.sa_sigaction = touched, .sa_flags = SA_SIGINFO};
    const struct ploop_image_options options = {.size = sizeof(options), .disk_size = DISK};
    struct ploop_dev_config config;
    uint8_t *bytes = malloc(BASE);
    memset(bytes, 0xB0, BASE);
    ck_assert_int_eq(ploop_file_create_memory(BASE, &base), 0);
    ck_assert_int_eq(ploop_file_pwrite(base, bytes, BASE, 0), BASE);
    free(bytes);
    ck_assert_int_eq(ploop_file_create_memory(0, &top), 0);
    ck_assert_int_eq(ploop_image_create(top, &options), 0);
    ploop_dev_config_init(&config, sizeof(config));
    config.flags = PLOOP_DEV_NO_FAST_PATH | PLOOP_DEV_RAW_BASE;
    ploop_file *const files[] = {base, top};
    ck_assert_int_eq(ploop_dev_open(files, 2, &config, &dev), 0);
    memory = mmap(NULL, BULK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert(memory != MAP_FAILED);
    ck_assert_int_eq(sigaction(SIGSEGV, &action, NULL), 0);
}

static void end(void)
{
    ck_assert_int_eq(ploop_dev_close(dev), 0);
    ploop_file_close(top);
    ploop_file_close(base);
    munmap(memory, BULK);
}

/* The request is done by this thread, which is the only one. */
static void touches_outside_the_turn(bool write, uint64_t offset)
{
    memset(memory, write ? 0x11 : 0xFF, BULK);
    seen.faults = seen.in_turn = 0;
    /* valgrind cannot go on in the middle of a fill. */
    ck_assert_int_eq(mprotect(memory, BULK, is_instrumented() ? PROT_READ | PROT_WRITE : PROT_NONE),
                     0);
    int64_t done = write ? ploop_dev_pwrite(dev, memory, BULK, offset)
                         : ploop_dev_pread(dev, memory, BULK, offset);
    ck_assert_int_eq(done, BULK);
    ck_assert_int_eq(seen.faults, !is_instrumented());
    ck_assert_int_eq(seen.in_turn, 0);
}

static void expect(uint64_t offset, uint64_t length, uint8_t value)
{
    uint8_t *bytes = malloc(length);
    ck_assert_int_eq(ploop_dev_pread(dev, bytes, length, offset), (int64_t)length);
    for (uint64_t i = 0; i < length; i++) {
        must_msg(bytes[i] == value, "byte %lu is 0x%02x", (unsigned long)(offset + i), bytes[i]);
    }
    free(bytes);
}

START_TEST(zeros_over_a_cluster_that_no_delta_has)
{
    begin();
    touches_outside_the_turn(false, 5 * CLUSTER);
    expect(5 * CLUSTER, BULK, 0);
    end();
}
END_TEST

START_TEST(zeros_behind_the_end_of_a_lower_delta)
{
    begin();
    touches_outside_the_turn(false, 3 * CLUSTER + 8192);
    expect(3 * CLUSTER, 1024, 0xB0);
    expect(3 * CLUSTER + 1024, CLUSTER - 1024, 0);
    end();
}
END_TEST

START_TEST(the_merge_of_a_copy)
{
    begin();
    touches_outside_the_turn(true, CLUSTER + 4096);
    expect(CLUSTER, 4096, 0xB0);
    expect(CLUSTER + 4096, BULK, 0x11);
    expect(CLUSTER + 4096 + BULK, CLUSTER - 4096 - BULK, 0xB0);
    end();
}
END_TEST

START_TEST(the_merge_of_a_copy_where_the_lower_delta_ends)
{
    begin();
    touches_outside_the_turn(true, 3 * CLUSTER + 512 * 1024);
    expect(3 * CLUSTER, 1024, 0xB0);
    expect(3 * CLUSTER + 1024, 512 * 1024 - 1024, 0);
    expect(3 * CLUSTER + 512 * 1024, BULK, 0x11);
    expect(3 * CLUSTER + 512 * 1024 + BULK, CLUSTER - 512 * 1024 - BULK, 0);
    end();
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {zeros_over_a_cluster_that_no_delta_has,
                                  zeros_behind_the_end_of_a_lower_delta, the_merge_of_a_copy,
                                  the_merge_of_a_copy_where_the_lower_delta_ends};
    return RUN_TESTS("bulk", tests);
}
