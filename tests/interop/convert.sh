#!/bin/bash
# SPDX-License-Identifier: MIT
#
# ploopctl convert between raw files and images; QEMU, OpenVZ's tool and the independent reader check the results.
#
#   convert.sh BUILD_DIRECTORY [SCENARIO...]
# shellcheck source=tests/interop/scenarios.bash
source "$(dirname "$0")/scenarios.bash"

same_for_qemu() {
    expect 0 qemu-img compare -f parallels -F raw "$1" "$2"
    same "$(cat out)" "Images are identical." "$1 and $2"
}

# same_content IMAGE RAW: QEMU's driver and the independent reader both see the raw file's bytes in the image.
same_content() {
    same_for_qemu "$1" "$2"
    same "$(oracle sha256 "$1")" "$(sha256sum <"$2" | cut -d ' ' -f 1)" "the independent reader's $1"
}

# random_raw FILE SIZE SEED: data, zeros and holes, in pieces of many sizes, on no particular border.
random_raw() {
    python3 - "$@" <<'END'
import random, sys
path, size, seed = sys.argv[1], int(sys.argv[2]), sys.argv[3]
r = random.Random(seed)
with open(path, "wb") as file:
    file.truncate(size)
    at = 0
    while at < size:
        length = min(size - at, r.choice([1, 511, 512, 4096, 5000, 65536, 100000, 1 << 20, 3 << 20]))
        kind = r.choice(["hole", "hole", "zero", "data", "data"])
        if kind != "hole":
            file.seek(at)
            file.write(r.randbytes(length) if kind == "data" else bytes(length))
        at += length
END
}

test_from_ploop_as_the_manual_has_it() {
    silent ploopctl create --size 1G a.hds
    expect 0 qemu-io -f parallels -c 'write -P 7 3M 5M' a.hds
    sha256sum a.hds >before
    silent ploopctl convert --from ploop --to raw a.hds a.raw
    same_for_qemu a.hds a.raw
    sha256sum -c --quiet before || fail "the source was changed"
    same "$(stat -c %s a.raw)" $((1 << 30)) "size"
    [[ $(stat -c %b a.raw) -le $((5 * 2048 + 64)) ]] || fail "the raw file is not sparse: $(stat -c %b a.raw) blocks"
}

test_to_ploop_as_the_manual_has_it() {
    truncate -s 1G a.raw
    expect 0 qemu-io -f raw -c 'write -P 7 3M 5M' a.raw
    sha256sum a.raw >before
    silent ploopctl convert --from raw --to ploop a.raw a.hds
    same_for_qemu a.hds a.raw
    judged a.hds
    sha256sum -c --quiet before || fail "the source was changed"
    silent ploopctl info --json a.hds
    same "$(json 'j["mapped"], j["version"], j["cluster_size"], j["disk_size"], j["in_use"]')" "5 2 1048576 1073741824 False" "a sparse image"
}

# One of the two formats is enough.
test_half_said() {
    random_raw a.raw 3000000 1
    silent ploopctl convert --to ploop a.raw a.hds
    silent ploopctl convert --from raw a.raw b.hds
    cmp a.hds b.hds || fail "--from raw and --to ploop differ"
    silent ploopctl convert --to raw a.hds b.raw
    silent ploopctl convert --from ploop a.hds c.raw
    cmp b.raw c.raw || fail "--to raw and --from ploop differ"
    cmp -n 3000000 a.raw b.raw || fail "there and back is not the same"
}

test_every_cluster_size_and_version() {
    local cluster version size seed=0
    for version in "" --v1; do
        for cluster in 4K 32K 64K 256K 1M 2M 16M 64M; do
            seed=$((seed + 1))
            size=$((seed * 2222 * 512 + 20000256))
            random_raw a.raw $size $seed
            silent ploopctl convert --from raw --cluster $cluster $version a.raw a.hds
            same_content a.hds a.raw
            expect 0 ploopctl check a.hds
            expect 0 oracle check a.hds
            [[ $cluster != 64K && $cluster != 1M ]] || judged a.hds
            silent ploopctl convert --from ploop a.hds b.raw
            cmp a.raw b.raw || fail "$cluster $version: there and back is not the same"
            # A mapped cluster has data: no cluster of zeros is mapped.
            silent ploopctl info --json a.hds
            same "$(json 'j["mapped"]')" "$(data_clusters a.raw "$(numfmt --from=iec $cluster)")" "$cluster $version: clusters"
            rm a.hds a.raw b.raw
        done
    done
}

data_clusters() {
    python3 - "$@" <<'END'
import sys
count, size = 0, int(sys.argv[2])
with open(sys.argv[1], "rb") as file:
    while cluster := file.read(size):
        count += any(cluster)
print(count)
END
}

# Images that QEMU created, with its cluster sizes, and data that QEMU wrote to them.
test_images_of_qemu() {
    local cluster
    for cluster in 64K 512K 1M 2M; do
        qemu-img create -q -f parallels -o cluster_size=$cluster a.hds 40M || fail "qemu-img create"
        expect 0 qemu-io -f parallels -c "write -P 1 0 512" -c "write -P 2 $((7 * 512)) 3M" -c "write -P 3 39M 1M" -c "write -z 1M 64k" a.hds
        silent ploopctl convert --from ploop a.hds a.raw
        same_content a.hds a.raw
        rm a.hds a.raw
    done
    truncate -s 30000128 b.raw
    random_raw b.raw 30000128 5
    qemu-img convert -f raw -O parallels b.raw b.hds || fail "qemu-img convert"
    silent ploopctl convert --from ploop b.hds c.raw
    same_content b.hds c.raw
}

# Legal images that no program makes any more: clusters of 1, 63 and 504 sectors, an odd data_off, v1, sizes that end inside a cluster.
test_unusual_images() {
    local name count=0
    python3 "$here/../oracle/malformed.py" m >/dev/null || fail "malformed.py"
    while read -r name; do
        [[ -e m/$name.hds ]] || continue
        count=$((count + 1))
        expect 0 ploopctl convert --from ploop "m/$name.hds" a.raw
        same "$(sha256sum <a.raw | cut -d ' ' -f 1)" "$(oracle sha256 "m/$name.hds")" "$name"
        rm a.raw
    done < <(awk -F '\t' '$2 == "ok" && $1 ~ /^(valid|tracks|disk|v1|data|in_use|flag|leak|file|ext_void)/ { print $1 }' m/cases.tsv)
    [[ $count -ge 10 ]] || fail "only $count images"
}

# Bad clusters are an error, not zeros.
test_bad_entries() {
    local name count=0
    python3 "$here/../oracle/malformed.py" m >/dev/null || fail "malformed.py"
    while read -r name; do
        [[ -e m/$name.hds ]] || continue
        count=$((count + 1))
        expect 1 ploopctl convert --from ploop "m/$name.hds" a.raw
        like "$(tail -n 1 err)" "ploopctl: m/$name.hds: *" "$name"
        [[ ! -e a.raw ]] || fail "$name: the target is left"
    done < <(awk -F '\t' '$2 ~ /^(eio|cut|reject)/ { print $1 }' m/cases.tsv)
    [[ $count -ge 20 ]] || fail "only $count images"
}

test_odd_sizes() {
    local size
    for size in 0 1 511 512 513 1048575 1048576 1048577 2097153 5000001; do
        random_raw a.raw $size $size
        silent ploopctl convert --from raw a.raw a.hds
        expect 0 ploopctl check a.hds
        cp a.raw rounded.raw
        truncate -s %512 rounded.raw
        same "$(oracle sha256 a.hds)" "$(sha256sum <rounded.raw | cut -d ' ' -f 1)" "a raw file of $size bytes"
        silent ploopctl convert --from ploop a.hds b.raw
        cmp rounded.raw b.raw || fail "$size: there and back is not the same"
        rm a.hds b.raw
    done
}

# Written zeros and holes give the same image.
test_zeros_and_holes() {
    random_raw sparse.raw 20000256 3
    cp --sparse=never sparse.raw full.raw
    silent ploopctl convert --from raw --cluster 64K sparse.raw a.hds
    silent ploopctl convert --from raw --cluster 64K full.raw b.hds
    silent ploopctl info --json a.hds
    same "$(json 'j["mapped"]')" "$(data_clusters sparse.raw 65536)" "clusters from holes"
    silent ploopctl info --json b.hds
    same "$(json 'j["mapped"]')" "$(data_clusters sparse.raw 65536)" "clusters from zeros"
    same_content b.hds sparse.raw
    truncate -s 100M zero.raw
    cp --sparse=never zero.raw zeros.raw
    silent ploopctl convert --from raw zeros.raw c.hds
    silent ploopctl info --json c.hds
    same "$(json 'j["mapped"], j["empty"]')" "0 True" "nothing but zeros"
    judged c.hds
}

# sparse FILE RAW SLACK: the file takes no more space than the blocks of the raw file that are not zeros, and SLACK KiB.
sparse() {
    local most=$(($(data_clusters "$2" 4096) * 8 + $3 * 2))
    [[ $(stat -c %b "$1") -le $most ]] || fail "$1 is not sparse: $(stat -c %b "$1") blocks, at most $most expected"
}

test_raw_to_raw() {
    random_raw a.raw 30000128 11
    cp --sparse=never a.raw full.raw
    silent ploopctl convert --from raw --to raw full.raw b.raw
    cmp a.raw b.raw || fail "a copy is not the same"
    sparse b.raw a.raw 64
    truncate -s 30000001 a.raw
    silent ploopctl convert --from raw --to raw a.raw c.raw
    truncate -s %512 a.raw
    cmp a.raw c.raw || fail "a copy of an odd size is not the same"
}

test_image_to_image() {
    local cluster
    random_raw a.raw 50000384 12
    silent ploopctl convert --from raw --cluster 64K a.raw a.hds
    for cluster in 4K 64K 1M 16M; do
        silent ploopctl convert --from ploop --to ploop --cluster $cluster a.hds b.hds
        same_content b.hds a.raw
        expect 0 ploopctl check b.hds
        silent ploopctl info --json b.hds
        same "$(json 'j["mapped"]')" "$(data_clusters a.raw "$(numfmt --from=iec $cluster)")" "$cluster: clusters"
        rm b.hds
    done
    silent ploopctl convert --from ploop --to ploop --v1 a.hds b.hds
    same_content b.hds a.raw
    judged b.hds
}

# A raw base and two images above it: each has data, holes and zeros of its own, and hides some of what is below it.
test_stack_as_source() {
    local level
    random_raw base.raw 20000256 13
    for level in 1 2; do
        random_raw level$level.raw $((20000256 + level * 1000448)) $level
        # Only every third 64 KiB has data: the rest shows what is below.
        python3 - level$level.raw $level <<'END'
import sys
level = int(sys.argv[2])
with open(sys.argv[1], "r+b") as file:
    size = file.seek(0, 2)
    for at in range(0, size, 65536):
        if at // 65536 % 3 != level:
            file.seek(at)
            file.write(bytes(min(65536, size - at)))
END
        silent ploopctl convert --from raw --cluster 64K level$level.raw level$level.hds
    done
    silent ploopctl convert --from ploop --raw-base base.raw --base level1.hds level2.hds a.raw
    # A cluster of zeros is not mapped, so it shows the file below; a file is zeros behind its end.
    python3 - base.raw level1.raw level2.raw >expected.raw <<'END'
import sys
files = [open(path, "rb").read() for path in sys.argv[1:]]
disk = bytearray(len(files[-1]))
for file in files:
    for at in range(0, len(file), 65536):
        cluster = file[at:at + 65536]
        if file is files[0] or any(cluster):
            cluster = cluster.ljust(min(65536, len(disk) - at), b"\0")
            disk[at:at + len(cluster)] = cluster
sys.stdout.buffer.write(disk)
END
    cmp a.raw expected.raw || fail "the stack's disk"
    sparse a.raw expected.raw 64
    silent ploopctl convert --from ploop --to ploop --raw-base base.raw --base level1.hds level2.hds a.hds
    same_content a.hds expected.raw
}

# In a cluster of 1 MiB only the blocks with data take space: on the way to an image, to another one, and back.
test_holes_inside_clusters() {
    python3 - a.raw <<'END'
import sys
with open(sys.argv[1], "wb") as file:
    file.truncate(40 << 20)
    for cluster in range(0, 40, 2):
        for block in range(cluster, 256, 37):
            file.seek((cluster << 20) + block * 4096)
            file.write(b"data" * 1024)
END
    cp --sparse=never a.raw full.raw
    silent ploopctl convert --from raw full.raw a.hds
    silent ploopctl info --json a.hds
    same "$(json 'j["mapped"]')" 20 clusters
    sparse a.hds a.raw 64
    silent ploopctl convert --from ploop --to ploop --cluster 2M a.hds b.hds
    same_content b.hds a.raw
    sparse b.hds a.raw 64
    judged b.hds
    cp --sparse=never a.hds full.hds
    silent ploopctl convert --from ploop full.hds b.raw
    cmp a.raw b.raw || fail "there and back is not the same"
    sparse b.raw a.raw 64
}

# Holes are not even read: neither those of a raw file, nor those inside a mapped cluster of an image.
test_holes_are_not_read() {
    local source bytes
    truncate -s 256M a.raw
    expect 0 qemu-io -f raw -c "write -P 1 0 8k" -c "write -P 2 100M 64k" -c "write -P 3 201M 4k" a.raw
    silent ploopctl convert --from raw --cluster 64M a.raw a.hds
    silent ploopctl info --json a.hds
    same "$(json 'j["mapped"]')" 3 clusters
    for source in "raw a.raw" "ploop a.hds"; do
        # shellcheck disable=SC2086
        expect 0 strace -f -qq -e trace=preadv -o trace ploopctl convert --to raw --from $source b.raw
        cmp a.raw b.raw || fail "$source: the copy is not the same"
        bytes=$(awk '$(NF - 1) == "=" { bytes += $NF } END { print bytes + 0 }' trace)
        [[ $bytes -le 1000000 ]] || fail "$source: holes were read: $bytes bytes in all"
        rm b.raw
    done
}

# Where clusters lie in the file in reverse order, the search for holes does not go through the rest of the file for each of them.
test_clusters_in_reverse() {
    head -c 256M /dev/urandom >a.raw
    silent ploopctl convert --from raw --cluster 64K a.raw a.hds
    python3 - <<'END' || fail "reversing"
import struct
with open("a.hds", "r+b") as file:
    file.seek(64)
    entries = struct.unpack("<4096I", file.read(16384))
    file.seek(64)
    file.write(struct.pack("<4096I", *reversed(entries)))
with open("a.raw", "rb") as file, open("reversed.raw", "wb") as copy:
    for cluster in range(4095, -1, -1):
        file.seek(cluster * 65536)
        copy.write(file.read(65536))
END
    (ulimit -t 4 && silent ploopctl convert --from ploop a.hds b.raw) || exit 1 # seconds of CPU; a tenth of it is enough
    cmp b.raw reversed.raw || fail "the disk"
}

# Whatever order its threads run in, convert makes the same image: clusters lie in the order of the disk.
test_order_of_clusters() {
    local run
    random_raw a.raw 100000256 14
    for run in 1 2 3 4 5 6; do
        silent ploopctl convert --from raw --cluster 256K a.raw $run.hds
        cmp 1.hds $run.hds || fail "run $run differs"
    done
    silent ploopctl map --json 1.hds
    same "$(json 'all(a <= b for a, b in zip(*(lambda h: (h, h[1:]))([e["host_offset"] for e in j if e["state"] == "mapped"])))')" True "the order in the file"
}

# lost: the ranges in the JSON, and their sum.
lost() { json '[(r["offset"], r["length"]) for r in j["lost"]], j["lost_bytes"]'; }

test_salvage() {
    local how
    head -c 8388608 /dev/urandom >a.raw
    silent ploopctl convert --to ploop --cluster 64K a.raw a.hds
    silent ploopctl convert --salvage --json --from ploop a.hds whole.raw
    same "$(lost)" "[] 0" "nothing lost"
    cmp a.raw whole.raw || fail "a salvage of a good image"

    # Entries 2, 3 and 9 are bad, and the file ends before the last 20 clusters.
    printf '\377\377\0\0\377\377\1\0' | dd of=a.hds bs=1 seek=72 conv=notrunc status=none
    printf '\377\377\2\0' | dd of=a.hds bs=1 seek=100 conv=notrunc status=none
    truncate -s $((109 * 65536)) a.hds
    cp a.raw expected
    dd if=/dev/zero of=expected bs=64k seek=2 count=2 conv=notrunc status=none
    dd if=/dev/zero of=expected bs=64k seek=9 count=1 conv=notrunc status=none
    dd if=/dev/zero of=expected bs=64k seek=108 count=20 conv=notrunc status=none
    refused "ploopctl: a.hds: error while reading at byte 131072 of the disk: Input/output error" ploopctl convert --from ploop a.hds b.raw
    [[ ! -e b.raw ]] || fail "a failed convert left its target"
    for how in "raw b.raw" "ploop b.hds"; do
        expect 1 ploopctl convert --salvage --json --from ploop --to "${how% *}" a.hds "${how#* }"
        same "$(lost)" "[(131072, 131072), (589824, 65536), (7077888, 1310720)] 1507328" "what is lost"
        same "$(cat err)" "ploopctl: a.hds: lost: 131072 bytes at byte 131072 of the disk
ploopctl: a.hds: lost: 65536 bytes at byte 589824 of the disk
ploopctl: a.hds: lost: 1310720 bytes at byte 7077888 of the disk
ploopctl: ${how#* }: is not complete: 1507328 bytes are zeros that could not be read" "what is said"
        [[ $how == ploop* ]] && silent ploopctl convert --from ploop "${how#* }" c.raw
        [[ $how == raw* ]] && cp b.raw c.raw
        cmp expected c.raw || fail "what was salvaged to $how"
        rm -f b.* c.raw
    done
    expect 1 ploopctl convert --salvage --from ploop a.hds -
    cmp expected out || fail "what was salvaged to standard output"
    misused "ploopctl: convert: --json and the disk cannot both go to standard output" ploopctl convert --json --from ploop a.hds -
}

# Every other read fails, so that ever smaller pieces are tried.
test_salvage_of_a_disk_with_bad_sectors() {
    head -c 1048576 /dev/urandom >a.raw
    expect 1 strace -f -qq -o /dev/null -e trace=preadv -e inject=preadv:error=EIO:when=1+2 \
        ploopctl convert --salvage --json --from raw --to raw a.raw b.raw
    python3 - <<'PYTHON' || fail "the salvaged disk"
import json
a, b, found = open("a.raw", "rb").read(), open("b.raw", "rb").read(), json.load(open("out"))
assert len(b) == len(a) and 0 < found["lost_bytes"] < len(a), found["lost_bytes"]
wanted = bytearray(a)
for r in found["lost"]:
    assert r["offset"] % 512 == 0 and r["length"] % 512 == 0
    wanted[r["offset"]:r["offset"] + r["length"]] = bytes(r["length"])
assert wanted == b
PYTHON
}

# A raw disk comes from a pipe, and goes to one.
test_pipes() {
    random_raw a.raw 3000320 5
    truncate -s 8M a.raw
    silent ploopctl convert --to ploop a.raw a.hds
    ploopctl convert --from ploop a.hds - 2>err | cmp - a.raw || fail "an image to standard output: $(cat err)"
    ploopctl convert --from ploop a.hds /dev/stdout 2>err >b.raw || fail "to /dev/stdout: $(cat err)"
    cmp a.raw b.raw || fail "an image to a file that is standard output"
    # shellcheck disable=SC2002  # a pipe is what this is about
    cat a.raw | ploopctl convert --to ploop - b.hds 2>err || fail "standard input to an image: $(cat err)"
    cmp a.hds b.hds || fail "an image of standard input is not the same"
    # shellcheck disable=SC2002
    cat a.raw | ploopctl convert --from raw --to raw /dev/stdin - 2>err | cmp - a.raw || fail "a pipe to a pipe: $(cat err)"
    # shellcheck disable=SC2002
    (head -c 1001 a.raw | cat) | ploopctl convert --from raw --to raw - c.raw || fail "a pipe of an odd size"
    same "$(stat -c %s c.raw)" 1024 "a disk of an odd size"
    ploopctl convert --to ploop - d.hds <a.raw || fail "standard input that is a file"
    cmp a.hds d.hds || fail "an image of standard input that is a file"
    mkfifo to from
    cat a.raw >to &
    silent ploopctl convert --to ploop to e.hds
    cmp a.hds e.hds || fail "an image of a FIFO"
    cmp from a.raw &
    silent ploopctl convert --from ploop a.hds from
    wait $! || fail "a disk through a FIFO"
    wait
    : | ploopctl convert --to ploop - f.hds || fail "an empty pipe"
    silent ploopctl info --json f.hds
    same "$(json 'j["disk_size"]')" 0 "an empty pipe"

    misused "ploopctl: convert: only a raw disk can be read from a pipe" ploopctl convert --from ploop - x.raw
    refused "ploopctl: -: an image can only be written to a file or a block device" ploopctl convert --to ploop a.raw -
    refused "ploopctl: from: an image can only be written to a file or a block device" ploopctl convert --to ploop a.raw from
    expect 1 bash -c 'ploopctl convert --from ploop a.hds - >/dev/full'
    same "$(cat err)" "ploopctl: -: error while writing at byte 0 of the disk: No space left on device" "a full output"
    same "$(echo ploopctl.* x.* ./-)" "ploopctl.* x.* ./-" "what failed calls left"
}

test_wrong_calls() {
    echo x >raw
    ploopctl create --size 1M a.hds || fail create
    misused "ploopctl: convert: --from or --to is required*" ploopctl convert raw b.hds
    misused "ploopctl: convert: --base and --raw-base require a ploop source" ploopctl convert --from raw --to raw --base a.hds raw b.raw
    misused "ploopctl: convert: --cluster and --v1 require a ploop target" ploopctl convert --from raw --to raw --v1 raw b.raw
    misused "ploopctl: convert: invalid format 'vdi': expected raw, ploop or bundle" ploopctl convert --from vdi raw b.raw
    misused "ploopctl: convert: --cluster and --v1 require a ploop target" ploopctl convert --from ploop --cluster 64K a.hds b.raw
    misused "ploopctl: convert: --cluster and --v1 require a ploop target" ploopctl convert --from ploop --v1 a.hds b.raw
    misused "ploopctl: convert: missing argument after 'a.hds'" ploopctl convert --from ploop a.hds
    [[ ! -e b.hds && ! -e b.raw ]] || fail "a wrong call made a file"
}

test_targets_and_sources() {
    echo precious >there
    echo x >raw
    ploopctl create --size 1M a.hds || fail create
    refused "ploopctl: there: cannot create: File exists" ploopctl convert --from ploop a.hds there
    refused "ploopctl: there: cannot create: File exists" ploopctl convert --from raw raw there
    refused "ploopctl: raw: cannot create: File exists" ploopctl convert --from raw raw raw
    same "$(cat there)" precious "an existing target"
    refused "ploopctl: none: cannot open: No such file or directory" ploopctl convert --from raw none b.hds
    refused "ploopctl: none: cannot open: No such file or directory" ploopctl convert --from ploop none b.raw
    refused "ploopctl: raw: *" ploopctl convert --from ploop raw b.raw
    refused "ploopctl: /dev/zero: cannot open: not a regular file or block device" ploopctl convert --from raw /dev/zero b.hds
    refused "ploopctl: no/b.hds: cannot create: No such file or directory" ploopctl convert --from raw raw no/b.hds
    same "$(echo b.*)" "b.*" "what failed calls left"
}

# The file system, or a limit, has no room for the target: ploopctl prints one line and removes the target.
test_no_space() {
    random_raw a.raw 30000128 9
    silent ploopctl convert --from raw a.raw a.hds
    (ulimit -f 4096 && refused "ploopctl: b.hds: *@(File too large|No space left on device)" ploopctl convert --from raw a.raw b.hds) || exit 1
    (ulimit -f 4096 && refused "ploopctl: b.raw: *@(File too large|No space left on device)" ploopctl convert --from ploop a.hds b.raw) || exit 1
    same "$(echo b.*)" "b.*" "what failed calls left"
}

test_full_file_system() {
    random_raw a.raw 30000128 9
    silent ploopctl convert --from raw a.raw a.hds
    mkdir small
    # In a separate mount namespace, so that nothing stays mounted whatever happens.
    unshare -m bash -c '
        set -u
        mount -t tmpfs -o size=6M tmpfs small || exit 1
        "$@" --from raw a.raw small/b.hds 2>err1; echo $? >status1
        "$@" --from ploop a.hds small/b.raw 2>err2; echo $? >status2
        "$@" --from ploop --to ploop a.hds small/c.hds 2>err3; echo $? >status3
        "$@" --from raw --to raw a.raw small/c.raw 2>err4; echo $? >status4
        ls small >left' - ploopctl convert || fail "a small file system"
    same "$(cat status?)" $'1\n1\n1\n1' "exit statuses"
    same "$(wc -l <err1) $(wc -l <err2) $(wc -l <err3) $(wc -l <err4)" "1 1 1 1" "lines: $(cat err?)"
    like "$(cat err3)" "ploopctl: small/c.hds: *No space left on device" "image to image"
    like "$(cat err4)" "ploopctl: small/c.raw: *No space left on device" "raw to raw"
    like "$(cat err1)" "ploopctl: small/b.hds: *No space left on device" "to ploop"
    like "$(cat err2)" "ploopctl: small/b.raw: *No space left on device" "to raw"
    same "$(cat left)" "" "what failed calls left"
}

# broken PATTERN CALL ARGUMENT...: a conversion in which this system call fails with EIO, after some that succeed.
broken() {
    local pattern=$1 call=$2
    shift 2
    refused "$pattern: Input/output error" strace -f -qq -o /dev/null -e trace="${call%%:*}" -e inject="$call" ploopctl convert "$@"
    same "$(echo b.*)" "b.*" "what the failed call left"
}

test_input_output_errors() {
    head -c 200M /dev/zero | tr '\0' x >a.raw
    silent ploopctl convert --from raw a.raw a.hds
    # Counted for each thread: the first one opens the files, with fewer calls than that; eight copy, with more.
    local data="preadv:error=EIO:when=12+" write="pwritev:error=EIO:when=12+" place="at byte +([0-9]) of the disk"
    broken "ploopctl: a.raw: error while reading $place" $data --from raw a.raw b.hds
    broken "ploopctl: a.raw: error while reading $place" $data --from raw --to raw a.raw b.raw
    broken "ploopctl: a.hds: error while reading $place" $data --from ploop --to ploop a.hds b.hds
    broken "ploopctl: a.hds: error while reading $place" $data --from ploop a.hds b.raw
    broken "ploopctl: b.hds: error while writing $place" $write --from raw a.raw b.hds
    broken "ploopctl: b.hds: error while writing $place" $write --from ploop --to ploop a.hds b.hds
    broken "ploopctl: b.raw: error while writing $place" $write --from ploop a.hds b.raw
    broken "ploopctl: b.raw: cannot sync" fdatasync:error=EIO --from ploop a.hds b.raw
}

# Another program makes the source shorter, which the lock does not exclude. Reads are slowed down, so that it comes in time.
test_source_is_truncated() {
    local status=0 pid
    head -c 100M /dev/zero | tr '\0' x >a.raw
    strace -f -qq -o /dev/null -e trace=preadv -e inject=preadv:delay_enter=100000 ploopctl convert --from raw a.raw b.hds >out 2>err &
    pid=$!
    for _ in $(seq 500); do
        [[ -e b.hds && $(stat -c %b b.hds) -gt 64 ]] && break
        sleep 0.01
    done
    truncate -s 1M a.raw
    wait $pid || status=$?
    same $status 1 "exit status: $(cat err)"
    same "$(wc -l <err)" 1 "lines: $(cat err)"
    like "$(cat err)" "ploopctl: a.raw: error while reading at byte +([0-9]) of the disk: the file was truncated" "a truncated source"
    [[ ! -e b.hds ]] || fail "the target is left"
}

# interrupt TARGET COMMAND...: end it as soon as it has begun to fill its target.
interrupt() {
    local target=$1 status=0 pid
    shift
    "$@" >out 2>err &
    pid=$!
    for _ in $(seq 500); do
        [[ -e $target && $(stat -c %b "$target") -gt 64 ]] && break
        sleep 0.01
    done
    kill -TERM $pid || fail "$*: ended too early"
    wait $pid || status=$?
    same $status 1 "$*: exit status: $(cat err)"
    same "$(cat err)" "ploopctl: $target: interrupted" "$*"
    [[ ! -e $target ]] || fail "$target is left"
}

test_interrupted() {
    head -c 500M /dev/zero | tr '\0' 'x' >a.raw
    interrupt b.hds ploopctl convert --from raw --cluster 4K a.raw b.hds
    ploopctl convert --from raw --cluster 4K a.raw a.hds || fail convert
    interrupt b.raw ploopctl convert --from ploop a.hds b.raw
}

# A progress bar if standard error is a terminal, and only then.
test_progress() {
    random_raw a.raw 30000128 2
    silent ploopctl convert --from raw a.raw a.hds
    expect 0 script -qec "ploopctl convert --from raw a.raw b.hds" typescript
    grep -q $'\r\[#*\] 100% of 28.6 MiB' out || fail "no bar: $(cat out)"
    cmp a.hds b.hds || fail "the bar changes the image"
    expect 0 script -qec "ploopctl convert --from ploop a.hds b.raw" typescript
    grep -q $'\r\[#*\] 100% of 28.6 MiB' out || fail "no bar: $(cat out)"
}

# Nearly 16 TiB with a little data at both ends.
test_huge() {
    truncate -s 16000G a.raw
    expect 0 qemu-io -f raw -c "write -P 1 0 64k" -c "write -P 2 15999G 1G" a.raw
    silent ploopctl convert --from raw a.raw a.hds
    silent ploopctl info --json a.hds
    same "$(json 'j["mapped"], j["disk_size"]')" "1025 $((16000 << 30))" info
    expect 0 oracle check a.hds
    silent ploopctl map --json a.hds
    same "$(json '[(e["offset"], e["length"]) for e in j if e["state"] == "mapped"]')" "[(0, 1048576), ($((15999 << 30)), $((1 << 30)))]" map
    silent ploopctl convert --from ploop a.hds b.raw
    # QEMU 7.2's parallels driver fails on holes of 1 TiB and more, so QEMU compares the raw files.
    expect 0 qemu-img compare -f raw -F raw a.raw b.raw
}

run_scenarios "${@:2}"
