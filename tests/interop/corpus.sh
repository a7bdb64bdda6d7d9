#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Images as other software writes them (tests/corpus): checking each, opening it read-only and for writing, and repairing it give what
# the corpus says. The table is also written to BUILD_DIRECTORY/corpus.table.
#
#   corpus.sh BUILD_DIRECTORY
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/ploop-corpus.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
python3 "$here/../corpus/corpus.py" "$work/cases" || exit 1
python3 "$here/malformed_cases.py" "$1" "$work/cases" 60 | tee "$1/corpus.table"
