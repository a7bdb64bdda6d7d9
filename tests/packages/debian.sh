#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The Debian source package: dpkg-buildpackage builds it from the tarball of scripts/release, lintian finds no error, every file is in
# one package and no file in one of OpenVZ's, and programs in C and C++ can be built against what the packages have, by pkg-config
# (shared, static) and by find_package. The tool and the plugin run.
#
#   debian.sh BUILD_DIRECTORY
source "$(dirname "$0")/common"
needs_packaging
multiarch=$(gcc -print-multiarch)
build_packages
! grep -E 'dpkg-shlibdeps: warning|dh_missing: warning|dpkg-gensymbols: warning' build.log || fail "a warning of the packaging"
# "bad-distribution": it is not released yet.
lintian --fail-on error --suppress-tags bad-distribution-in-changes-file --no-cfg ./*.changes >lintian.log 2>&1 || { cat lintian.log; fail "lintian"; }

packages="libploop2 libploop-bundle2 libploop-dev ploopctl nbdkit-plugin-ploop"
for package in $packages; do
    file=$(echo "$package"_*.deb)
    [[ -e $file ]] || fail "no package $package"
    dpkg-deb -c "$file" | awk '$1 !~ /^d/ { print $6 }' | sort >"$package.files"
    dpkg-deb -x "$file" root
done
cat ./*.files | sort | uniq -d >twice
[[ ! -s twice ]] || fail "in two packages: $(cat twice)"
[[ $(dpkg-deb -f libploop-dev_*.deb Conflicts) == "libploop-dev (<< 2)" ]] || fail "OpenVZ's libploop-dev is no conflict"
for other in libploop1 ploop; do
    dpkg -L $other 2>/dev/null | while read -r file; do [[ -d $file ]] || echo ".$file"; done | sort >other.files
    [[ ! $(comm -12 other.files <(cat ./*[2lvp].files | sort)) ]] || fail "a file of OpenVZ's $other"
done
grep -q "libploop.so.2.0.0$" libploop2.files || fail "libploop2 has no library"
grep -qx 'libc6.*' <(dpkg-deb -f libploop2_*.deb Depends | tr , '\n') || fail "libploop2 depends on no libc6"
! grep -q libxml2 <(dpkg-deb -f libploop2_*.deb Depends) || fail "libploop2 needs libxml2"
python3 "$top/tests/install/links.py" root/usr/share/doc/libploop-dev

# ---- Programs ----

export PKG_CONFIG_SYSROOT_DIR=$work/root PKG_CONFIG_LIBDIR=$work/root/usr/lib/$multiarch/pkgconfig:/usr/lib/$multiarch/pkgconfig
export LD_LIBRARY_PATH=$work/root/usr/lib/$multiarch
flags=(-I "$work/root/usr/include" -L "$work/root/usr/lib/$multiarch")
expect() { [[ $("$@") == "$version" ]] || fail "$*"; }
for compiler in "gcc -x c" "g++ -x c++"; do
    source=$top/tests/install/consumer.c
    [[ $compiler == gcc* ]] || source=$top/tests/install/consumer.cc
    # shellcheck disable=SC2046,SC2086
    {
        $compiler -o shared "$source" -x none "${flags[@]}" $(pkg-config --libs ploop)
        $compiler -o static "$source" -x none "${flags[@]}" -static $(pkg-config --libs --static ploop)
    }
    expect ./shared
    expect ./static
done
cmake -S "$top/tests/install" -B cmake -G Ninja -DCMAKE_PREFIX_PATH="$work/root/usr" -DCMAKE_LIBRARY_ARCHITECTURE="$multiarch" >cmake.log 2>&1 ||
    { cat cmake.log; fail "find_package"; }
cmake --build cmake >cmake.log 2>&1 || { cat cmake.log; fail "consumers by find_package"; }
for consumer in consumer consumer_static consumer_cc bundle_consumer; do expect "cmake/$consumer"; done
root/usr/bin/ploopctl create --size 1M image.hds
nbdkit --dump-plugin "root/usr/lib/$multiarch/nbdkit/plugins/nbdkit-ploop-plugin.so" | grep -qx 'name=ploop'
sed -n 's/^\([EW]\): /lintian: \1: /p' lintian.log
