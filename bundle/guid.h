/* SPDX-License-Identifier: MIT */
/* The names of snapshots: 16 bytes, written in braces, and in lower case where we write them. */
#ifndef BUNDLE_GUID_H
#define BUNDLE_GUID_H

#include <stdbool.h>
#include <stdint.h>

#include <ploop/bundle.h>

struct guid {
    uint8_t bytes[16];
};

/* The top of a bundle that names no other; in Parallels Desktop's and OpenVZ's bundles always. */
extern const struct guid guid_of_top;

/* "{xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx}"; false: it is nothing like it. */
bool guid_parse(const char *text, struct guid *guid);
void guid_print(const struct guid *guid, char text[PLOOP_BUNDLE_GUID_SIZE]);
bool guid_equal(const struct guid *one, const struct guid *other);
/* The parent of a root. */
bool guid_is_zero(const struct guid *guid);
/* A new one. 0 or -errno. */
int guid_random(struct guid *guid);

#endif
