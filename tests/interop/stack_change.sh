#!/bin/bash
# SPDX-License-Identifier: MIT
#
# ploopctl snapshot and merge: written through the nbdkit plugin, read by the oracle, beside QEMU's locks and OpenVZ's merge.
#
#   stack_change.sh BUILD_DIRECTORY [SCENARIO...]
# shellcheck source=tests/interop/scenarios.bash
source "$(dirname "$0")/scenarios.bash"

plugin=$build/tools/nbdkit-ploop-plugin.so

end_processes() {
    local file
    for file in *.pid; do
        if [[ -s $file ]]; then kill -9 "$(cat "$file")" 2>/dev/null; fi
    done
}

# change SEED IMAGE [BASE...]: random writes, zeros and discards through the plugin; bases from the top down.
change() {
    local seed=$1 image=$2 base bases=()
    shift 2
    for base in "$@"; do bases=("base=$base" "${bases[@]}"); done
    nbdkit -U - "$plugin" "${bases[@]}" "image=$image" --run "SEED=$seed /usr/bin/python3 - \"\$uri\"" <<'PYTHON' || fail "the client failed"
import os, random, sys, nbd
h = nbd.NBD()
h.connect_uri(sys.argv[1])
r = random.Random(int(os.environ["SEED"]))
for i in range(60):
    length = r.choice([512, 4096, 65536, 200000 // 512 * 512])
    at = r.randrange(0, (h.get_size() - length) // 512) * 512
    kind = r.randrange(6)
    if kind == 0:
        h.zero(length, at)
    elif kind == 1:
        h.trim(length, at)
    else:
        h.pwrite(bytes([r.randrange(256)]) * length, at)
h.flush()
PYTHON
}

sum() { oracle sha256 "$@" || fail "the oracle"; }

# Three images, as snapshots make them: a below b below c.
test_snapshots_are_taken_and_merged() {
    local options before
    for options in "--cluster 64K" "--v1 --cluster 64K" "--cluster 1M"; do
        rm -f ./*.hds
        # shellcheck disable=SC2086
        silent ploopctl create $options --size 8388608 a.hds
        change 1 a.hds
        before=$(sum a.hds)
        silent ploopctl snapshot a.hds b.hds
        same "$(sum b.hds a.hds)" "$before" "$options: a new top shows the disk"
        cp a.hds kept
        change 2 b.hds a.hds
        cmp a.hds kept || fail "$options: what the snapshot keeps was changed"
        silent ploopctl snapshot --base a.hds b.hds c.hds
        change 3 c.hds b.hds a.hds
        before=$(sum c.hds b.hds a.hds)
        cp b.hds kept
        silent ploopctl merge --base a.hds --base b.hds c.hds
        cmp b.hds kept || fail "$options: what was merged away was changed"
        same "$(sum c.hds a.hds)" "$before" "$options: merged once"
        judged c.hds
        silent ploopctl merge --base a.hds c.hds
        same "$(sum c.hds)" "$before" "$options: merged twice"
        judged c.hds
        expect 0 qemu-img convert -f parallels -O raw c.hds c.raw
        same "$(sha256sum <c.raw | cut -d ' ' -f 1)" "$before" "$options: as QEMU reads it"
    done
}

# Any two neighbours of four images, up and down: the stack reads the same, and so do the snapshots that are left.
test_any_two_neighbours() {
    local level direction files file lower before snapshot
    silent ploopctl create --cluster 64K --size 8388608 0.hds
    change 11 0.hds
    silent ploopctl snapshot 0.hds 1.hds
    change 12 1.hds 0.hds
    silent ploopctl snapshot --base 0.hds 1.hds 2.hds
    change 13 2.hds 1.hds 0.hds
    silent ploopctl snapshot --base 0.hds --base 1.hds 2.hds 3.hds
    change 14 3.hds 2.hds 1.hds 0.hds
    before=$(sum 3.hds 2.hds 1.hds 0.hds)
    snapshot=$(sum 2.hds 1.hds 0.hds)
    mkdir keep
    cp ./*.hds keep
    for level in 0 1 2; do
        for direction in "" --down; do
            cp keep/*.hds .
            # shellcheck disable=SC2086
            silent ploopctl merge --level $level $direction --base 0.hds --base 1.hds --base 2.hds 3.hds
            files=(3.hds 2.hds 1.hds 0.hds)
            file=$((3 - level)); [[ -z $direction ]] || file=$((2 - level))
            lower=${files[3 - level]}
            [[ -n $direction ]] || cmp "$lower" "keep/$lower" || fail "$lower was merged away, and changed"
            unset "files[$file]"
            files=("${files[@]}")
            same "$(sum "${files[@]}")" "$before" "level $level $direction"
            ((level == 2)) || same "$(sum "${files[@]:1}")" "$snapshot" "level $level $direction: the snapshot"
            for file in "${files[@]}"; do judged "$file"; done
        done
    done
}

# The same direction as OpenVZ's tool, which works on bare files.
test_down_as_the_other_tool() {
    silent ploopctl create --size 64M a.hds
    change 5 a.hds
    silent ploopctl snapshot a.hds b.hds
    change 6 b.hds a.hds
    cp --sparse=never a.hds theirs.hds
    cp --sparse=never b.hds upper.hds
    silent ploopctl merge --down --base a.hds b.hds
    expect 0 ploop merge upper.hds theirs.hds
    same "$(sum a.hds)" "$(sum theirs.hds)" "merged down here and there"
    judged a.hds
}

test_a_raw_base_is_merged() {
    head -c 3000320 /dev/urandom >raw
    silent ploopctl create --cluster 64K --size 8M a.hds
    expect 0 qemu-io -f parallels -c 'write -P 3 100k 70k' a.hds
    local before
    before=$(sum a.hds raw:raw)
    silent ploopctl merge --raw-base raw a.hds
    same "$(sum a.hds)" "$before" "merged"
    judged a.hds
}

# What is left of the lower two is a plain file, which needs no reader.
test_down_into_a_raw_base() {
    head -c 3000320 /dev/urandom >raw
    silent ploopctl create --cluster 64K --size 8M a.hds
    expect 0 qemu-io -f parallels -c 'write -P 3 100k 70k' -c 'write -P 4 7M 64k' a.hds
    silent ploopctl snapshot --raw-base raw a.hds b.hds
    expect 0 qemu-io -f parallels -c 'write -P 5 1M 64k' b.hds
    local before below
    below=$(sum a.hds raw:raw)
    before=$(sum b.hds a.hds raw:raw)
    cp a.hds kept
    silent ploopctl merge --down --level 0 --raw-base raw --base a.hds b.hds
    cmp a.hds kept || fail "what was merged away was changed"
    same "$(stat -c %s raw)" 8388608 "the raw file's size"
    same "$(sum b.hds raw:raw)" "$before" "merged"
    same "$(sha256sum <raw | cut -d ' ' -f 1)" "$below" "the raw file alone, the disk as it was before the snapshot"
}

# OpenVZ's tool merges the other way, into the lower file: the result reads the same.
test_as_the_other_tool_merges() {
    silent ploopctl create --size 64M a.hds
    change 5 a.hds
    silent ploopctl snapshot a.hds b.hds
    change 6 b.hds a.hds
    cp --sparse=never a.hds theirs.hds
    cp --sparse=never b.hds upper.hds
    silent ploopctl merge --base a.hds b.hds
    expect 0 ploop merge upper.hds theirs.hds
    same "$(sum b.hds)" "$(sum theirs.hds)" "merged up here and down there"
}

unchanged() {
    [[ ! -e new.hds ]] || fail "a file was made"
    sha256sum ./*.hds >now
    cmp before now || fail "$1: a file was changed"
}

test_refusals() {
    misused "ploopctl: merge: --base or --raw-base is required" ploopctl merge a.hds
    misused "ploopctl: merge: invalid level '-1': expected a number, 0 for the lowest" ploopctl merge --level -1 --base a.hds b.hds
    misused "ploopctl: merge: invalid rate '0': expected bytes a second, like 20M" ploopctl merge --rate 0 --base a.hds b.hds
    silent ploopctl create --cluster 64K --size 8M a.hds
    silent ploopctl create --cluster 64K --size 9M larger.hds
    silent ploopctl create --cluster 32K --size 8M cluster.hds
    silent ploopctl create --cluster 64K --size 8M --v1 version.hds
    silent ploopctl create --cluster 64K --size 8M full.hds
    expect 0 qemu-io -f parallels -c 'write 1M 1M' full.hds
    silent ploopctl create --cluster 64K --size 8M marked.hds
    printf '\x59\x6e\x6f\x74' | dd of=marked.hds bs=1 seek=44 conv=notrunc status=none
    silent ploopctl create --cluster 64K --size 8M damaged.hds
    printf '\xff\xff\xff\x7f' | dd of=damaged.hds bs=1 seek=64 conv=notrunc status=none
    head -c 1M /dev/urandom >noise.hds
    sha256sum ./*.hds >before
    refused "ploopctl: full.hds: its BAT maps clusters: it is not empty" ploopctl snapshot a.hds full.hds
    refused "ploopctl: larger.hds: disk size 9437184: not the top's, 8388608" ploopctl snapshot a.hds larger.hds
    refused "ploopctl: cluster.hds: cluster size 32768: not the top's, 65536" ploopctl snapshot a.hds cluster.hds
    refused "ploopctl: version.hds: version 1: not the top's, 2" ploopctl snapshot a.hds version.hds
    refused "ploopctl: marked.hds: in_use 1953459801: open elsewhere, not closed cleanly, or with a format extension, 0" \
        ploopctl snapshot a.hds marked.hds
    refused "ploopctl: damaged.hds: its BAT maps clusters: it is not empty" ploopctl snapshot a.hds damaged.hds
    refused "ploopctl: noise.hds: not a ploop image: the magic is *" ploopctl snapshot a.hds noise.hds
    refused "ploopctl: ./a.hds: the same file as a.hds: a file cannot be in a stack twice" ploopctl snapshot a.hds ./a.hds
    refused "ploopctl: nowhere/new.hds: cannot create: No such file or directory" ploopctl snapshot a.hds nowhere/new.hds
    refused "ploopctl: marked.hds: *" ploopctl snapshot marked.hds new.hds
    refused "ploopctl: damaged.hds: *" ploopctl snapshot damaged.hds new.hds
    refused "ploopctl: none.hds: cannot open: No such file or directory" ploopctl snapshot none.hds new.hds
    refused "ploopctl: full.hds: there is no image above level 1: the stack has levels 0 to 1" ploopctl merge --level 1 --base a.hds full.hds
    refused "ploopctl: marked.hds: *" ploopctl merge --base a.hds marked.hds
    refused "ploopctl: damaged.hds: *" ploopctl merge --base a.hds damaged.hds
    refused "ploopctl: a.hds: cluster size 65536: not the top delta's, 32768" ploopctl merge --base a.hds cluster.hds
    refused "ploopctl: a.hds: level 0 down: the receiver's disk has 8388608 bytes, the other one's 9437184: *" \
        ploopctl merge --down --base a.hds larger.hds
    refused "ploopctl: noise.hds: level 0 down: a disk needs an image as its top, and the receiver is a raw base" \
        ploopctl merge --down --raw-base noise.hds a.hds
    unchanged refusals
}

# serve QEMU_NBD_ARGUMENT...: in the background, ready when this returns.
serve() {
    trap end_processes EXIT
    expect 0 qemu-nbd -t --fork --pid-file=nbd.pid -k "$PWD/nbd.sock" -f parallels "$@"
}

stop_server() {
    kill "$(cat nbd.pid)"
    while kill -0 "$(cat nbd.pid)" 2>/dev/null; do sleep 0.02; done
    rm -f nbd.pid
}

test_a_server_keeps_its_image() {
    silent ploopctl create --size 64M a.hds
    expect 0 qemu-io -f parallels -c 'write -P 1 0 4M' a.hds
    silent ploopctl snapshot a.hds b.hds
    expect 0 qemu-io -f parallels -c 'write -P 2 2M 4M' b.hds
    serve b.hds
    sha256sum ./*.hds >before
    refused "ploopctl: b.hds: cannot open for writing: another process has it open" ploopctl merge --base a.hds b.hds
    refused "ploopctl: b.hds: cannot open for writing: another process has it open" ploopctl snapshot --base a.hds b.hds new.hds
    refused "ploopctl: b.hds: cannot open for writing: another process has it open" ploopctl snapshot a.hds b.hds
    unchanged "a server has the top"
    stop_server
    serve a.hds
    sha256sum ./*.hds >before
    refused "ploopctl: a.hds: cannot open: another process has it open for writing" ploopctl merge --base a.hds b.hds
    unchanged "a server writes to the base"
    stop_server
    serve -r a.hds
    silent ploopctl merge --base a.hds b.hds # who only reads the base may go on
    expect 0 qemu-io -f raw -r -c 'read -P 1 0 4M' "nbd:unix:$PWD/nbd.sock"
    sha256sum ./*.hds >before
    refused "ploopctl: a.hds: delta 0: cannot be opened for writing: another process has it open" \
        ploopctl merge --down --base a.hds b.hds
    unchanged "a reader has the receiver"
    stop_server
    expect 0 qemu-io -f parallels -r -c 'read -P 1 0 2M' -c 'read -P 2 2M 4M' b.hds
    silent ploopctl merge --down --base a.hds b.hds
    expect 0 qemu-io -f parallels -r -c 'read -P 1 0 2M' -c 'read -P 2 2M 4M' a.hds
}

large_stack() {
    silent ploopctl create --size 1G a.hds
    expect 0 qemu-io -f parallels -c 'write -P 1 0 64M' a.hds
    silent ploopctl snapshot a.hds b.hds
}

# Ctrl-C in the middle: the stack is whole, both files are closed cleanly, and the merge can be run again.
test_interrupted() {
    local status=0 before
    large_stack
    before=$(sum b.hds a.hds)
    ploopctl merge --rate 4M --base a.hds b.hds >out 2>err &
    for _ in $(seq 500); do
        (($(stat -c %s b.hds) > 2 << 20)) && break
        sleep 0.01
    done
    kill -INT $! || fail "ended too early"
    wait $! || status=$?
    same $status 1 "exit status: $(cat err)"
    same "$(cat err)" "ploopctl: b.hds: interrupted" "its message"
    silent ploopctl check b.hds
    silent ploopctl check a.hds
    same "$(sum b.hds a.hds)" "$before" "the stack"
    silent ploopctl info --json b.hds
    (($(json 'j["mapped"]') < 60)) || fail "it was not interrupted"
    silent ploopctl merge --base a.hds b.hds
    same "$(sum b.hds)" "$before" "merged then"
}

# A bar on a terminal, with the rate and the time left; and a limit is kept.
test_progress() {
    large_stack
    SECONDS=0
    expect 0 script -qec "ploopctl merge --rate 40M --base a.hds b.hds" typescript
    ((SECONDS >= 1)) || fail "faster than the limit"
    grep -q $'\r\[#*\.*\] *[1-9][0-9]*% of 64.0 MiB, [0-9.]* MiB/s, 0:0[0-9] left' out || fail "no bar: $(cat out)"
    grep -q $'\r\[#*\] 100% of 64.0 MiB' out || fail "no end: $(cat out)"
    expect 0 script -qec "ploopctl grow --size 2G b.hds" typescript
    expect 0 script -qec "ploopctl compact b.hds" typescript
    expect 0 script -qec "ploopctl snapshot b.hds c.hds" typescript
}

shift
run_scenarios "$@"
