#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The RPM spec file: rpmbuild builds it from the tarball of scripts/release; every installed file is in a package, and the packages
# have what they should.
#
#   rpm.sh BUILD_DIRECTORY
source "$(dirname "$0")/../configurations/common"
command -v rpmbuild >/dev/null || cannot "rpmbuild is missing; scripts/install-deps full installs it"

mkdir -p rpm/SOURCES
"$top/scripts/release" tarball "$work/rpm/SOURCES" >/dev/null
# Where rpm is not the distribution's own, it knows no installed packages (--nodeps); and which folder is the libraries' it says.
env -u CMAKE_GENERATOR rpmbuild -ba --nodeps --define "_topdir $work/rpm" --define "_lib lib64" --define "_smp_mflags -j2" \
    "$top/packaging/libploop.spec" >build.log 2>&1 || { tail -n 60 build.log; fail "rpmbuild"; }
# package NAME FILE...
package() {
    local rpm
    rpm=$(echo rpm/RPMS/*/"$1"-2*.rpm)
    [[ -e $rpm ]] || fail "no package $1"
    rpm -qlp "$rpm" >files 2>rpm.log
    for file in "${@:2}"; do grep -qx "$file" files || fail "$1 has no $file: $(cat files)"; done
}
package libploop /usr/lib64/libploop.so.2 /usr/lib64/libploop.so.2.0.0
package libploop-bundle /usr/lib64/libploop-bundle.so.2
package libploop-devel /usr/include/ploop/ploop.h /usr/lib64/libploop.so /usr/lib64/libploop.a /usr/lib64/pkgconfig/ploop.pc \
    /usr/share/doc/libploop-devel/README.md
package ploopctl /usr/bin/ploopctl '/usr/share/man/man1/ploopctl.1.*'
package nbdkit-ploop-plugin '/usr/lib64/nbdkit/plugins/nbdkit-ploop-plugin.so'
[[ $(rpm -qp --conflicts rpm/RPMS/*/libploop-devel-2*.rpm 2>/dev/null) == ploop-devel ]] || fail "OpenVZ's ploop-devel is no conflict"
