#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Snapshots of a bundle that are merged and deleted: the disk, and each snapshot that is left, reads as before; OpenVZ's ploop sees the
# same tree and goes on with it; a command that is killed anywhere leaves a bundle that opens and shows the same disk.
#
#   bundle_merge.sh BUILD_DIRECTORY [SCENARIO...]
source "$(dirname "$0")/scenarios.bash"
# shellcheck source=SCRIPTDIR/bundle.bash
source "$here/bundle.bash"

# made DIR: a root, two snapshots on it, and the top on the second; sets root and second.
made() {
    expect 0 ploopctl bundle create --v1 --size 6M --cluster 64K "$1"
    guest "$1" "write -P 1 0 1M"
    root=$(ploopctl bundle snapshot "$1") || fail "bundle snapshot"
    guest "$1" "write -P 2 512k 1M" "write -z 128k 128k"
    second=$(ploopctl bundle snapshot "$1") || fail "bundle snapshot"
    guest "$1" "write -P 3 4000k 64k" "write -P 3 0 4k"
}

# branched DIR: the same, and the disk goes on from the root on; what was the top is a snapshot: sets third.
branched() {
    made "$1"
    third=$(ploopctl bundle snapshot "$1") || fail "bundle snapshot"
    expect 0 ploopctl bundle switch "$1" "$second"
    guest "$1" "write -P 4 1400k 300k"
}

# state DIR GUID: the content of a snapshot.
state() {
    rm -rf look
    cp -a "$1" look
    [[ $2 == "$top" ]] || expect 0 ploopctl bundle switch look "$2"
    content look
    rm -rf look
}

sound() {
    local image
    for image in "$1"/*.hds*; do judged "$image"; done
    agreed "$1"
    [[ ! -e $1/DiskDescriptor.xml.new ]] || fail "a file of a change was left"
}

test_up() {
    local before root second
    made d
    before=$(content d)
    silent ploopctl bundle merge d
    same "$(content d)" "$before" "the disk after a merge up"
    same "$(theirs d uuid | grep -c .)" 2 "snapshots"
    ! theirs d uuid | grep -q "$second" || fail "the parent is still there"
    sound d
    silent ploopctl bundle merge --rate 100M d $top
    same "$(content d)" "$before" "the disk after a second merge up"
    sound d
    same "$(find d -name '*.hds*' | wc -l)" 1 "images"
    refused "*: this is the root: there is nothing to merge it with" ploopctl bundle merge d
    guest d "write -P 7 0 6M"
    expect 0 ploopctl bundle snapshot d
}

test_down() {
    local before root second
    made d
    before=$(content d)
    silent ploopctl bundle merge --down d "$second"
    same "$(content d)" "$before" "the disk after a merge down below it"
    sound d
    ! theirs d uuid | grep -q "$root" || fail "the parent is still there"
    silent ploopctl bundle merge --down d
    same "$(content d)" "$before" "the disk after a merge down"
    sound d
    same "$(cd d && echo *.hds*)" "d.hdd.0.$top.hds" "the file that is left"
}

# OpenVZ's tool merges down what we wrote, and we what it wrote.
test_in_turns_with_theirs() {
    local before root second
    made d
    before=$(content d)
    expect 0 ploop snapshot-merge -u "$second" d/DiskDescriptor.xml
    same "$(content d)" "$before" "the disk after OpenVZ's merge"
    agreed d
    expect 0 ploop snapshot d/DiskDescriptor.xml
    agreed d
    silent ploopctl bundle merge d
    silent ploopctl bundle merge --down d
    same "$(content d)" "$before" "the disk after all merges"
    sound d
    expect 0 ploop snapshot d/DiskDescriptor.xml
    expect 0 ploop snapshot-delete -u "$(theirs d uuid | grep -v $top)" d/DiskDescriptor.xml
    same "$(content d)" "$before" "the disk after OpenVZ's delete"
}

# A snapshot that two others need is deleted; the root is not.
test_deleted() {
    local now earlier root second third
    branched d
    now=$(state d $top) earlier=$(state d "$third")
    refused "*: other snapshots are built on its parent, which would be lost" ploopctl bundle merge d
    refused "*: other snapshots are built on its parent, which would be lost" ploopctl bundle merge --down d "$third"
    silent ploopctl bundle delete d "$second"
    sound d
    same "$(state d $top)" "$now" "the disk"
    same "$(state d "$third")" "$earlier" "a snapshot"
    refused "*: more than one snapshot is built on this one, which is the root" ploopctl bundle delete d "$root"
    silent ploopctl bundle delete d "$third"
    silent ploopctl bundle delete d "$root"
    sound d
    same "$(content d)" "$now" "the disk"
    same "$(find d -name '*.hds*' | wc -l)" 1 "images"
}

# The raw disk at the bottom: up only.
test_raw_root() {
    local before
    head -c 1M /dev/urandom >raw
    expect 0 ploopctl bundle create --size 1M d
    mv raw d/raw
    rm d/root.hds
    sed -i -e 's/Compressed/Plain/' -e 's/root.hds/raw/' d/DiskDescriptor.xml
    expect 0 ploopctl bundle snapshot d
    guest d "write -P 9 0 4k"
    before=$(content d)
    refused "*: a disk needs an image as its top, and the receiver is a raw base" ploopctl bundle merge --down d
    silent ploopctl bundle merge d
    same "$(content d)" "$before" "the disk"
    [[ ! -e d/raw ]] || fail "the raw disk is still there"
    agreed d
}

test_in_use() {
    local root second sum
    made d
    sum=$(find d -name '*.hds*' -exec sha256sum {} + | sort)
    # shellcheck disable=SC2016  # nbdkit's variable
    nbdkit -U - "$plugin" image=d --run 'nbdinfo --size "$uri" && ploopctl bundle merge d' >out 2>err && fail "a merge under a server"
    like "$(cat err)" "*another program has it open" "a merge under a server"
    # shellcheck disable=SC2016
    nbdkit -U - "$plugin" image=d --run 'nbdinfo --size "$uri" && ploopctl bundle delete d '"'$root'" >out 2>err && fail "a delete under a server"
    like "$(cat err)" "*another program has it open" "a delete under a server"
    same "$(find d -name '*.hds*' -exec sha256sum {} + | sort)" "$sum" "the images"
    agreed d
    printf '\x59\x6e\x6f\x74' | dd of="d/d.hdd.0.$top.hds" bs=1 seek=44 conv=notrunc status=none
    refused "*: its image 'd.hdd.0.$top.hds': in_use *: open elsewhere or not closed cleanly; needs recovery" ploopctl bundle delete d "$root"
    refused "*: its image 'd.hdd.0.$top.hds': in_use *: open elsewhere or not closed cleanly; needs recovery" ploopctl bundle merge d
}

test_interrupted() {
    local before root second
    expect 0 ploopctl bundle create --size 200M d
    guest d "write -P 1 0 64M"
    root=$(ploopctl bundle snapshot d)
    guest d "write -P 2 64M 1M"
    before=$(content d)
    ploopctl bundle merge --rate 1M d >out 2>err &
    sleep 1
    kill -INT $! || fail "ended too early"
    wait $! && fail "an interrupted merge succeeded"
    like "$(cat err)" "*interrupted" "an interrupted merge"
    same "$(wc -l <err)" 1 "lines"
    sound d
    same "$(content d)" "$before" "the disk"
    silent ploopctl bundle merge d
    same "$(content d)" "$before" "the disk"
}

# killed SOURCE WANT COMMAND...: the command, on copies, is killed before each system call that changes something, one after the other,
# until it gets through: first those that change images, which several threads make and strace counts for each, then those that change
# the directory. The bundle opens each time and shows what it showed; repaired, the command can be run again.
killed() {
    local source=$1 want=$2 step all=0 status image calls
    shift 2
    for calls in pwrite64,pwritev,pwritev2,fdatasync,ftruncate,fallocate write,fsync,rename,renameat,renameat2,unlink,unlinkat; do
        step=0 status=1
        while [[ $status != 0 ]]; do
            step=$((step + 1)) status=0
            rm -rf k
            cp -a "$source" k
            (strace -f -o trace -e trace=$calls -e "inject=$calls:signal=KILL:when=$step+" "$@" || exit 1) >out 2>err || status=1
            same "$(content k)" "$want" "the disk, killed at $calls $step of $*"
            [[ $status == 1 && $((step % 3)) == 1 ]] || continue
            agreed k
            for image in k/*.hds*; do
                ploopctl check --repair all "$image" >out 2>err || fail "$calls $step of $*: not repaired: $(cat out err)"
            done
            if [[ $(theirs k uuid) == "$(theirs "$source" uuid)" ]]; then silent "$@"; fi
            same "$(content k)" "$want" "the disk after the second try, killed at $calls $step of $*"
        done
        all=$((all + step - 1))
    done
    echo "     killed at $all steps"
    [[ $all -gt 8 ]] || fail "too few steps"
    sound k
}

test_killed_up() {
    local root second
    made d
    killed d "$(content d)" ploopctl bundle merge k
}

test_killed_down() {
    local root second
    made d
    killed d "$(content d)" ploopctl bundle merge --down k
}

test_killed_delete() {
    local root second third
    branched d
    killed d "$(content d)" ploopctl bundle delete k "$second"
}

run_scenarios "${@:2}"
