#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A 32-bit build, as Debian's for i386: library, archive and tool; offsets beyond 2 and 4 GiB; the simulator,
# with assertions.
#
#   m32.sh BUILD_DIRECTORY
source "$(dirname "$0")/common"

flags=-m32
# Debian's headers of the kernel's for this machine, which gcc -m32 does not look for
[[ -d /usr/include/asm ]] || flags+=" -isystem /usr/include/$(gcc -print-multiarch)"
printf '#include <linux/fs.h>\nint main(void) { return 0; }\n' >empty.c
# shellcheck disable=SC2086
if ! { gcc $flags -o empty empty.c && ./empty; } 2>/dev/null; then
    cannot "no 32-bit compiler: install gcc-multilib"
fi

configure b -DCMAKE_C_COMPILER=gcc -DCMAKE_BUILD_TYPE=Debug "-DCMAKE_C_FLAGS=$flags -O1"
build b ploop ploop_static ploopctl sim example_hello example_overlay example_event_loop example_custom_backend
only_public b/src/libploop.a
for example in b/examples/{hello,overlay,event_loop,custom_backend}; do
    "$example" >example.log || fail "$example: $(cat example.log)"
done
b/tools/ploopctl create --size 10M a.hds
b/tools/ploopctl check a.hds

for library in "b/src/libploop.so -Wl,-rpath,$work/b/src" b/src/libploop.a; do
    # shellcheck disable=SC2086
    gcc $flags -Wall -Wextra -Werror -I "$top/include" -o far "$top/tests/configurations/far.c" $library -pthread
    rm -f far.hds
    ./far far.hds || fail "offsets beyond 2 GiB with $library"
    [[ $(stat -c %s far.hds) -gt 6000000000 ]] || fail "the file is too short: $(stat -c %s far.hds)"
    b/tools/ploopctl check far.hds
done

b/tests/sim --scenario all >sim.log || { tail -n 20 sim.log; fail "the simulator's scenarios"; }
b/tests/sim --seed 1 --cuts 500 --jobs 2 >sim.log || { tail -n 20 sim.log; fail "the simulator's random runs"; }
