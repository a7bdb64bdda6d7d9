#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Every malformed image: the expected results of checking it, opening it read-only, opening it for writing and repairing it, and the
# actual ones. The table is also written to BUILD_DIRECTORY/malformed.table.
#
#   malformed.sh BUILD_DIRECTORY
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/ploop-malformed.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
python3 "$here/../oracle/malformed.py" "$work/cases" || exit 1
python3 "$here/malformed_cases.py" "$1" "$work/cases" | tee "$1/malformed.table"
