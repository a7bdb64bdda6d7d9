#!/bin/bash
# SPDX-License-Identifier: MIT
#
# frozen/consumer-2.0, the program that was compiled once from frozen/consumer.c and the headers of 2.0, runs with today's library. It
# is for x86-64 and the GNU C library from 2.34 on, and never compiled again. It was made by
#
#   gcc -std=c99 -Os -s -Wl,-z,noseparate-code -Wl,--build-id=none -I include tests/abi/frozen/consumer.c -lploop
#
# Exit status 77: this is another machine.
#
#   frozen_program.sh BUILD_DIRECTORY
set -euo pipefail
program=$(cd "$(dirname "$0")" && pwd)/frozen/consumer-2.0
library=$(cd "$1" && pwd)/src

[[ -x $program ]] || { echo "$program is missing"; exit 1; }
if [[ $(uname -m) != x86_64 ]] || ! getconf GNU_LIBC_VERSION | awk '{ split($2, v, "."); exit !(v[1] > 2 || v[2] >= 34) }'; then
    echo "frozen_program: only for x86-64 and the GNU C library from 2.34 on"
    exit 77
fi
# Of the library it has what 2.0 exported, and that by its version.
names=$(nm -D "$program" | sed -n 's/.* U \(ploop_[a-z_]*\)@LIBPLOOP_2.0$/\1/p' | wc -l)
((names >= 30)) || { echo "it uses $names functions of the library"; exit 1; }
LD_LIBRARY_PATH=$library "$program"
echo "$names functions, compiled $(stat -c %s "$program") bytes"
