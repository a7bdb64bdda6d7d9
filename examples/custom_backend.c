/* SPDX-License-Identifier: MIT */
/*
 * custom_backend [IMAGE]: how to write a backend. Wherever your bytes are stored - an object store,
 * a network protocol, a file behind your own I/O engine - a struct ploop_io_ops is all that the
 * library needs to keep a disk there.
 *
 * This backend is as simple as possible: an ordinary file, and a system call that carries out each
 * request before submit returns. The rules for a backend:
 *
 *  - A request that submit accepted (returned 0) must be completed exactly once with
 *    ploop_io_complete(), inline as here, or later, or from another thread, in any order. A request
 *    that submit refused must never be completed.
 *  - The request and its memory are yours until you complete it. After that touch neither: the
 *    library may have used the request again before ploop_io_complete() returns. Until then
 *    io->backend_data is room for your own links or state.
 *  - Short transfers, -EINTR and -EAGAIN are allowed; the library continues from there. Report
 *    errors truthfully: durability depends on the result of SYNC.
 *  - Functions may be called from several threads at once. pread and similar calls allow this; if
 *    yours do not, use a mutex, but do not hold it while you complete.
 *  - Never call the library from a backend, except ploop_io_complete().
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <ploop/ploop.h>

struct plain_file {
    int fd;
    unsigned long requests;
};

/*
 * The properties that the library reads before it sends requests. It asks again when necessary,
 * because the size may change.
 */
static int plain_get_info(void *context, struct ploop_file_info *info)
{
    struct plain_file *plain = context;
    struct stat stat;
    if (fstat(plain->fd, &stat)) {
        return -errno;
    }
    info->file_size = (uint64_t)stat.st_size;
    info->capabilities =
        PLOOP_FILE_CAN_GROW; /* neither FUA nor punching: the library does without */
    info->request_alignment = 1;
    info->max_transfer = 0;
    return 0;
}

static int64_t carry_out(struct plain_file *plain, const struct ploop_io *io)
{
    /* If there are more, the library sends the rest again. */
    int segments = io->iov_count < 1024 ? (int)io->iov_count : 1024;
    ssize_t result;
    switch (io->op) {
    case PLOOP_IO_READ:
        result = preadv(plain->fd, io->iov, segments, (off_t)io->offset);
        break;
    case PLOOP_IO_WRITE:
        result = pwritev(plain->fd, io->iov, segments, (off_t)io->offset);
        break;
    case PLOOP_IO_SYNC:
        result = fdatasync(plain->fd);
        break;
    case PLOOP_IO_TRUNCATE:
        result = ftruncate(plain->fd, (off_t)io->offset);
        break;
    default: /* ALLOCATE and PUNCH come only if get_info offers them */
        return -EOPNOTSUPP;
    }
    return result < 0 ? -errno : result;
}

static int plain_submit(void *context, struct ploop_io *io)
{
    struct plain_file *plain = context;
    __atomic_fetch_add(&plain->requests, 1, __ATOMIC_RELAXED);
    ploop_io_complete(io, carry_out(plain, io));
    return 0;
}

static void plain_close(void *context)
{
    struct plain_file *plain = context;
    (void)close(plain->fd);
}

static const struct ploop_io_ops plain_ops = {
    .size = sizeof(plain_ops), /* for a library newer or older than this program */
    .get_info = plain_get_info,
    .submit = plain_submit,
    .close = plain_close,
    /*
     * The rest is optional. A backend with rings would have attach, kick, reap and wait; others can
     * have cancel and reopen.
     */
};

static int write_and_read(ploop_dev *dev)
{
    static char out[1 << 20], in[1 << 20];
    for (size_t i = 0; i < sizeof(out); i++) {
        out[i] = (char)(i / 512);
    }
    int64_t moved =
        ploop_dev_pwrite(dev, out, sizeof(out), 3 << 19); /* across a cluster's border */
    int error = moved < 0 ? (int)moved : ploop_dev_flush(dev);
    if (error) {
        return error;
    }
    moved = ploop_dev_pread(dev, in, sizeof(in), 3 << 19);
    if (moved < 0) {
        return (int)moved;
    }
    return memcmp(in, out, sizeof(in)) ? -EIO : 0;
}

static int run(ploop_file *file)
{
    struct ploop_image_options options = {.size = sizeof(options), .disk_size = UINT64_C(1) << 30};
    ploop_dev *dev;
    int error = ploop_image_create(file, &options);
    if (!error) {
        error = ploop_dev_open(&file, 1, NULL, &dev);
    }
    if (error) {
        return error;
    }
    error = write_and_read(dev);
    int close_error = ploop_dev_close(dev);
    return error ? error : close_error;
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : "custom_backend.hds";
    struct plain_file plain = {.fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644)};
    ploop_file *file;
    if (plain.fd < 0) {
        perror(path);
        return 1;
    }
    int error = ploop_file_create(&plain_ops, &plain, &file);
    if (error) {
        (void)close(plain.fd); /* a file that was not created does not close its backend */
    } else {
        error = run(file);
        ploop_file_close(file);
    }
    if (error) {
        (void)fprintf(stderr, "custom_backend: %s: %s\n", path, strerror(-error));
        return 1;
    }
    printf("1 MiB written, flushed, read back and compared, in %lu backend requests\n",
           plain.requests);
    return 0;
}
