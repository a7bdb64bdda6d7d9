#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A C++ program links to the library: the headers say extern "C".
#
#   cplusplus.sh BUILD_DIRECTORY
set -euo pipefail
export LC_ALL=C

include=$(cd "$(dirname "$0")/../../include" && pwd)
build=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
functions=$(python3 "$(dirname "$0")/headers.py" "$include")
{
    echo '#include <ploop/ploop.h>'
    echo 'template <class F> static bool there(F *f) { return f != nullptr; }'
    echo 'int main() { return'
    for function in $functions; do echo "there($function) &&"; done
    echo '(ploop_version() >> 16) == PLOOP_VERSION_MAJOR ? 0 : 1; }'
} >"$work/all.cc"
# The address of a function is never null, and compilers say so.
g++ -Wall -Wno-address -Werror -I "$include" -o "$work/all" "$work/all.cc" -L "$build/src" -lploop -Wl,-rpath,"$build/src"
"$work/all"
