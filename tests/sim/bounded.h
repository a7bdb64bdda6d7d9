/* SPDX-License-Identifier: MIT */
/*
 * The command line `sim --bounded N ...`: every short sequence, distributed to processes; see
 * bounded_play.h.
 */
#ifndef SIM_BOUNDED_H
#define SIM_BOUNDED_H

int bounded_main(int argc, char **argv); /* argv[1] is --bounded */

#endif
