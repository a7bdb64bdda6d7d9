#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The promises on a real kernel whose writeback fails.
#
#   kernel.sh PROGRAM [TYPE [ARGUMENT...]]     PROGRAM is BUILD/tests/lossy, TYPE ext4-nojournal (the default), ext4, xfs or btrfs
#
# The image lies on a file system, the file system on a loop device, and the device's backing file on a tmpfs with a filler in it. The
# backing file has blocks everywhere except where a test has punched them out. While the filler takes the rest of the tmpfs, the punched
# ranges cannot be written: the kernel reports this once for each open file description, and keeps the lost page, clean, in its cache.
# lossy.c describes the steps and how it judges them; its arguments are runs: kernel.sh build/dev-gcc/tests/lossy ext4 WLUFC.w repeats one.
#
# A request that the backing file can accept only in part is lost without an error (docs/crash-rules.md, "What the host must keep"). So
# blocks are as large as pages, and doomed data is written in requests that lie wholly in a hole.
#
# Everything is mounted in a separate namespace, which ends with this script, however that ends; the loop device detaches itself when
# its last user has gone. Exit status 0: all runs are right; 1: a promise was broken; 77: there is no loop device or file system here.
set -u
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"

program=$(realpath "$1")
type=${2:-ext4-nojournal}

if [[ ${KERNEL_NAMESPACE-} != 1 ]]; then
    ((EUID == 0)) || { echo "not root"; exit 77; }
    unshare --mount true 2>/dev/null || { echo "no mount namespaces"; exit 77; }
    KERNEL_NAMESPACE=1 exec unshare --mount --propagation private "$0" "$@"
fi

skip() {
    echo "$*"
    exit 77
}

work=$(mktemp -d "${TMPDIR:-/tmp}/ploop-kernel.XXXXXX") || exit 2
clean_up() {
    exec 9<&-
    umount "$work/mount" 2>/dev/null
    umount "$work/tmpfs" 2>/dev/null
    rmdir "$work/mount" "$work/tmpfs" "$work" 2>/dev/null
}
trap clean_up EXIT
trap 'exit 2' INT TERM HUP

case $type in
ext4-nojournal) megabytes=64 kind=ext4 make=(mkfs.ext4 -q -F -b 4096 -O '^has_journal') ;;
ext4) megabytes=64 kind=ext4 make=(mkfs.ext4 -q -F -b 4096) ;;
xfs) megabytes=320 kind=xfs make=(mkfs.xfs -q -f) ;;
btrfs) megabytes=128 kind=btrfs make=(mkfs.btrfs -q -f -m single -d single) ;;
*) echo "no file system type '$type'"; exit 2 ;;
esac
command -v "${make[0]}" >/dev/null || skip "${make[0]} is not installed"

mkdir "$work/mount" "$work/tmpfs" || exit 2
mount -t tmpfs -o "size=$((megabytes + 16))M" ploop-kernel "$work/tmpfs" || skip "no tmpfs"
if [[ $kind == btrfs ]]; then
    truncate -s "${megabytes}M" "$work/tmpfs/backing"
else
    fallocate -l "${megabytes}M" "$work/tmpfs/backing" || exit 2
fi
device=$(losetup --find --show "$work/tmpfs/backing" 2>&1) || skip "no loop device: $device"
exec 9<"$device" # keeps it open; detached now, it goes with its last user
losetup --detach "$device"
"${make[@]}" "$device" >/dev/null || exit 2
mount -t "$kind" "$device" "$work/mount" 2>/dev/null || skip "the kernel has no $kind"

"$program" "$work/mount" "$work/tmpfs" "$device" "$kind" "${@:3}" 9<&-
