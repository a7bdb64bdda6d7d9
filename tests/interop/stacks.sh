#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Random stacks: ploopctl and the nbdkit plugin read them as the oracle does, and data written over them is there.
#
#   stacks.sh BUILD_DIRECTORY [COUNT [SEED]]
set -u
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/ploop-stacks.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
/usr/bin/python3 "$here/stacks.py" "$1" "$work/stacks" "${2:-24}" "${3:-1}" # the Python that has libnbd
