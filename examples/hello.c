/* SPDX-License-Identifier: MIT */
/*
 * hello [IMAGE]: the shortest way to a disk: create an image, open it as a device, write, read
 * back, close.
 *
 * Every call here blocks until it is done. event_loop.c shows a program with requests in flight.
 */
#include <stdio.h>
#include <string.h>

#include <ploop/ploop.h>

static int use(ploop_dev *dev)
{
    /* A disk is written and read in sectors of 512 bytes. */
    char out[512] = "hello, disk", in[512];
    int64_t moved = ploop_dev_pwrite(dev, out, sizeof(out), 4096);
    if (moved < 0) {
        return (int)moved;
    }
    int error = ploop_dev_flush(dev); /* from here on the data survives a power cut */
    if (error) {
        return error;
    }
    moved = ploop_dev_pread(dev, in, sizeof(in), 4096);
    if (moved < 0) {
        return (int)moved;
    }
    printf("read back: %s\n", in);
    return memcmp(in, out, sizeof(in)) ? -1 : 0;
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : "hello.hds";
    struct ploop_image_options options = {.size = sizeof(options), .disk_size = 64 << 20};
    ploop_file *file;
    ploop_dev *dev;

    if (argc < 2) {
        (void)remove(path); /* left over from the last run */
    }
    int error = ploop_file_open_posix(path, PLOOP_FILE_READ_WRITE | PLOOP_FILE_CREATE, &file);
    if (!error) {
        error = ploop_image_create(file, &options);
        if (!error) {
            error = ploop_dev_open(&file, 1, NULL, &dev);
        }
        if (!error) {
            error = use(dev);
            /* The result says whether everything is durable: do not ignore it. */
            int close_error = ploop_dev_close(dev);
            error = error ? error : close_error;
        }
        ploop_file_close(file); /* the file is ours, before and after the device */
    }
    if (error) {
        (void)fprintf(stderr, "hello: %s: %s\n", path, strerror(-error));
    }
    return error != 0;
}
