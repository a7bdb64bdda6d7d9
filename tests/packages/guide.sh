#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The guide's first page to the letter: built from source and installed here, and then in a fresh Debian of the same release (a chroot
# that debootstrap makes) with our packages in place of the build. That has nothing but what they depend on and a C compiler.
#
# The packages of Debian come from where apt has them here; DEBIAN_MIRROR names another place.
#
#   guide.sh BUILD_DIRECTORY
source "$(dirname "$0")/common"
build=$(cd "$top" && cd "$1" && pwd)
GUIDE_FROM_SOURCE=1 "$top/tests/install/guide.sh" "$build"

((EUID == 0)) || cannot "a chroot needs root; the guide from source is right"
command -v debootstrap >/dev/null || cannot "debootstrap is missing; the guide from source is right"
needs_packaging
codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
# shellcheck disable=SC2016  # apt's own
mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Codename: $codename" | head -n 1)}
[[ $mirror ]] || cannot "apt has no place for $codename"

build_packages
root=$work/root
debootstrap --variant=minbase --include=gcc,libc6-dev,pkg-config "$codename" "$root" "$mirror" >debootstrap.log 2>&1 ||
    cannot "debootstrap: $(tail -n 1 debootstrap.log)"
mkdir "$root/packages"
cp ./*.deb "$root/packages"
apt-config dump | grep -E '^Acquire::(http|https|Check|Retries|Languages)' >"$root/etc/apt/apt.conf.d/99host" || true
inside() {
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C HOME=/root DEBIAN_FRONTEND=noninteractive chroot "$root" "$@"
}
inside bash -c 'apt-get -q update && apt-get -q -y install --no-install-recommends /packages/*.deb' >apt.log 2>&1 ||
    { tail -n 30 apt.log; fail "the packages cannot be installed"; }
mkdir "$root/guide"
"$top/tests/install/page.py" "$top/docs/guide/first-disk.md" "export PREFIX=/usr" >"$root/guide/page.sh"
inside bash -c 'cd /guide && bash page.sh' >page.log 2>&1 || { tail -n 30 page.log; fail "the first page, in $codename"; }
echo "the first page in a fresh $codename, with our packages"
