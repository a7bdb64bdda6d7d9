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

# served IMAGE PARAMETER... -- COMMAND...: the commands of qemu-io, on a server of the image.
served() {
    local parameters=() commands=
    while [[ $1 != -- ]]; do parameters+=("$1") && shift; done
    shift
    commands=$(printf " -c '%s'" "$@")
    # shellcheck disable=SC2016  # nbdkit's variable
    timeout 60 nbdkit -U - "$build/tools/nbdkit-ploop-plugin.so" "${parameters[@]}" \
        --run "qemu-io -f raw -d unmap $commands"' "$uri"' >out 2>&1 </dev/null || fail "a server: $(cat out)"
    ! grep -qiE 'failed|error|invalid' out || fail "$(cat out)"
}

# No cluster of such an image begins at a block of the device: R17.
test_blocks_of_4096_bytes() {
    local tracks direct
    for tracks in 9 63; do
        for direct in 0 1; do
            python3 - "$here/../oracle" $tracks >file <<'PYTHON' || fail "malformed.py"
import sys
sys.path.insert(0, sys.argv[1])
import malformed
tracks = int(sys.argv[2])
entries = 20000 // tracks
sys.stdout.buffer.write(malformed.image(magic=malformed.MAGIC_V1, real_cluster=tracks, cluster=tracks, real_entries=entries,
                                        entries=entries, mapped={}, host_clusters=0))
PYTHON
            truncate -s 24M file
            loop file --sector-size 4096
            [[ $(blockdev --getss "$device") == 4096 ]] || fail "the device has other blocks"
            served "$device" direct=$direct -- "write -P 3 0 4096" flush "read -P 3 0 4096"
            served "$device" direct=$direct -- "write -P 5 1M 1M" "write -zu 1100k 300k" flush "read -P 0 1100k 300k" "read -P 5 1M 76k" \
                "read -P 5 1400k 648k" "read -P 3 0 4096"
            served "$device" direct=$direct -- "write -P 6 4M 2M" "discard 4M 1M" flush "write -P 7 4200k 8k" flush "read -P 7 4200k 8k" \
                "read -P 6 5200k 400k" "write -P 8 4001280 512" "read -P 8 4001280 512" "read -P 5 1M 76k"
            expect 0 ploopctl check "$device"
            expect 0 oracle check "$device"
        done
    done
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
