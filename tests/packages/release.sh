#!/bin/bash
# SPDX-License-Identifier: MIT
#
# scripts/release: the version is one everywhere; a commit has one tarball, whatever the files' times; what is built from it in two
# folders is the same, byte for byte.
#
#   release.sh BUILD_DIRECTORY
source "$(dirname "$0")/../configurations/common"
"$top/scripts/release" versions
version=$(sed -n 's/^project(ploop VERSION \([0-9.]*\).*/\1/p' "$top/CMakeLists.txt")

# A copy with other times and another umask has the same tarball.
mkdir one two clone
"$top/scripts/release" tarball "$work/one" >/dev/null
git clone -q --shared "$top" clone/source 2>/dev/null || cannot "this is no clone of git"
(cd "$top" && git ls-files -z | tar --null --files-from=- -c) | (umask 077 && tar x --no-same-permissions -m -C clone/source)
(cd clone/source && git add -A && scripts/release tarball "$work/two") >/dev/null
cmp one/*.tar.gz two/*.tar.gz || fail "the tarball depends on more than the files"

for place in one two; do
    tar xf "$place/libploop-$version.tar.gz" -C "$place"
    source=$work/$place/libploop-$version
    cmake -S "$source" -B "$work/$place/b" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DPLOOP_BUILD_TESTS=OFF \
        -DCMAKE_C_FLAGS="-ffile-prefix-map=$work/$place=." >configure.log 2>&1 || { cat configure.log; fail "not configured"; }
    build "$place/b"
    DESTDIR=$work/$place/root cmake --install "$place/b" >install.log
done
diff -r one/root two/root || fail "what is installed depends on where it was built"
