/* SPDX-License-Identifier: MIT */
/*
 * The first program of an embedder: an image in memory, a device on it, a write and a read. Prints
 * the version of the library it runs with.
 */
#include <ploop/ploop.h>
#include <stdio.h>
#include <string.h>

int main(void)
{
    static unsigned char in[512], out[512];
    struct ploop_image_options options = {.size = sizeof(options), .disk_size = 10 << 20};
    ploop_file *file = NULL;
    ploop_dev *dev = NULL;

    if (ploop_file_create_memory(0, &file) || ploop_image_create(file, &options) ||
        ploop_dev_open(&file, 1, NULL, &dev)) {
        return 1;
    }
    memset(out, 7, sizeof(out));
    int64_t written = ploop_dev_pwrite(dev, out, sizeof(out), 5 << 20);
    int64_t read = ploop_dev_pread(dev, in, sizeof(in), 5 << 20);
    int closed = ploop_dev_close(dev);
    ploop_file_close(file);
    if (written != sizeof(out) || read != sizeof(in) || memcmp(in, out, sizeof(in)) || closed) {
        return 1;
    }
    uint32_t version = ploop_version();
    printf("%u.%u.%u\n", version >> 16, version >> 8 & 255, version & 255);
    return 0;
}
