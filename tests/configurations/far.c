/* SPDX-License-Identifier: MIT */
/*
 * far IMAGE: 100 clusters of 64 MiB, a sector written in each, read again through the device and,
 * at the places that the map names, from the file. Compiled as an embedder's: nothing is defined.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <ploop/ploop.h>

#define CLUSTER (UINT64_C(64) << 20)
enum { CLUSTERS = 100, AT = 4096, SECTOR = 512 };

static int fail(const char *what, uint64_t number)
{
    fprintf(stderr, "%s: %" PRIu64 "\n", what, number);
    return 1;
}

static int write_all(ploop_dev *dev)
{
    unsigned char bytes[SECTOR];
    for (unsigned i = 0; i < CLUSTERS; i++) {
        memset(bytes, (int)i + 1, sizeof(bytes));
        if (ploop_dev_pwrite(dev, bytes, SECTOR, i * CLUSTER + AT) != SECTOR) {
            return fail("cannot write cluster", i);
        }
    }
    return ploop_dev_flush(dev) ? fail("flush", 0) : 0;
}

static int is_all(const unsigned char *bytes, unsigned value)
{
    for (unsigned i = 0; i < SECTOR; i++) {
        if (bytes[i] != value) {
            return 0;
        }
    }
    return 1;
}

static int read_all(ploop_dev *dev, ploop_file *file)
{
    unsigned char bytes[SECTOR];
    for (unsigned i = 0; i < CLUSTERS; i++) {
        struct ploop_extent extent = {.size = sizeof(extent)};
        if (ploop_dev_pread(dev, bytes, SECTOR, i * CLUSTER + AT) != SECTOR ||
            !is_all(bytes, i + 1)) {
            return fail("the device reads cluster wrongly", i);
        }
        if (ploop_bat_lookup(dev, i * CLUSTER + AT, SECTOR, &extent) ||
            ploop_file_pread(file, bytes, SECTOR, extent.host_offset) != SECTOR ||
            !is_all(bytes, i + 1)) {
            return fail("the file holds cluster elsewhere", i);
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct ploop_image_options options = {
        .size = sizeof(options), .disk_size = UINT64_C(64) << 30, .cluster_size = CLUSTER};
    ploop_file *file;
    ploop_dev *dev;
    char byte = 0;
    if (argc != 2 ||
        ploop_file_open_posix(argv[1], PLOOP_FILE_READ_WRITE | PLOOP_FILE_CREATE, &file) ||
        ploop_image_create(file, &options) || ploop_dev_open(&file, 1, NULL, &dev)) {
        return fail("cannot create", 0);
    }
    /* More than memory can be: refused, and not cut to what an address can count. */
    if (ploop_dev_pread(dev, &byte, (UINT64_C(1) << 63) + SECTOR, 0) >= 0 ||
        (sizeof(size_t) == 4 &&
         (ploop_dev_pread(dev, &byte, (UINT64_C(1) << 32) + SECTOR, 0) >= 0 ||
          ploop_file_pread(file, &byte, (UINT64_C(1) << 32) + 1, 0) >= 0))) {
        return fail("a length beyond memory is taken", 0);
    }
    int failed = write_all(dev) || read_all(dev, file) || ploop_dev_close(dev);
    ploop_file_close(file);
    return failed;
}
