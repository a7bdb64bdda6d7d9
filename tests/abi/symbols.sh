#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The headers, the version script and the built library name the same functions; the soname is the one that users link to; the
# installed archive defines no other name.
#
#   symbols.sh BUILD_DIRECTORY
set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "$0")" && pwd)
top=$here/../..
library=$1/src/libploop.so
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 "$here/headers.py" "$top/include" >"$work/headers"
sed -n 's/^ *\(ploop_[a-z0-9_]*\);.*/\1/p' "$top/src/libploop.map" | sort >"$work/map"
# The absolute symbol is the name of the version itself.
nm -D --defined-only "$library" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort >"$work/library"
nm --defined-only --extern-only "$1/src/libploop.a" | awk 'NF == 3 { print $3 }' | sort >"$work/archive"

status=0
same() {
    if ! diff "$work/$1" "$work/$2" >"$work/difference"; then
        echo "$1 (<) and $2 (>) differ:"
        grep '^[<>]' "$work/difference"
        status=1
    fi
}
same headers map
same headers library
same headers archive

unversioned=$(nm -D --defined-only "$library" | awk '$2 != "A"' | grep -v '@@LIBPLOOP_2\.[0-9]*$' || true)
[[ ! $unversioned ]] || { echo "without a version: $unversioned"; status=1; }

soname=$(readelf -d "$library" | sed -n 's/.*SONAME.*\[\(.*\)\]/\1/p')
[[ $soname == libploop.so.2 ]] || { echo "soname is '$soname'"; status=1; }

needed=$(readelf -d "$library" | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p' | grep -v -e '^libc\.so' -e '^ld-linux' -e '^liburing\.so' || true)
[[ ! $needed ]] || { echo "needs more than the C library and liburing: $needed"; status=1; }

echo "$(wc -l <"$work/headers") functions"
exit $status
