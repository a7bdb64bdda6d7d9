/* SPDX-License-Identifier: MIT */
/* Bundles where their library was not built, for want of libxml2: see bundle.h. */
#include "bundle.h"

#include <sys/stat.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

int expand_bundle(struct server_config *config)
{
    struct stat status;

    if (stat(config->image, &status) || !S_ISDIR(status.st_mode)) {
        return 0;
    }
    nbdkit_error("%s: is a bundle: this plugin was built without libxml2, which they need",
                 config->image);
    return -1;
}
