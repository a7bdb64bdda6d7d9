#!/bin/bash
# SPDX-License-Identifier: MIT
#
# frozen/consumer.c, an embedder as it was written for 2.0, is compiled with today's headers and runs with today's library.
#
#   frozen.sh BUILD_DIRECTORY
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
library=$(cd "$1" && pwd)/src
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

gcc -std=c99 -Wall -Wextra -Werror -I "$here/../../include" -o "$work/today" "$here/frozen/consumer.c" -L "$library" -lploop
LD_LIBRARY_PATH=$library "$work/today"
