#!/bin/bash
# SPDX-License-Identifier: MIT
#
# With the C library musl, of which hypervisors are linked statically: the library builds, and a static program creates an image,
# writes, and finds the bytes beyond 4 GiB; so do some runs of the simulator.
#
#   musl.sh BUILD_DIRECTORY
source "$(dirname "$0")/common"

command -v musl-gcc >/dev/null || cannot "no musl-gcc: install musl-tools"
mkdir kernel # musl-gcc looks in no folder that has the kernel's headers
ln -s /usr/include/linux kernel/linux
ln -s /usr/include/asm-generic kernel/asm-generic
for asm in /usr/include/asm "/usr/include/$(gcc -print-multiarch)/asm"; do [[ ! -d $asm ]] || ln -sf "$asm" kernel/asm; done

configure b -DCMAKE_C_COMPILER=musl-gcc "-DCMAKE_C_FLAGS=-isystem $work/kernel -O1" -DCMAKE_BUILD_TYPE=Debug -DPLOOP_TOOLS=OFF
build b ploop ploop_static sim
only_public b/src/libploop.a
musl-gcc -static -isystem kernel -Wall -Wextra -Werror -I "$top/include" -o far "$top/tests/configurations/far.c" b/src/libploop.a -pthread
./far far.hds
# Few: this library gives memory back to the system at once, and each device takes much.
b/tests/sim --seed 1 --cuts 200 --jobs 2 >sim.log || { tail -n 20 sim.log; fail "the simulator's random runs"; }
