#!/bin/bash
# SPDX-License-Identifier: MIT
# The oracle in C agrees with the one in Python, on every malformed image and on random ones, line for line and byte for byte.
#   oracle.sh BUILD_DIRECTORY
set -euo pipefail
build=$1
here=$(cd "$(dirname "$0")/.." && pwd)
oracle=$(find "$build" -type f -name oracle -perm -u+x | head -n 1)
[ -n "$oracle" ] || { echo "no oracle program below $build"; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 "$here/oracle/malformed.py" "$work/malformed"
python3 "$here/oracle/random_images.py" "$work/random" 200 1
exec python3 "$here/oracle/compare.py" "$oracle" "$work"/malformed/*.hds "$work"/random/*.hds
