/* SPDX-License-Identifier: MIT */
/* Included by the build before every source file here: as src/visibility.h. */
#ifndef BUNDLE_VISIBILITY_H
#define BUNDLE_VISIBILITY_H

#pragma GCC visibility push(default)
#include <ploop/bundle.h>
#include <ploop/ploop.h>
#pragma GCC visibility pop

#endif
