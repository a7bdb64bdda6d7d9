#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Each public header compiles alone, included first and twice, as C99, C11 and C++, pedantically, with gcc and clang.
#
#   standalone.sh BUILD_DIRECTORY
set -euo pipefail
export LC_ALL=C

include=$(cd "$(dirname "$0")/../../include" && pwd)
# Not -Wshadow: to C++ a function named like its structure (ploop_dev_info) hides a constructor, which no program needs.
warnings=(-Wall -Wextra -Wpedantic -Wconversion -Wundef -Werror -fsyntax-only)
status=0
for header in "$include"/ploop/*.h; do
    name=ploop/${header##*/}
    for how in "gcc -std=c99 -Wc++-compat -x c" "clang -std=c99 -Wc++-compat -x c" "gcc -std=c11 -x c" "g++ -std=c++11 -x c++" "clang++ -std=c++17 -x c++"; do
        read -ra command <<<"$how"
        if ! printf '#include <%s>\n#include <%s>\nint nothing_else;\n' "$name" "$name" |
            "${command[@]}" "${warnings[@]}" -I "$include" -; then
            echo "$name fails with $how"
            status=1
        fi
    done
done
exit $status
