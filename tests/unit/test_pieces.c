/* SPDX-License-Identifier: MIT */
/* Memory in pieces of any length, and transfers that the backend accepts only in part. */
#include "device_fixture.h"
#include "image_fixture.h"
#include "run_tests.h"

#include <string.h>

enum { CLUSTER = 4096 };

static uint64_t at(uint64_t cluster)
{
    return cluster * CLUSTER;
}

static void add_one(ploop_pio *pio, int result, void *user_data)
{
    (void)pio;
    ck_assert_int_eq(result, 0);
    ++*(int *)user_data;
}

START_TEST(any_pieces_of_memory_will_do)
{
    enum { PIECES = 3000, LENGTH = 3 * CLUSTER };
    for (uint32_t flags = 0; flags <= PLOOP_DEV_NO_FAST_PATH; flags += PLOOP_DEV_NO_FAST_PATH) {
        struct rig rig;
        static uint8_t out[LENGTH], in[LENGTH];
        static struct iovec iov[PIECES];
        rig_create(&rig, 2, 64 << 20, CLUSTER, 0);
        rig.config.flags = flags;
        rig_open(&rig);
        /* Clusters 0 to 3 are mapped; the others are not. */
        ck_assert_int_eq(rig_write(&rig, 0, 4 * CLUSTER, 0xA0, 0), 0);
        for (uint32_t i = 0; i < LENGTH; i++) {
            out[i] = (uint8_t)(i * 7 + i / 251);
        }
        for (uint64_t offset = 1024; offset < at(100); offset += at(50)) {
            uint32_t total = 0, pieces = 0;
            for (; total < LENGTH - 512; pieces++) {
                uint32_t piece = pieces * 13 % 11; /* some have no bytes */
                iov[pieces] = (struct iovec){out + total, piece};
                total += piece;
                ck_assert_uint_lt(pieces, PIECES - 1);
            }
            iov[pieces++] = (struct iovec){out + total, LENGTH - total};
            int done = 0;
            ploop_pio *pio = ploop_pio_get(rig.queue);
            ploop_pio_set_callback(pio, add_one, &done);
            ploop_pio_prep_writev(pio, offset, iov, pieces, 0);
            ck_assert_int_eq(ploop_queue_submit(rig.queue, &pio, 1), 1);
            ck_assert_int_eq(ploop_queue_run(rig.queue), 1);
            ck_assert_int_eq(done, 1);
            memset(in, 0, LENGTH);
            for (uint32_t i = 0; i < pieces; i++) {
                iov[i].iov_base = in + ((uint8_t *)iov[i].iov_base - out);
            }
            ploop_pio_prep_readv(pio, offset, iov, pieces);
            ck_assert_int_eq(ploop_queue_submit(rig.queue, &pio, 1), 1);
            ck_assert_int_eq(ploop_queue_run(rig.queue), 1);
            ck_assert_int_eq(done, 2);
            ck_assert_int_eq(memcmp(in, out, LENGTH), 0);
            ploop_pio_put(pio);
        }
        rig_end(&rig);
    }
}
END_TEST

START_TEST(a_transfer_is_no_longer_than_the_backend_takes)
{
    struct rig rig;
    rig_create(&rig, 2, 64 << 20, CLUSTER, 0);
    rig.script.max_transfer = 1536;
    rig_open(&rig);
    for (int mapped = 0; mapped < 2; mapped++) {
        ck_assert_int_eq(rig_write(&rig, 512, 2 * CLUSTER, (uint8_t)(1 + mapped), 0), 0);
        ck_assert_int_eq(rig_write(&rig, at(1), CLUSTER, (uint8_t)(3 + mapped), 0), 0);
        rig_expect(&rig, 512, CLUSTER - 512, (uint8_t)(1 + mapped));
        rig_expect(&rig, at(1), CLUSTER, (uint8_t)(3 + mapped));
    }
    rig_end(&rig);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {any_pieces_of_memory_will_do,
                                  a_transfer_is_no_longer_than_the_backend_takes};
    return RUN_TESTS("pieces", tests);
}
