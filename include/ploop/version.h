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

/** What a library may have or not: see ploop_has(). A later version knows more of them. */
enum {
    PLOOP_FEATURE_URING = 1,            /**< io_uring was there when it was built */
    PLOOP_FEATURE_STACKS = 2,           /**< devices of several images */
    PLOOP_FEATURE_REPAIR = 3,           /**< ploop_check_options.repair */
    PLOOP_FEATURE_REAP = 4,             /**< ploop_queue_reap(), ploop_queue_set_notify() */
    PLOOP_FEATURE_OPEN_FD = 5,          /**< ploop_file_open_fd() */
    PLOOP_FEATURE_REGISTERED_MEMORY = 6 /**< ploop_dev_register_memory() */
};

/**
 * Find out whether the library that is loaded has a feature, instead of trying it.
 *
 * @param feature  PLOOP_FEATURE_ ...
 * @return 1; 0: it has not, or does not know the number
 *
 * Any thread. @since 2.0
 */
uint32_t ploop_has(uint32_t feature);

#ifdef __cplusplus
}
#endif
#endif
