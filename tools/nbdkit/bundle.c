/* SPDX-License-Identifier: MIT */
/* See bundle.h. */
#include "bundle.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <ploop/bundle.h>

static void bundle_log(void *user_data, uint32_t level, uint32_t message_id, const char *text)
{
    (void)user_data;
    (void)level;
    (void)message_id;
    nbdkit_error("%s", text);
}

/* The names of the stack, in memory of the configuration's. 0 or -1, told. */
static int take_stack(struct server_config *config, const ploop_bundle *bundle,
                      const uint32_t *chain, uint32_t count)
{
    struct ploop_bundle_image image = {.size = sizeof(image)};

    for (uint32_t i = 0; i < count; i++) {
        ploop_bundle_image(bundle, 0, chain[i], &image);
        char *path = strdup(image.path);
        if (!path) {
            nbdkit_error("%s: %m", config->image);
            return -1;
        }
        if (i + 1 < count) {
            config->bases[config->base_count++] = path;
            config->has_raw_base |= image.type == PLOOP_BUNDLE_PLAIN;
        } else {
            free(config->image);
            config->image = path;
        }
    }
    return 0;
}

static int take_bundle(struct server_config *config, const ploop_bundle *bundle)
{
    struct ploop_bundle_info info = {.size = sizeof(info)};
    struct ploop_bundle_image image = {.size = sizeof(image)};
    uint32_t chain[BASES_MAX + 1];

    ploop_bundle_info(bundle, &info);
    ploop_bundle_image(bundle, 0, info.top, &image);
    int64_t count = ploop_bundle_chain(bundle, info.top, chain, BASES_MAX + 1);
    if (info.storage_count > 1) {
        nbdkit_error("%s: a disk split into %u parts is not supported", config->image,
                     info.storage_count);
    } else if (image.type == PLOOP_BUNDLE_PLAIN) {
        nbdkit_error("%s: its only image, %s, is a raw disk: use nbdkit's file plugin",
                     config->image, image.name);
    } else if (count > BASES_MAX + 1) {
        nbdkit_error("%s: its stack has more than %d images", config->image, BASES_MAX + 1);
    } else {
        return take_stack(config, bundle, chain, (uint32_t)count);
    }
    return -1;
}

int expand_bundle(struct server_config *config)
{
    struct ploop_bundle_config bundle_config = {.size = sizeof(bundle_config), .log = bundle_log};
    struct stat status;
    ploop_bundle *bundle;

    if (stat(config->image, &status) || !S_ISDIR(status.st_mode)) {
        return 0;
    }
    if (config->base_count) {
        nbdkit_error("%s: a bundle names its backing images itself", config->image);
        return -1;
    }
    int error = ploop_bundle_open(config->image, &bundle_config, &bundle);
    if (error) {
        nbdkit_set_error(-error); /* the log has said why */
        return -1;
    }
    int result = take_bundle(config, bundle);
    ploop_bundle_close(bundle);
    return result;
}
