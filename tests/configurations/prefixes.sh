#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Where things are installed: below /usr with DESTDIR, as a packager does, ploop.pc names system folders, so that pkg-config leaves
# them out; with the multiarch folder of Debian, and with one that is not below the prefix. Archives only: they can be linked to by
# what ploop.pc and the CMake package say. Without tools no manual page of theirs is there. Relative links of the documents lead
# somewhere.
#
#   prefixes.sh BUILD_DIRECTORY
source "$(dirname "$0")/common"

multiarch=$(gcc -print-multiarch)
# flags ROOT LIBDIR OPTION...: what pkg-config says of the tree below ROOT
flags() { PKG_CONFIG_LIBDIR="$1/$2/pkgconfig" pkg-config "${@:3}" ploop; }

configure b -DPLOOP_BUILD_TESTS=OFF -DCMAKE_INSTALL_PREFIX=/usr -DCMAKE_INSTALL_LIBDIR="lib/$multiarch"
build b
DESTDIR=$work/usr cmake --install b >install.log
for file in usr/bin/ploopctl usr/include/ploop/ploop.h "usr/lib/$multiarch/libploop.so.2" "usr/lib/$multiarch/libploop.a" \
    usr/share/man/man1/ploopctl.1 usr/share/doc/ploop/examples/hello.c usr/share/doc/ploop/README.md \
    "usr/lib/$multiarch/cmake/ploop/ploopConfig.cmake"; do
    [[ -e usr/$file ]] || fail "not installed: $file"
done
got=$(flags usr/usr "lib/$multiarch" --cflags --libs)
[[ ${got% } == -lploop ]] || fail "flags for /usr are '$got'"
got=$(flags usr/usr "lib/$multiarch" --variable=libdir)
[[ $got == "/usr/lib/$multiarch" ]] || fail "libdir is '$got'"
grep -q "$work" -r usr --include='*.pc' --include='*.cmake' && fail "a file names the place where it was built"
python3 "$top/tests/install/links.py" usr/usr/share/doc/ploop

# elsewhere, moved
cmake --install b --prefix "$work/first" >install.log
mv first second
got=$(flags second "lib/$multiarch" --cflags --libs)
[[ $got == *"-Isecond/lib/$multiarch/pkgconfig/../../../include"* ]] || fail "flags of a tree that was moved are '$got'"

configure apart -DPLOOP_BUILD_TESTS=OFF -DPLOOP_TOOLS=OFF -DCMAKE_INSTALL_PREFIX=/usr -DCMAKE_INSTALL_LIBDIR=/opt/ploop/lib
DESTDIR=$work/apart.root
export DESTDIR
build apart
cmake --install apart >install.log
unset DESTDIR
got=$(flags apart.root /opt/ploop/lib --libs)
[[ ${got% } == "-L/opt/ploop/lib -lploop" ]] || fail "flags for /opt/ploop/lib are '$got'"
[[ ! -e apart.root/usr/share/man/man1 ]] || fail "pages of tools without tools: $(ls apart.root/usr/share/man/man1)"

# archives only
configure archives -DPLOOP_BUILD_TESTS=OFF -DBUILD_SHARED_LIBS=OFF
build archives
cmake --install archives --prefix "$work/only" >install.log
[[ ! $(find only -name '*.so*' ! -name 'nbdkit-*') ]] || fail "a shared library where only archives were wanted"
for module in ploop ploop-bundle; do
    consumer=consumer.c
    [[ $module == ploop ]] || consumer=bundle_consumer.c
    # shellcheck disable=SC2046
    gcc -o consumer "$top/tests/install/$consumer" $(PKG_CONFIG_PATH=$(dirname "$(find "$work/only" -name ploop.pc)") pkg-config --cflags --libs $module)
    [[ $(./consumer) == 2.* ]] || fail "a consumer of the archive by pkg-config"
done
cmake -S "$top/tests/install" -B consumer.cmake -G Ninja -DCMAKE_PREFIX_PATH="$work/only" >cmake.log 2>&1 || { cat cmake.log; fail "find_package"; }
cmake --build consumer.cmake >cmake.log 2>&1 || { cat cmake.log; fail "a consumer of the archive by CMake"; }
consumer.cmake/consumer >/dev/null && consumer.cmake/bundle_consumer >/dev/null
