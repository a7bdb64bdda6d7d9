#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The program in README.md compiles without a warning, runs, and leaves a clean image.
#
#   readme.sh BUILD_DIRECTORY
set -euo pipefail
export LC_ALL=C

top=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# shellcheck disable=SC2016  # backquotes of Markdown
sed -n '/^```c$/,/^```$/p' "$top/README.md" | grep -v '^```' >hello.c
cc -Wall -Wextra -Wpedantic -Werror -I "$top/include" -o hello hello.c -L "$build/src" -lploop -Wl,-rpath,"$build/src"
[[ $(./hello) == "hello, disk" ]]
"$build/tools/ploopctl" check hello.hds
qemu-img check -q -f parallels hello.hds
