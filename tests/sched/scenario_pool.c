/* SPDX-License-Identifier: MIT */
/* The POSIX backend's I/O threads alone: submit and kick from two threads, cancel, stop. */
#include "scenarios.h"

#include <errno.h>
#include <stdlib.h>

#include "file/file.h"
#include "file/posix_pool.h"
#include "world.h"

enum { IOS = 4 };

struct pool_io {
    struct file_io io;
    unsigned done;
    int64_t result;
};

struct pool_world {
    struct posix_pool pool;
    ploop_file *file;
    struct pool_io ios[IOS];
    bool stopped;
};

static struct pool_world *pools;

static int64_t pool_execute(void *context, const struct ploop_io *io)
{
    (void)io;
    sched_point(HERE, "executes", context, true);
    if (pools->stopped) {
        sched_fail("a request is carried out by a pool that was stopped");
    }
    return 0;
}

static int pool_submit(void *context, struct ploop_io *io)
{
    posix_pool_submit(context, io);
    return 0;
}

static int pool_info(void *context, struct ploop_file_info *info)
{
    (void)context;
    (void)info;
    return 0;
}

static void pool_done(struct file_io *io, int64_t result)
{
    struct pool_io *of = (struct pool_io *)io;
    sched_point(HERE, "done", of, true);
    of->result = result;
    of->done++;
}

static bool both_are_done(void *argument)
{
    const struct pool_io *ios = argument;
    return ios[0].done && ios[1].done;
}

static void submit_two(struct pool_io *ios)
{
    for (unsigned i = 0; i < 2; i++) {
        ios[i].io.pub.op = PLOOP_IO_SYNC;
        must_be(file_io_submit(&ios[i].io), 0, "submit");
    }
    posix_pool_kick(&pools->pool);
}

static void submit_and_wait(void *argument)
{
    submit_two(argument);
    sched_wait(HERE, "waits for its requests", both_are_done, argument, 0);
    if (sched_expiries()) {
        sched_fail("a thread found its work when it was idle for long: a wake-up was lost");
    }
}

static void pool_open(void)
{
    const struct ploop_io_ops ops = {
        .size = sizeof(ops), .get_info = pool_info, .submit = pool_submit};
    pools = calloc(1, sizeof(*pools));
    must_be(ploop_file_create(&ops, &pools->pool, &pools->file), 0, "the file");
    must_be(posix_pool_start(&pools->pool, NULL, pool_execute, pools), 0, "the pool");
    for (unsigned i = 0; i < IOS; i++) {
        file_io_init(&pools->ios[i].io, pools->file, pool_done);
    }
}

static void pool_submit_set_up(void)
{
    pool_open();
    sched_spawn("one", submit_and_wait, &pools->ios[0], false);
    sched_spawn("two", submit_and_wait, &pools->ios[2], false);
}

static void pool_submit_finish(void)
{
    for (unsigned i = 0; i < IOS; i++) {
        must_be((int)pools->ios[i].done, 1, "completions");
        must_be((int)pools->ios[i].result, 0, "a result");
    }
    must_be((int)pools->pool.queued, 0, "queued requests");
    must_be((int)pools->pool.running, 0, "running requests");
}

const struct scenario io_threads = {
    .name = "io-threads",
    .about =
        "two threads submit to the POSIX backend's I/O threads: each request is carried out once",
    .set_up = pool_submit_set_up,
    .finish = pool_submit_finish,
    .may_expire = true, /* idle threads end; submit_and_wait() looks */
    .bound = 1,
    .random = 20000,
};

/* Cancel and stop, as close does, while I/O threads are at work. */
static void submit_cancel_stop(void *unused)
{
    (void)unused;
    submit_two(&pools->ios[0]);
    posix_pool_cancel(&pools->pool);
    for (unsigned i = 0; i < 2; i++) {
        must_be((int)pools->ios[i].done, 1, "completions when cancel returns");
        if (pools->ios[i].result != -ECANCELED) {
            must_be((int)pools->ios[i].result, 0, "a result");
        }
    }
    posix_pool_stop(&pools->pool);
    pools->stopped = true;
}

static void pool_cancel_set_up(void)
{
    pool_open();
    sched_spawn("closer", submit_cancel_stop, NULL, false);
}

const struct scenario io_threads_cancel = {
    .name = "io-threads-cancel",
    .about = "the POSIX backend's I/O threads are cancelled and stopped while they work",
    .set_up = pool_cancel_set_up,
    .bound = 3,
    .random = 3000,
};
