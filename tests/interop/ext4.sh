#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A file system with real files is written to an image through nbdkit and the plugin. QEMU then serves the image, and the client sees
# the same file system, clean. After that QEMU changes the file system in the image, and the plugin serves the changes.
#
#   ext4.sh BUILD_DIRECTORY
set -euo pipefail
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"

build=$(cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
plugin=$build/tools/nbdkit-ploop-plugin.so
ploopctl=$build/tools/ploopctl
oracle=$here/../oracle/ploop_oracle.py
work=$(mktemp -d "${TMPDIR:-/tmp}/ploop-ext4.XXXXXX")
trap 'if [[ -s $work/pid ]]; then kill -9 "$(cat "$work/pid")" 2>/dev/null || true; fi; rm -rf "$work"' EXIT
trap 'echo "FAIL: line $LINENO: $BASH_COMMAND" >&2' ERR
cd "$work"

# through_plugin OPTIONS COMMAND: with the image served as $uri, which nbdkit sets
through_plugin() {
    # shellcheck disable=SC2086
    nbdkit $1 --unix - "$plugin" image=a.hds --run "$2"
}

through_qemu() {
    local status=0
    qemu-nbd "$1" -f parallels -k "$work/sock" --pid-file=pid --fork --persistent a.hds
    eval "$2" || status=$?
    kill "$(cat pid)"
    while [[ -e pid ]] && kill -0 "$(cat pid)" 2>/dev/null; do sleep 0.05; done
    rm -f pid
    return $status
}

for kind in "--cluster 1M" "--cluster 64K" "--cluster 256K --v1"; do
    rm -f a.hds raw back
    mke2fs -q -t ext4 -d "$here/../../src" raw 48M >/dev/null 2>&1
    # shellcheck disable=SC2086
    "$ploopctl" create --size 48M $kind a.hds
    # shellcheck disable=SC2016
    through_plugin "" 'nbdcopy --flush raw "$uri"'
    python3 "$oracle" check a.hds >/dev/null
    qemu-img check -q -f parallels a.hds
    qemu-img compare -q -f raw -F parallels raw a.hds

    uri="nbd+unix:///?socket=$work/sock"
    through_qemu --read-only "nbdcopy '$uri' back"
    cmp raw back
    e2fsck -f -n back >e2fsck.log 2>&1 || { cat e2fsck.log; exit 1; }

    # The other way round: a second file system, written by QEMU, read by the plugin.
    mke2fs -q -F -t ext4 -d "$here" -L second raw >/dev/null 2>&1
    through_qemu --cache=writeback "nbdcopy --flush raw '$uri'"
    python3 "$oracle" check a.hds >/dev/null
    rm back
    # shellcheck disable=SC2016
    through_plugin --readonly 'nbdcopy "$uri" back'
    cmp raw back
    e2fsck -f -n back >e2fsck.log 2>&1 || { cat e2fsck.log; exit 1; }
    echo "ok   $kind"
done
