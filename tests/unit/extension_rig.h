/* SPDX-License-Identifier: MIT */
/* Images with a format extension, for tests of devices that write them. */
#ifndef EXTENSION_RIG_H
#define EXTENSION_RIG_H

#include "device_fixture.h"

enum { CLUSTER = 4096, DISK_SECTORS = 8800, CLOSED = 0x312e3276, IN_USE = 0x746F6E59 };
enum { AT_IN_USE = 44, AT_EXT_OFF = 56, EXTENSION_HOST = 5, BITMAP_HOST = 6, HOSTS = 7 };
enum { NECESSARY = 1, TRANSIT = 2 };

#define UNKNOWN 0x1122334455667788u /* the magic of an unknown feature, and its letter */

/* Features, as letters (extension_rig.c), and those of them that outlive a change. */
struct extension_mix {
    const char *features, *kept;
};
enum { EXTENSION_MIXES = 17 };
extern const struct extension_mix extension_mixes[EXTENSION_MIXES];

/* Host clusters 0 to 4 are guests', 5 the extension's, 6 the bits'. */
void extension_make(struct rig *rig, uint32_t version, uint32_t in_use, const char *features);
uint32_t in_use(const struct rig *rig);
uint64_t extension_at(const struct rig *rig);
uint64_t host_at(const struct rig *rig, uint64_t host);

/*
 * The features that the oracle finds at ext_off, whatever in_use says; "!" for one that is not
 * whole.
 */
void extension_found(const struct rig *rig, char letters[16]);

/* ext_off leads to an extension with these features, or ("") nowhere, whatever in_use says. */
void extension_expect(const struct rig *rig, const char *letters);
/* Every mapped cluster has its own bytes. */
void extension_expect_guest(struct rig *rig);

#endif
