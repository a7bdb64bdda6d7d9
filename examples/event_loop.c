/* SPDX-License-Identifier: MIT */
/*
 * event_loop [IMAGE]: a disk in a poll() loop: eight requests in flight, and no thread of the
 * program ever waits for one.
 *
 * Two descriptors wake the loop. The queue's says that requests have completed: ploop_queue_run()
 * then calls their callbacks, in this thread. The clock's wake_at sets the timer's: work is due,
 * and ploop_dev_run() does it.
 *
 * The program writes 64 pieces, waits until the timer has caused the write of the map, flushes, and
 * reads them back.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <ploop/ploop.h>

enum {
    PIECES = 64,
    PIECE_BYTES = 64 << 10,
    SPACING = 1 << 20,
    IN_FLIGHT = 8,
    LOOP_TIMEOUT_MS = 10000
};

enum phase { WRITING, SETTLING, FLUSHING, READING, FINISHED };

struct slot {
    struct loop *loop;
    struct iovec iov;
    unsigned piece;
    char buffer[PIECE_BYTES];
};

struct loop {
    ploop_dev *dev;
    ploop_queue *queue;
    int timer_fd;
    enum phase phase;
    unsigned next, done;
    int error;
    struct slot slots[IN_FLIGHT];
};

/* ---- The clock: time, and an alarm ---- */

static uint64_t now_ns(void *context)
{
    struct timespec now;
    (void)context;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/*
 * May be called from any thread, a backend's too, so it only sets the timer: the loop does the
 * rest.
 */
static void wake_at(void *context, uint64_t deadline_ns)
{
    struct loop *loop = context;
    struct itimerspec alarm = {
        .it_value = {.tv_sec = 0,
                     .tv_nsec = 1}}; /* 0, now: a time long past; all zeros would disarm */
    if (deadline_ns) {
        alarm.it_value.tv_sec = (time_t)(deadline_ns / 1000000000);
        alarm.it_value.tv_nsec = (long)(deadline_ns % 1000000000);
    }
    (void)timerfd_settime(loop->timer_fd, TFD_TIMER_ABSTIME, &alarm, NULL);
}

/* ---- The work: each completion sends the next request ---- */

static char content(unsigned piece)
{
    return (char)('A' + piece % 26);
}

static void piece_done(ploop_pio *pio, int result, void *user_data);

static void submit(struct loop *loop, ploop_pio *pio)
{
    int taken = ploop_queue_submit(loop->queue, &pio, 1);
    if (taken < 0) { /* refused: its callback will not run */
        loop->error = taken;
        ploop_pio_put(pio);
    }
}

static void send_piece(struct slot *slot, ploop_pio *pio)
{
    struct loop *loop = slot->loop;
    slot->piece = loop->next++;
    slot->iov = (struct iovec){.iov_base = slot->buffer, .iov_len = PIECE_BYTES};
    uint64_t offset = (uint64_t)slot->piece * SPACING;
    if (loop->phase == WRITING) {
        memset(slot->buffer, content(slot->piece), PIECE_BYTES);
        ploop_pio_prep_writev(pio, offset, &slot->iov, 1, 0);
    } else {
        ploop_pio_prep_readv(pio, offset, &slot->iov, 1);
    }
    ploop_pio_set_callback(pio, piece_done, slot);
    submit(loop, pio);
}

static void piece_done(ploop_pio *pio, int result, void *user_data)
{
    struct slot *slot = user_data;
    struct loop *loop = slot->loop;
    loop->done++;
    if (result) {
        loop->error = result;
    } else if (loop->phase == READING && slot->buffer[PIECE_BYTES - 1] != content(slot->piece)) {
        loop->error = -EIO;
    }
    if (loop->next < PIECES && !loop->error) {
        send_piece(slot, pio); /* the same request again, from its own callback */
    } else {
        ploop_pio_put(pio);
    }
}

static void begin(struct loop *loop, enum phase phase)
{
    loop->phase = phase;
    loop->next = loop->done = 0;
    for (unsigned i = 0; i < IN_FLIGHT && !loop->error; i++) {
        ploop_pio *pio = ploop_pio_get(loop->queue);
        if (!pio) {
            break; /* as many as the pool has */
        }
        loop->slots[i].loop = loop;
        send_piece(&loop->slots[i], pio);
    }
}

static void flush_done(ploop_pio *pio, int result, void *user_data)
{
    struct loop *loop = user_data;
    ploop_pio_put(pio);
    loop->error = result;
    printf("flushed: all of it survives a power cut from here on\n");
    begin(loop, READING);
}

static void advance(struct loop *loop)
{
    struct ploop_dev_info info = {.size = sizeof(info)};
    if (loop->phase == WRITING && loop->done == PIECES) {
        printf("wrote %d pieces, %d at a time\n", PIECES, IN_FLIGHT);
        loop->phase = SETTLING;
    } else if (loop->phase == SETTLING && ploop_dev_info(loop->dev, &info) == 0 &&
               info.pages_dirty == 0) {
        uint64_t changes = info.page_dirties + info.page_redirties;
        printf("the timer had the map written: %" PRIu64 " changes in %" PRIu64 " page writes\n",
               changes, info.page_writes);
        loop->phase = FLUSHING;
        ploop_pio *pio = ploop_pio_get(loop->queue);
        ploop_pio_prep_flush(pio);
        ploop_pio_set_callback(pio, flush_done, loop);
        submit(loop, pio);
    } else if (loop->phase == READING && loop->done == PIECES) {
        printf("read everything back\n");
        loop->phase = FINISHED;
    }
}

static void run_loop(struct loop *loop)
{
    struct pollfd fds[2] = {{.fd = ploop_queue_poll_fd(loop->queue), .events = POLLIN},
                            {.fd = loop->timer_fd, .events = POLLIN}};
    begin(loop, WRITING);
    while (loop->phase != FINISHED && !loop->error) {
        int ready = poll(fds, 2, LOOP_TIMEOUT_MS);
        if (ready == 0) {
            loop->error = -ETIMEDOUT;
        }
        if (ready > 0 && fds[1].revents) {
            uint64_t alarms;
            (void)!read(loop->timer_fd, &alarms, sizeof(alarms));
            (void)ploop_dev_run(loop->dev);
        }
        if (ready > 0 && fds[0].revents) {
            (void)ploop_queue_run(loop->queue);
        }
        advance(loop);
    }
}

static int run(struct loop *loop, ploop_file *file)
{
    struct ploop_image_options options = {.size = sizeof(options),
                                          .disk_size = (uint64_t)PIECES * SPACING};
    struct ploop_clock clock = {
        .size = sizeof(clock), .context = loop, .now_ns = now_ns, .wake_at = wake_at};
    struct ploop_dev_config config;
    ploop_dev_config_init(&config, sizeof(config));
    config.clock = &clock;
    config.writeback_delay_ns = 50 * UINT64_C(1000000);
    int error = ploop_image_create(file, &options);
    if (!error) {
        error = ploop_dev_open(&file, 1, &config, &loop->dev);
    }
    if (error) {
        return error;
    }
    loop->queue = ploop_dev_queue(loop->dev, 0);
    run_loop(loop);
    error = ploop_dev_close(loop->dev); /* waits for what is still in flight */
    return loop->error ? loop->error : error;
}

int main(int argc, char **argv)
{
    static struct loop loop;
    const char *path = argc > 1 ? argv[1] : "event_loop.hds";
    ploop_file *file;
    if (argc < 2) {
        (void)remove(path); /* left over from the last run */
    }
    loop.timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    int error = ploop_file_open_posix(path, PLOOP_FILE_READ_WRITE | PLOOP_FILE_CREATE, &file);
    if (!error) {
        error = run(&loop, file);
        ploop_file_close(file);
    }
    (void)close(loop.timer_fd);
    if (error) {
        (void)fprintf(stderr, "event_loop: %s: %s\n", path, strerror(-error));
    }
    return error != 0;
}
