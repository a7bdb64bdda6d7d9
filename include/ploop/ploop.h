/* SPDX-License-Identifier: MIT */
/**
 * @file ploop.h
 * The whole public interface of libploop, the ploop disk engine.
 *
 * Conventions that hold everywhere:
 *  - Sizes and offsets are bytes, times nanoseconds of the device's clock; the unit ends the name.
 *  - A function returns 0 or a count for success and a negative errno value for failure; its
 *    comment lists which.
 *  - A structure that the caller fills or reads starts with its `size`: set it to sizeof of the
 *    structure and the rest to zero. A size that is larger than the library knows is accepted as
 *    long as the unknown bytes are zero, else -E2BIG. No structure has padding, on any machine, so
 *    that none of its bytes is undefined.
 *  - Constants are enumerators of unnamed enums; the fields that hold them are uint32_t.
 *  - Handles are opaque, every callback has a user pointer, and nothing here is an inline function
 *    or a macro with arguments.
 */
#ifndef PLOOP_H
#define PLOOP_H

#include <ploop/version.h>

#include <ploop/file.h>

#include <ploop/dev.h>

#include <ploop/pio.h>

#include <ploop/bat.h>

#include <ploop/image.h>

#include <ploop/ops.h>

#endif
