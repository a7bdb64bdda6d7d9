#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Programs that were compiled with headers of imagined later versions run with this library, and are told where they ask for what it
# does not have. In the quick tier some of the 200. (The other way round: tests/configurations/successors.sh.)
#
#   successors.sh BUILD_DIRECTORY
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
count=200
[[ ${TIER-full} == full ]] || count=10
python3 "$here/successors.py" try "$here/../../include" $count "$1/src" "$here/frozen/consumer.c"
