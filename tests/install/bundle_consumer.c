/* SPDX-License-Identifier: MIT */
/* A user of both libraries: makes a bundle and opens it, then prints the core library's version. */
#include <stdio.h>
#include <unistd.h>

#include <ploop/bundle.h>
#include <ploop/ploop.h>

int main(void)
{
    struct ploop_bundle_options options = {.size = sizeof(options), .disk_size = 1 << 20};
    const uint32_t version = ploop_version();
    ploop_bundle *bundle;

    if (ploop_bundle_create("disk", &options) || ploop_bundle_open("disk", NULL, &bundle)) {
        return 1;
    }
    ploop_bundle_close(bundle);
    printf("%u.%u.%u\n", version >> 16, version >> 8 & 0xff, version & 0xff);
    return unlink("disk/root.hds") || unlink("disk/DiskDescriptor.xml") || rmdir("disk");
}
