/* SPDX-License-Identifier: MIT */
/*
 * Probes for tracers (docs/guide/probes.md): a nop each, and a note in the file of where it is and
 * where its arguments are. Without sys/sdt.h, or with PLOOP_PROBES=OFF, there is nothing.
 *
 * Arguments are what is at hand in registers there anyway: a probe loads nothing for nobody.
 */
#ifndef UTIL_PROBE_H
#define UTIL_PROBE_H

#ifdef PLOOP_WITH_PROBES
#include <sys/sdt.h>
#ifdef __clang__ /* of that header's macros, where they are used */
#pragma clang diagnostic ignored "-Wgnu-zero-variadic-macro-arguments"
#endif
#define PROBE2(name, a, b) DTRACE_PROBE2(ploop, name, a, b)
#define PROBE3(name, a, b, c) DTRACE_PROBE3(ploop, name, a, b, c)
#else
#define PROBE2(name, a, b) ((void)0)
#define PROBE3(name, a, b, c) ((void)0)
#endif

#endif
