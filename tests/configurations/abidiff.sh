#!/bin/bash
# SPDX-License-Identifier: MIT
#
# abidiff sees nothing incompatible between the library of 2.0, as libploop-2.0.abi describes it, and today's. Changes that it calls
# compatible are printed. For a new release: abidw --exported-interfaces-only with
# the options that it was made with: --headers-dir include --drop-private-types --no-corpus-path --no-comp-dir-path --no-show-locs,
# and sed to take this machine's folders out of the paths.
#
#   abidiff.sh BUILD_DIRECTORY      BUILD_DIRECTORY has a library with debug information
source "$(dirname "$0")/common"

command -v abidiff >/dev/null || cannot "no abidiff: install abigail-tools"
status=0
abidiff --drop-private-types --headers-dir2 "$top/include" "$top/tests/abi/libploop-2.0.abi" \
    "$(cd "$top" && cd "${1:?}" && pwd)/src/libploop.so" || status=$?
# Bits: 1 and 2 an error, 4 a change, 8 an incompatible one.
((status & 11)) && fail "abidiff: $status"
exit 0
