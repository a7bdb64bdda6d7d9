#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The program that was compiled from frozen/consumer.c and the headers of 2.0 runs with today's library; so does the source, compiled
# today. The program is for x86-64 and the GNU C library; it is never compiled again.
#
#   frozen.sh BUILD_DIRECTORY
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
library=$(cd "$1" && pwd)/src
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

gcc -std=c99 -Wall -Wextra -Werror -I "$here/../../include" -o "$work/today" "$here/frozen/consumer.c" -L "$library" -lploop
LD_LIBRARY_PATH=$library "$work/today"
if [[ $(uname -m) == x86_64 && -e $here/frozen/consumer-2.0 ]]; then
    LD_LIBRARY_PATH=$library "$here/frozen/consumer-2.0"
fi
