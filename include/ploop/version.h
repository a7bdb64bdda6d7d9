/* SPDX-License-Identifier: MIT */
/**
 * @file version.h
 * The version of the library, at compile time and at run time.
 */
#ifndef PLOOP_VERSION_H
#define PLOOP_VERSION_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    PLOOP_VERSION_MAJOR = 2, /**< incremented when the ABI breaks; also the soname's number */
    PLOOP_VERSION_MINOR = 0, /**< incremented when something is added */
    PLOOP_VERSION_PATCH = 0
};

/**
 * Get the version of the library that is loaded, which may be newer than these headers.
 *
 * @return major << 16 | minor << 8 | patch
 *
 * Any thread, callbacks included. @since 2.0
 */
uint32_t ploop_version(void);

#ifdef __cplusplus
}
#endif
#endif
