#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The library has the probes that docs/guide/probes.md lists, and no others; of a build without sys/sdt.h there is nothing to ask.
#
#   probes.sh BUILD_DIRECTORY
set -euo pipefail
export LC_ALL=C
here=$(cd "$(dirname "$0")" && pwd)
if ! grep -q '^PLOOP_HAVE_SDT:INTERNAL=1' "$1/CMakeCache.txt" || grep -q '^PLOOP_PROBES:BOOL=OFF' "$1/CMakeCache.txt"; then
    ! readelf -n "$1/src/libploop.so" | grep -q stapsdt || { echo "probes, though there is no sys/sdt.h"; exit 1; }
    echo "built without probes"
    exit 0
fi
# shellcheck disable=SC2016  # backquotes of Markdown
documented=$(sed -n 's/^| `ploop:\([a-z_]*\)`.*/\1/p' "$here/../../docs/guide/probes.md" | sort)
found=$(readelf -n "$1/src/libploop.so" | sed -n '/Provider: ploop$/{n;s/^ *Name: //p}' | sort -u)
[[ $found && $found == "$documented" ]] || { echo "probes: $found; documented: $documented"; exit 1; }
echo "$(wc -l <<<"$found") probes"
