#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Installed below a prefix, the library can be built against through pkg-config (shared and static) and through CMake (both), and the
# programs run. The installed tools run, and nbdkit loads the plugin. The tree can be moved. Links of its documents lead somewhere.
#
#   consumers.sh BUILD_DIRECTORY
set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "$0")" && pwd)
build=$(cd "$1" && pwd)
version=$(sed -n 's/^project(ploop VERSION \([0-9.]*\).*/\1/p' "$here/../../CMakeLists.txt")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

cmake --install "$build" --prefix "$work/first" >install.log
mv first "a prefix"
prefix="$work/a prefix"
libdir=$(dirname "$(dirname "$(find "$prefix" -name ploop.pc)")")
export PKG_CONFIG_PATH=$libdir/pkgconfig

expect() {
    local got
    got=$("$@") || { echo "$* failed"; exit 1; }
    [[ $got == "$version" ]] || { echo "$*: expected '$version', got '$got'"; exit 1; }
}

expect pkg-config --modversion ploop
# pkg-config quotes for a shell.
eval "cc -o shared '$here/consumer.c' $(pkg-config --cflags --libs ploop)"
LD_LIBRARY_PATH="$libdir" expect ./shared
readelf -d shared | grep -q 'NEEDED.*libploop\.so\.2' || { echo "the shared consumer does not need libploop.so.2"; exit 1; }

eval "cc -static -o static '$here/consumer.c' $(pkg-config --cflags --libs --static ploop)"
expect ./static

eval "c++ -Wall -Wextra -pedantic -Wconversion -Werror -o shared '$here/consumer.cc' $(pkg-config --cflags --libs ploop)"
LD_LIBRARY_PATH="$libdir" expect ./shared
eval "c++ -static -o static '$here/consumer.cc' $(pkg-config --cflags --libs --static ploop)"
expect ./static

eval "cc -o bundle_consumer '$here/bundle_consumer.c' $(pkg-config --cflags --libs ploop-bundle)"
LD_LIBRARY_PATH="$libdir" expect ./bundle_consumer

cmake -S "$here" -B cmake -G Ninja -DCMAKE_PREFIX_PATH="$prefix" >cmake.log 2>&1 || { cat cmake.log; exit 1; }
cmake --build cmake >cmake.log 2>&1 || { cat cmake.log; exit 1; }
expect cmake/consumer
expect cmake/consumer_static
expect cmake/consumer_cc
expect cmake/bundle_consumer

"$prefix/bin/ploopctl" create --size 1M image.hds
nbdkit --dump-plugin "$(find "$prefix" -name nbdkit-ploop-plugin.so)" | grep -qx 'name=ploop'
python3 "$here/links.py" "$(dirname "$(find "$prefix" -name HACKING.md)")"
