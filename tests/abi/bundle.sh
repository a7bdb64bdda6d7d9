#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The library of bundles exports what its header declares, under its own version; it needs the core library, libxml2 and the C library.
# The core library does not need libxml2. A C++ program links to it.
#
#   bundle.sh BUILD_DIRECTORY
set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "$0")" && pwd)
top=$here/../..
build=$(cd "$1" && pwd)
library=$build/bundle/libploop-bundle.so
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 "$here/headers.py" "$top/include" ploop/bundle.h >"$work/headers"
sed -n 's/^ *\(ploop_[a-z0-9_]*\);.*/\1/p' "$top/bundle/libploop-bundle.map" | sort >"$work/map"
nm -D --defined-only "$library" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort >"$work/library"
nm --defined-only --extern-only "$build/bundle/libploop-bundle.a" | awk 'NF == 3 { print $3 }' | sort >"$work/archive"

status=0
for names in map library archive; do
    if ! diff "$work/headers" "$work/$names" >"$work/difference"; then
        echo "headers (<) and $names (>) differ:"
        grep '^[<>]' "$work/difference"
        status=1
    fi
done
unversioned=$(nm -D --defined-only "$library" | awk '$2 != "A"' | grep -v '@@LIBPLOOP_BUNDLE_2\.[0-9]*$' || true)
[[ ! $unversioned ]] || { echo "without a version: $unversioned"; status=1; }
soname=$(readelf -d "$library" | sed -n 's/.*SONAME.*\[\(.*\)\]/\1/p')
[[ $soname == libploop-bundle.so.2 ]] || { echo "soname is '$soname'"; status=1; }
needed=$(readelf -d "$library" | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p' | grep -v -e '^libc\.so' -e '^ld-linux' | sort | tr '\n' ' ')
[[ $needed == "libploop.so.2 libxml2.so.2 " ]] || { echo "needs '$needed'"; status=1; }
! readelf -d "$build/src/libploop.so" | grep libxml2 || { echo "the core library needs libxml2"; status=1; }

{
    echo '#include <ploop/bundle.h>'
    echo 'template <class F> static bool there(F *f) { return f != nullptr; }'
    echo 'int main() { return'
    while read -r function; do echo "there($function) &&"; done <"$work/headers"
    echo 'ploop_bundle_open("/", nullptr, nullptr) < 0 ? 0 : 1; }'
} >"$work/all.cc"
g++ -Wall -Wno-address -Werror -I "$top/include" -o "$work/all" "$work/all.cc" -L "$build/bundle" -lploop-bundle \
    -Wl,-rpath,"$build/bundle" -Wl,-rpath-link,"$build/src"
LD_LIBRARY_PATH=$build/src "$work/all"
echo "$(wc -l <"$work/headers") functions"
exit $status
