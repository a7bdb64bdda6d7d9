#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Libraries that are built from imagined later headers (tests/abi/successors.py) serve programs of today: one that is compiled with
# today's headers, and the one that is kept from the first release.
#
#   successors.sh BUILD_DIRECTORY
source "$(dirname "$0")/common"

gcc -std=c99 -Wall -Wextra -Werror -O1 -I "$top/include" -o today "$top/tests/abi/frozen/consumer.c" \
    -L "$(cd "$top" && cd "${1:?}" && pwd)/src" -lploop
(cd "$top" && git ls-files -z CMakeLists.txt LICENSE README.md CHANGELOG.md HACKING.md cmake src include bundle docs examples |
    xargs -0 tar -cf -) >tree.tar
for seed in 1001 1002 1003; do
    mkdir $seed
    tar -xf tree.tar -C $seed
    rm -r $seed/include/ploop
    python3 "$top/tests/abi/successors.py" make "$top/include" $seed $seed/include
    cmake -S $seed -B $seed/b -G Ninja -DCMAKE_BUILD_TYPE=Debug -DPLOOP_BUILD_TESTS=OFF -DPLOOP_TOOLS=OFF >configure.log 2>&1 ||
        { cat configure.log; fail "not configured"; }
    build $seed/b ploop
    LD_LIBRARY_PATH=$seed/b/src ./today || fail "a program of today with successor $seed"
    ! cmp -s $seed/include/ploop/dev.h "$top/include/ploop/dev.h" || fail "successor $seed has the same header"
done
