/* SPDX-License-Identifier: MIT */
/*
 * Included by the build before every source file of the library: what the public headers declare is
 * visible, all else hidden.
 */
#ifndef VISIBILITY_H
#define VISIBILITY_H

#pragma GCC visibility push(default)
#include <ploop/ploop.h>
#pragma GCC visibility pop

#endif
