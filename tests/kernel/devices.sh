#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Images and raw disks on block devices: loop devices over files.
#
#   devices.sh BUILD_DIRECTORY [SCENARIO...]
#
# Exit status 77: this machine has no loop devices for us.
# shellcheck source=tests/interop/scenarios.bash
source "$(dirname "$0")/../interop/scenarios.bash"

# loop FILE OPTION...: `device` is a loop device over it, until the scenario ends.
loop() {
    device=$(losetup --find --show "${@:2}" "$1") || fail "no loop device over $1"
    devices+=("$device")
    trap 'losetup --detach "${devices[@]}"' EXIT
}
devices=()

if ! command -v losetup >/dev/null || ! truncate -s 1M "$scratch/try" || ! (loop "$scratch/try") 2>/dev/null; then
    echo "no loop devices"
    exit 77
fi
rm -f "$scratch/try"

random_raw() { python3 -c 'import random, sys; sys.stdout.buffer.write(random.Random(1).randbytes(int(sys.argv[1])))' "$1"; }

test_create() {
    head -c 64M /dev/urandom >file
    loop file
    sha256sum file >before
    refused "ploopctl: $device: is a block device; use --force to overwrite what it holds" ploopctl create --size 1G "$device"
    refused "ploopctl: $device: cannot write the new image: No space left on device" ploopctl create --force --size 1P --cluster 64M "$device"
    expect 0 sha256sum --check before
    silent ploopctl create --force --size 1G "$device"
    silent ploopctl info --json "$device"
    same "$(json 'j["disk_size"], j["mapped"]')" "1073741824 0" "info of a new image"
    refused "ploopctl: file: cannot create: File exists" ploopctl create --force --size 1M file
}

# What the device held before is never read as the disk.
test_convert_to_an_image() {
    random_raw 3000320 >a.raw
    truncate -s 20M a.raw
    head -c 32M /dev/urandom >file
    loop file
    refused "ploopctl: $device: is a block device; *" ploopctl convert --to ploop a.raw "$device"
    silent ploopctl convert --force --to ploop --cluster 64K a.raw "$device"
    silent ploopctl convert --from ploop "$device" b.raw
    cmp a.raw b.raw || fail "the image on the device"
}

test_convert_to_a_raw_disk() {
    local size
    for size in 512 5000192 33554432; do
        random_raw $((size < 4096 ? size : 4096 * 700)) >a.raw
        truncate -s $size a.raw
        head -c 32M /dev/urandom >file
        cp file before
        loop file
        rm -f a.hds
        silent ploopctl convert --to ploop --cluster 64K a.raw a.hds
        silent ploopctl convert --force --from ploop a.hds "$device"
        cmp -n $size a.raw "$device" || fail "the disk of $size bytes on the device"
        cmp -i $(((size + 4095) / 4096 * 4096)) before "$device" || fail "what lies behind the disk of $size bytes has changed"
    done
    truncate -s 33M a.raw
    refused "ploopctl: $device: has 33554432 bytes, and the disk needs 34603008" ploopctl convert --force --from raw --to raw a.raw "$device"
}

# An image on a device that is larger: the rest is no leak, and a repair has nothing to do; duplicates get clusters of their own there.
test_a_larger_device() {
    local what
    random_raw 2097152 >a.raw
    head -c 32M /dev/urandom >file
    loop file
    silent ploopctl convert --force --to ploop --cluster 64K a.raw "$device"
    expect 0 ploopctl check "$device"
    same "$(cat out)" "$device: clean" "a check"
    expect 0 oracle check "$device"
    for what in leaks unclean all; do
        silent ploopctl check --repair $what "$device"
        [[ $what == unclean ]] || grep -qx "note: on a block device nothing leaks: what the image does not use is free" out || fail "$(cat out)"
        [[ $(tail -n 1 out) == "$device: clean" ]] || fail "$(cat out)"
    done
    # Entry 3 names entry 2's cluster.
    dd if="$device" of=entry bs=1 skip=72 count=4 status=none
    dd if=entry of="$device" bs=1 seek=76 conv=notrunc status=none
    expect 2 ploopctl check "$device"
    like "$(cat out)" "error: BAT?3? = *: another guest cluster's host cluster"$'\n'"$device: 1 error, 0 leaked clusters" "a duplicate"
    expect 0 ploopctl check --repair all "$device"
    expect 0 ploopctl check "$device"
    silent ploopctl convert --from ploop "$device" b.raw
    dd if=a.raw of=a.raw bs=64k skip=2 seek=3 count=1 conv=notrunc status=none
    cmp a.raw b.raw || fail "the content after the repair"
}

test_a_device_in_use() {
    truncate -s 16M file
    loop file
    mkfs.ext4 -q "$device" || fail mkfs
    mkdir mounted
    # shellcheck disable=SC2016  # the inner shell's variables
    unshare -m bash -c 'mount "$1" mounted || exit 1; shift; "$@" 2>err1; echo $? >status1' - "$device" \
        ploopctl create --force --size 1M "$device" || fail "a mount"
    same "$(cat status1): $(cat err1)" "1: ploopctl: $device: cannot open: it is mounted, or another program uses it" "a mounted device"
}

run_scenarios "${@:2}"
