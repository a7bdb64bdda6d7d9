#!/bin/bash
# SPDX-License-Identifier: MIT
#
# ploopctl's subcommands except convert: their output, every exit status, and their error messages.
#
#   ctl.sh BUILD_DIRECTORY [SCENARIO...]
# shellcheck source=tests/interop/scenarios.bash
source "$(dirname "$0")/scenarios.bash"

commands="create info check map convert snapshot merge grow compact bat"

test_help_and_version() {
    local command
    silent ploopctl --help
    for command in $commands; do
        grep -q "^  $command " out || fail "--help does not list $command"
    done
    for command in $commands; do
        silent ploopctl "$command" --help
        like "$(head -n 1 out)" "Usage: ploopctl $command *" "$command --help"
    done
    silent ploopctl --version
    like "$(cat out)" "ploopctl 2.*" --version
}

test_wrong_calls() {
    local command
    misused "ploopctl: missing command" ploopctl
    misused "ploopctl: unknown command 'frob'" ploopctl frob
    misused "ploopctl: unrecognized option '--frob'" ploopctl --frob
    for command in $commands; do
        misused "ploopctl: unrecognized option '--frob'" ploopctl "$command" --frob
        misused "ploopctl: $command: missing argument" ploopctl "$command"
        misused "ploopctl: $command: extra argument '[bc]'" ploopctl "$command" a b c
    done
    misused "ploopctl: convert: missing argument after 'a'" ploopctl convert a
    for command in create convert; do
        misused "ploopctl: option '--cluster' requires an argument" ploopctl "$command" --cluster
        misused "ploopctl: $command: invalid cluster size '6K': expected a power of two from 4K to 64M" ploopctl "$command" --cluster 6K a b
        misused "ploopctl: $command: invalid cluster size '2K': *" ploopctl "$command" --cluster 2K a b
        misused "ploopctl: $command: invalid cluster size '128M': *" ploopctl "$command" --cluster 128M a b
        misused "ploopctl: $command: invalid cluster size '': *" ploopctl "$command" --cluster '' a b
    done
    misused "ploopctl: create: --size is required" ploopctl create a.hds
    misused "ploopctl: check: invalid argument 'most' for --repair: expected leaks, unclean, cut or all" ploopctl check --repair most a.hds
    same "$(ls)" "$(printf 'err\nout')" "files made by wrong calls"
}

test_sizes() {
    local size bad
    for bad in '' ' 1' '1 ' '1 G' -1 +1 1X K .5G 1.G 1. 1.5 1.5.5G 1,5G 0x10 1e9 1e 1KX 1Ki 1KBB 1BK 1iB 1B 99999999999999999999X; do
        misused "ploopctl: create: invalid size '$bad': expected a number of bytes, optionally followed by K, M, G, T or P" \
            ploopctl create --size "$bad" a.hds
        [[ ! -e a.hds ]] || fail "--size '$bad' made a file"
    done
    for bad in 99999999999999999999 18446744073709551616 16777216T 16384P 16777215.9999999T 18446744073709551615K; do
        misused "ploopctl: create: invalid size '$bad': Value too large for defined data type" ploopctl create --size "$bad" a.hds
    done
    misused "ploopctl: create: invalid size '1000': expected a multiple of 512 bytes" ploopctl create --size 1000 a.hds
    for size in 0=0 512=512 10K=10240 3M=3145728 2G=2147483648 1T=1099511627776 2g=2147483648 2GB=2147483648 2GiB=2147483648 \
        2gib=2147483648 2gb=2147483648 64k=65536 1.5T=1649267441664 0.5k=512 1.5K=1536 1.25G=1342177280 0.1G=107374592 1.0K=1024 \
        1.0000000000000000000001K=1536 15.99999999999999999G=17179869184; do
        silent ploopctl create --size "${size%=*}" a.hds
        silent ploopctl info --json a.hds
        same "$(json 'j["disk_size"]')" "${size#*=}" "disk of ${size%=*}"
        rm a.hds
    done
    silent ploopctl create --size 1P --cluster 64MiB a.hds
    silent ploopctl info --json a.hds
    same "$(json 'j["disk_size"]')" 1125899906842624 "disk of 1P"
}

test_create_what_was_asked_for() {
    local version option cluster size
    for version in 1 2; do
        [[ $version == 1 ]] && option=(--v1) || option=()
        for cluster in 4K 64K 1M 64M; do
            for size in 512 1000K 300M; do
                silent ploopctl create --size $size --cluster $cluster "${option[@]}" a.hds
                silent ploopctl info --json a.hds
                same "$(json 'j["version"], j["cluster_size"], j["disk_size"], j["mapped"], j["in_use"], j["in_use_value"], j["empty"],
                    j["extension_offset"], j["file_size"], j["data_offset"]')" \
                    "$version $(numfmt --from=iec $cluster $size | xargs) 0 False 0 True 0 $(stat -c '%s %s' a.hds)" "info of a new image"
                if [[ $cluster == 4K || $cluster == 64M ]]; then
                    expect 0 oracle check a.hds
                    expect 0 ploopctl check a.hds
                else
                    judged a.hds
                fi
                rm a.hds
            done
        done
    done
}

test_create_allocates_the_bat_only() {
    silent ploopctl create --size 256M --cluster 64M a.hds
    [[ $(stat -c %s a.hds) == 67108864 ]] || fail "the data area does not begin at the first cluster's end"
    (($(stat -c '%b * %B' a.hds) <= 65536)) || fail "an empty image takes $(stat -c '%b * %B' a.hds) bytes"
}

test_create_default_is_version_2_of_1_mib() {
    silent ploopctl create --size 10M a.hds
    silent ploopctl info --json a.hds
    same "$(json 'j["version"], j["cluster_size"]')" "2 1048576" defaults
}

test_create_refuses_what_is_there() {
    echo precious >a.hds
    refused "ploopctl: a.hds: cannot create: File exists" ploopctl create --size 1M a.hds
    same "$(cat a.hds)" precious "an existing file"
    refused "ploopctl: none/a.hds: cannot create: No such file or directory" ploopctl create --size 1M none/a.hds
    mkdir d
    refused "ploopctl: d: *" ploopctl create --size 1M d
    ln -s nowhere link
    refused "ploopctl: link: cannot create: File exists" ploopctl create --size 1M link
    [[ ! -e nowhere ]] || fail "created through a dangling link"
}

test_create_removes_what_it_could_not_finish() {
    refused "ploopctl: a.hds: *too large*" ploopctl create --v1 --size 3T a.hds
    [[ ! -e a.hds ]] || fail "a failed create left its file: too large for the version"
    refused "ploopctl: a.hds: *clusters of 4096 bytes is too large: *; use larger clusters" ploopctl create --size 2T --cluster 4K a.hds
    [[ ! -e a.hds ]] || fail "a failed create left its file: a BAT that nobody opens"
    refused "ploopctl: a.hds: *" ploopctl create --size 8388608T --cluster 4K a.hds
    [[ ! -e a.hds ]] || fail "a failed create left its file: too large for any"
    (ulimit -f 16 && refused "ploopctl: a.hds: *" ploopctl create --size 1G --cluster 4K a.hds) || exit 1
    [[ ! -e a.hds ]] || fail "a failed create left its file: file size limit"
}

test_not_an_image() {
    local command
    echo "no image" >short
    head -c 100000 /dev/urandom >noise
    head -c 102400 /dev/urandom >raw
    : >empty
    mkdir d
    for command in info check map bat; do
        refused "ploopctl: none: cannot open: No such file or directory" ploopctl $command none
        refused "ploopctl: short: *" ploopctl $command short
        refused "ploopctl: empty: *" ploopctl $command empty
        refused "ploopctl: noise: *the magic is '????????????????'" ploopctl $command noise
        refused "ploopctl: raw: *the magic is '????????????????'; if it is a raw disk, use --raw-base, or convert --from raw" \
            ploopctl $command raw
        refused "ploopctl: d: cannot open: a directory; a bundle names its backing images itself" ploopctl $command --base d raw
        refused "ploopctl: d/DiskDescriptor.xml: No such file or directory" ploopctl $command d
        refused "ploopctl: /dev/null: cannot open: not a regular file or block device" ploopctl $command /dev/null
    done
}

# Each malformed image gets the exit status of its table, and stays unchanged.
test_check_malformed() {
    local name read_only check why status count=0
    python3 "$here/../oracle/malformed.py" m >/dev/null || fail "malformed.py"
    while IFS=$'\t' read -r name read_only _ check why; do
        [[ -e m/$name.hds && $check == [0-3] ]] || continue
        count=$((count + 1))
        sha256sum "m/$name.hds" >before
        status=0
        ploopctl check "m/$name.hds" >out 2>err || status=$?
        same $status "$check" "check $name ($why): $(cat out err)"
        [[ $status != 1 || $(wc -l <err) == 1 ]] || fail "$name: $(cat err)"
        [[ $status == 1 || ! -s err ]] || fail "$name: $(cat err)"
        status=0
        ploopctl check --json "m/$name.hds" >out 2>err || status=$?
        same $status "$check" "check --json $name"
        [[ $status == 1 ]] || same "$(json 'j["result"]')" "$(sed -n "$((check + 1))p" <<<$'clean\n\ncorrupt\nleaks')" "$name"
        status=0
        ploopctl info "m/$name.hds" >out 2>err || status=$?
        [[ $read_only != reject || $status == 1 ]] || fail "info $name: exit status $status"
        [[ $read_only == reject || $status == 0 ]] || fail "info $name: exit status $status: $(cat err)"
        for command in map bat; do
            status=0
            ploopctl $command "m/$name.hds" >out 2>err || status=$?
            [[ $status -le 1 && $(wc -l <err) == "$status" ]] || fail "$command $name: exit status $status: $(cat err)"
        done
        sha256sum -c --quiet before || fail "$name was changed"
    done <m/cases.tsv
    [[ $count -gt 60 ]] || fail "only $count images"
}

# Guest clusters 0, 1 and 5 of 64 KiB.
three_clusters() {
    rm -f three.raw
    truncate -s 10M three.raw
    qemu-io -f raw -c "write -P 1 0 128k" -c "write -P 5 320k 64k" three.raw >qemu || fail "qemu-io: $(cat qemu)"
    timeout 60 ploopctl convert --from raw --cluster 64K "$@" three.raw a.hds || fail convert
}

# QEMU 7.2 does not clear the Empty flag of an image that it fills.
test_check_empty_flag() {
    ploopctl create --size 10M a.hds || fail create
    qemu-io -f parallels -c "write 0 1M" a.hds >qemu || fail "qemu-io: $(cat qemu)"
    expect 2 ploopctl check --json a.hds
    same "$(json '[(r["kind"], r["repair"]) for r in j["records"]], j["recoverable"]')" "[('empty_flag', 'unclean')] True" "findings"
    expect 0 ploopctl check --repair unclean a.hds
    judged a.hds
}

# lost BYTES IMAGE: make it longer by bytes that nothing refers to.
lost() { head -c "$1" /dev/zero >>"$2"; }

test_check_records() {
    three_clusters
    silent ploopctl check a.hds
    same "$(cat out)" "a.hds: clean" "check"
    silent ploopctl check --json a.hds
    same "$(json 'j["image"], j["records"], j["errors"], j["leaks"], j["repaired"], j["mapped"], j["recoverable"], j["result"]')" \
        "a.hds [] 0 0 0 3 True clean" "check --json"

    truncate -s +128K a.hds
    silent ploopctl check a.hds
    same "$(cat out)" "a.hds: clean, 2 free clusters" "holes"
    silent ploopctl check --json a.hds
    same "$(json 'j["records"], j["leaks"], j["free"], j["result"]')" "[] 0 2 clean" "holes"
    truncate -s -128K a.hds
    lost 131072 a.hds
    expect 3 ploopctl check a.hds
    [[ ! -s err ]] || fail "leaks: $(cat err)"
    like "$(cat out)" "leak: *"$'\n'"a.hds: 0 errors, 2 leaked clusters" "leaks"
    expect 3 ploopctl check --json a.hds
    same "$(json '[(r["kind"], r["count"], r["repair"], r["guest_cluster"]) for r in j["records"]]')" "[('leak', 2, 'leaks', None)]" leaks
    same "$(json 'j["errors"], j["leaks"], j["recoverable"], j["result"]')" "0 2 True leaks" leaks

    printf '\x59\x6e\x6f\x74' | dd of=a.hds bs=1 seek=44 conv=notrunc status=none
    expect 2 ploopctl check a.hds
    like "$(cat out)" "error: in_use *"$'\n'"leak: *"$'\n'"a.hds: 1 error, 2 leaked clusters, recoverable" "unclean"
    expect 2 ploopctl check --json a.hds
    same "$(json '[(r["kind"], r["repair"]) for r in j["records"]]')" "[('unclean', 'unclean'), ('leak', 'leaks')]" unclean
    same "$(json 'j["errors"], j["recoverable"], j["result"]')" "1 True corrupt" unclean
    silent ploopctl info --json a.hds
    same "$(json 'j["in_use"], hex(j["in_use_value"])')" "True 0x746f6e59" "info of an unclean image"
    silent ploopctl info a.hds
    grep -q "not closed cleanly" out || fail "info does not say so: $(cat out)"

    printf '\xff\xff\x00\x00' | dd of=a.hds bs=1 seek=$((64 + 4)) conv=notrunc status=none
    expect 2 ploopctl check --json a.hds
    same "$(json '[(r["kind"], r["guest_cluster"], r["host_offset"]) for r in j["records"] if r["kind"] == "entry_range"]')" \
        "[('entry_range', 1, $((65535 * 65536)))]" "bad entry"
    same "$(json 'j["recoverable"], j["result"]')" "False corrupt" "bad entry"
}

test_repair_leaks() {
    three_clusters
    silent ploopctl convert --from ploop a.hds before.raw
    lost 200000 a.hds
    expect 3 ploopctl check a.hds
    expect 0 ploopctl check --repair leaks a.hds
    like "$(tail -n 1 out)" "a.hds: 0 errors, * leaked clusters, * repaired: now clean" "repair"
    silent ploopctl check a.hds
    judged a.hds
    expect 0 qemu-img compare -f parallels -F raw a.hds before.raw
    silent ploopctl check --repair all --json a.hds
    same "$(json 'j["repaired"], j["result"]')" "0 clean" "nothing to repair"
}

test_repair_unclean() {
    three_clusters
    silent ploopctl convert --from ploop a.hds before.raw
    printf '\x59\x6e\x6f\x74' | dd of=a.hds bs=1 seek=44 conv=notrunc status=none
    expect 2 ploopctl check --repair leaks a.hds
    expect 0 ploopctl check --repair unclean --json a.hds
    same "$(json 'j["errors"], j["repaired"], j["result"]')" "1 1 clean" "repair"
    judged a.hds
    expect 0 qemu-img compare -f parallels -F raw a.hds before.raw
}

# Guest cluster 1 names cluster 0's host cluster, and 5 a host cluster that does not exist.
test_repair_all() {
    local first
    three_clusters
    silent ploopctl convert --from ploop a.hds before.raw
    first=$(od -An -tx1 -j 64 -N 4 a.hds | sed 's/ /\\x/g')
    # shellcheck disable=SC2059
    printf "$first" | dd of=a.hds bs=1 seek=68 conv=notrunc status=none
    printf '\xff\xff\x00\x00' | dd of=a.hds bs=1 seek=$((64 + 5 * 4)) conv=notrunc status=none
    expect 2 ploopctl check --repair leaks a.hds
    expect 2 ploopctl check --json a.hds
    same "$(json '[(r["kind"], r["guest_cluster"], r["repair"]) for r in j["records"] if r["kind"] != "leak"]')" \
        "[('entry_duplicate', 1, 'all'), ('entry_range', 5, 'all')]" "findings"
    expect 0 ploopctl check --repair all a.hds
    judged a.hds
    silent ploopctl convert --from ploop a.hds after.raw
    cmp -n 65536 before.raw after.raw || fail "the owner's cluster changed"
}

test_info() {
    three_clusters
    silent ploopctl info --json a.hds
    python3 -m json.tool <out >/dev/null || fail "not JSON: $(cat out)"
    same "$(json 'sorted(j)')" \
        "['bases', 'bat_entries', 'cluster_size', 'data_offset', 'delta_count', 'disk_size', 'empty', 'extension_offset', 'file_size', 'image', 'in_use', 'in_use_value', 'mapped', 'raw_base', 'version']" keys
    same "$(json 'j["image"], j["version"], j["cluster_size"], j["disk_size"], j["bat_entries"], j["mapped"]')" "a.hds 2 65536 10485760 160 3" info
    silent ploopctl info a.hds
    grep -q "^mapped  *3 clusters, 192 KiB (196608 bytes)$" out || fail "$(cat out)"
    grep -q "^disk size  *10 MiB (10485760 bytes)$" out || fail "$(cat out)"
    grep -q "^state  *closed cleanly$" out || fail "$(cat out)"
}

# What Parallels Desktop leaves is a closed image.
test_in_use_of_other_software() {
    local value
    for value in pd17 pd22 x; do
        three_clusters
        printf %s "$value" | dd of=a.hds bs=1 seek=44 conv=notrunc status=none
        silent ploopctl info a.hds
        grep -q "^state  *closed cleanly, by other software$" out || fail "$(cat out)"
        silent ploopctl check a.hds
        like "$(cat out)" "note: in_use 0x????????: closed by other software"$'\n'"a.hds: clean" "$value"
        silent ploopctl check --json a.hds
        same "$(json 'j["notes"], [r["kind"] for r in j["records"]], j["result"]')" "1 ['in_use_value'] clean" "$value"
        rm a.hds
    done
}

# Names are escaped so that any JSON reader accepts them.
test_json_names() {
    local name
    for name in 'quote".hds' 'back\slash' $'tab\tand\nline' 'Größe' $'bad\xff\xc0\x80\xed\xa0\x80utf8' $'\xf0\x9f\x92\xbe'; do
        silent ploopctl create --size 1M "./$name"
        silent ploopctl info --json "./$name"
        python3 -m json.tool <out >/dev/null || fail "not JSON: $(cat out)"
        same "$(python3 -c 'import json, os, sys; sys.stdout.buffer.write(json.load(open("out", encoding="utf-8"))["image"].encode("utf-8", "surrogateescape"))')" \
            "./$name" "the name comes back"
        silent ploopctl check --json "./$name"
        python3 -m json.tool <out >/dev/null || fail "not JSON: $(cat out)"
        silent ploopctl bat --json "./$name"
        python3 -m json.tool <out >/dev/null || fail "not JSON: $(cat out)"
    done
}

test_map() {
    local version
    for version in "" --v1; do
        rm -f a.hds
        three_clusters $version
        oracle map a.hds >placed
        silent ploopctl map --json a.hds
        python3 -m json.tool <out >/dev/null || fail "not JSON: $(cat out)"
        # The map covers the disk without a gap, and places every cluster where the independent reader does.
        python3 - <<'END' || fail "map $version: $(cat out placed)"
import json
extents, placed, at = json.load(open("out")), {}, 0
for e in extents:
    assert sorted(e) == ["host_offset", "length", "level", "offset", "state"], e
    assert e["offset"] == at and e["length"] > 0, e
    at += e["length"]
    assert e["state"] in ("mapped", "zero"), e
    assert (e["state"] == "mapped") == (e["host_offset"] is not None) == (e["level"] == 0), e
    if e["state"] == "mapped":
        for cluster in range(e["length"] // 65536):
            placed[e["offset"] // 65536 + cluster] = e["host_offset"] + cluster * 65536
assert at == 10485760, at
assert placed == dict(map(int, line.split()) for line in open("placed")), placed
assert [e["state"] for e in extents].count("zero") == 2
END
        silent ploopctl map a.hds
        same "$(awk 'NR > 1 { print $1, $2, $3 }' out | tail -n 1)" "393216 10092544 zero" "map $version"
    done
    ploopctl create --size 0 empty.hds
    silent ploopctl map --json empty.hds
    same "$(json j)" "[]" "map of no disk"
}

# A bad entry is shown and is an error, and the map has all the rest.
test_map_bad_entry() {
    three_clusters
    printf '\xff\xff\x00\x00' | dd of=a.hds bs=1 seek=$((64 + 4)) conv=notrunc status=none
    expect 1 ploopctl map --json a.hds
    like "$(cat err)" "ploopctl: a.hds: 1 invalid map entry; see ploopctl check" "map"
    same "$(json '[(e["offset"], e["length"]) for e in j if e["state"] == "bad"]')" "[(65536, 65536)]" bad
    same "$(json '[e["offset"] for e in j if e["state"] == "mapped"]')" "[0, 327680]" mapped
}

# Takes the first entries out of the map of a closed image: what they named is free.
unmap_front() {
    dd if=/dev/zero of="$1" bs=1 seek=64 count=$((4 * $2)) conv=notrunc status=none
}

# From a map of one cluster to one of five; in a file system, and as QEMU and the OpenVZ tools see it.
test_grow() {
    misused "ploopctl: grow: --size is required" ploopctl grow a.hds
    misused "ploopctl: grow: invalid size '1000': expected a multiple of 512 bytes" ploopctl grow --size 1000 a.hds
    local version
    for version in "" --v1; do
        rm -f a.hds
        # shellcheck disable=SC2086
        silent ploopctl create $version --size 64M --cluster 64K a.hds
        head -c 64M /dev/urandom >before.raw
        qemu-io -f parallels -c "write -s before.raw 0 64M" a.hds >out || fail "$(cat out)"
        silent ploopctl grow --size 6G a.hds
        judged a.hds
        silent ploopctl info --json a.hds
        same "$(json 'j["disk_size"]')" 6442450944 "the size"
        truncate -s 6G before.raw
        expect 0 qemu-img compare -f parallels -F raw a.hds before.raw
        refused "ploopctl: a.hds: a disk of 512 bytes: no whole sectors, or less than the disk has: 6442450944" ploopctl grow --size 512 a.hds
    done
    refused "ploopctl: a.hds: a disk of 3298534883328 bytes: too large for this image, whose cluster size is 65536" \
        ploopctl grow --size 3T a.hds
    truncate -s 8M raw
    silent ploopctl create --size 4M --cluster 64K b.hds
    refused "ploopctl: b.hds: a disk of 8388608 bytes: it would uncover the raw base, whose size is 8388608" \
        ploopctl grow --size 8M --raw-base raw b.hds
}

# Three quarters of the file become holes; what is left fills the file without them, as QEMU and the oracle see it.
test_compact() {
    misused "ploopctl: compact: invalid rate '0': expected bytes a second, like 20M" ploopctl compact --rate 0 a.hds
    local version size
    for version in "" --v1; do
        rm -f a.hds
        # shellcheck disable=SC2086
        silent ploopctl create $version --size 64M --cluster 64K a.hds
        head -c 64M /dev/urandom >before.raw
        qemu-io -f parallels -c "write -s before.raw 0 64M" a.hds >out || fail "$(cat out)"
        unmap_front a.hds 768
        fallocate -p -o 0 -l 48M before.raw
        silent ploopctl compact a.hds
        judged a.hds
        size=$(stat -c %s a.hds)
        ((size <= 17 << 20)) || fail "$size bytes for 16 MiB of data"
        expect 0 qemu-img compare -f parallels -F raw a.hds before.raw
        silent ploopctl compact a.hds
        same "$(stat -c %s a.hds)" "$size" "the size after another time"
    done
}

# Ctrl-C in the middle: the disk is as it was, the file is closed cleanly, and the rest is done by another one.
test_compact_interrupted() {
    local status=0
    silent ploopctl create --size 64M --cluster 64K a.hds
    head -c 64M /dev/urandom >before.raw
    qemu-io -f parallels -c "write -s before.raw 0 64M" a.hds >out || fail "$(cat out)"
    unmap_front a.hds 512
    fallocate -p -o 0 -l 32M before.raw
    ploopctl compact --rate 4M a.hds >out 2>err &
    for _ in $(seq 500); do
        [[ $(od -An -tx4 -j44 -N4 a.hds) == *746f6e59 ]] && break # the mark
        sleep 0.01
    done
    sleep 0.5
    kill -INT $! || fail "ended too early"
    wait $! || status=$?
    same $status 1 "exit status: $(cat err)"
    same "$(cat err)" "ploopctl: a.hds: interrupted" "its message"
    (($(stat -c %s a.hds) > 40 << 20)) || fail "it was not interrupted"
    judged a.hds
    expect 0 qemu-img compare -f parallels -F raw a.hds before.raw
    silent ploopctl compact a.hds
    (($(stat -c %s a.hds) <= 33 << 20)) || fail "$(stat -c %s a.hds) bytes for 32 MiB of data"
    expect 0 qemu-img compare -f parallels -F raw a.hds before.raw
}

test_bat() {
    three_clusters
    silent ploopctl bat --json a.hds
    python3 -m json.tool <out >/dev/null || fail "not JSON: $(cat out)"
    same "$(json 'j["image"], j["bat_entries"], j["mapped"]')" "a.hds 160 3" bat
    same "$(json 'j["pages"]')" "[{'page': 0, 'first_entry': 0, 'entries': 160, 'mapped': 3, 'picture': ':.........'}]" bat
    silent ploopctl bat a.hds
    same "$(head -n 1 out)" "a.hds: 160 entries in 1 pages, 3 mapped" bat
    same "$(tail -n 1 out | awk '{ print $1, $2, $3, $4 }')" "0 160 3 :........." bat
}

test_bat_pictures() {
    local dots
    dots=$(printf '%63s' '' | tr ' ' .)
    # 16 clusters of page 0 all mapped, 8 of the next 16, one of page 2; 5 pages.
    ploopctl create --size 18M --cluster 4K a.hds || fail create
    qemu-io -f parallels -c "write 0 64k" -c "write 64k 32k" -c "write $(((1008 + 1024 + 32) * 4))k 4k" a.hds >qemu || fail qemu-io
    silent ploopctl bat --json a.hds
    same "$(json '[(p["page"], p["first_entry"], p["entries"], p["mapped"]) for p in j["pages"]]')" \
        "[(0, 0, 1008, 24), (1, 1008, 1024, 0), (2, 2032, 1024, 1), (3, 3056, 1024, 0), (4, 4080, 528, 0)]" pages
    same "$(json 'j["pages"][0]["picture"]')" "#+${dots:2}" "page 0"
    same "$(json 'j["pages"][2]["picture"]')" "..:${dots:2}" "page 2"
    # Adjacent empty pages share a row.
    ploopctl create --size 1G --cluster 4K b.hds || fail create
    silent ploopctl bat b.hds
    same "$(awk 'NR > 2 { print $1 }' out | xargs)" "0 1-255 256" rows
}

# Another program has it open for writing, or was killed while it had.
test_open_elsewhere() {
    local command holder
    three_clusters
    ploopctl convert --from ploop --to raw a.hds a.raw || fail convert
    mkfifo hold
    qemu-io -f parallels a.hds <hold >qemu 2>&1 &
    holder=$!
    exec 9>hold
    echo "read 0 1" >&9
    for _ in $(seq 100); do grep -q "read 1/1" qemu && break; sleep 0.1; done
    for command in info check map bat; do
        refused "ploopctl: a.hds: cannot open: another process has it open for writing" ploopctl $command a.hds
    done
    refused "ploopctl: a.hds: cannot open: another process has it open for writing" ploopctl convert --from ploop a.hds b.raw
    [[ ! -e b.raw ]] || fail "a failed convert left its target"
    refused "ploopctl: a.hds: cannot open for writing: another process has it open" ploopctl check --repair leaks a.hds
    for command in "info -U" "map --force-share" "map -U --json" "bat -U" "info --json --force-share"; do
        # shellcheck disable=SC2086
        expect 0 ploopctl $command a.hds
        like "$(cat err)" "ploopctl: a.hds: warning: read without a lock: *" "$command"
    done
    same "$(json 'j["in_use"], j["mapped"]')" "True 3" "info of an image in use"
    expect 2 ploopctl check --json -U a.hds
    same "$(json '[r["kind"] for r in j["records"]], j["recoverable"]')" "['unclean'] True" "check of an image in use"
    misused "ploopctl: check: --repair cannot be combined with --force-share" ploopctl check -U --repair leaks a.hds
    misused "ploopctl: invalid option -- 'U'" ploopctl create -U --size 1M b.hds
    exec 9>&-
    wait $holder
    expect 0 ploopctl check a.hds

    qemu-io -f raw a.raw <hold >qemu 2>&1 &
    holder=$!
    exec 9>hold
    echo "write 0 512" >&9
    for _ in $(seq 100); do grep -q "wrote 512/512" qemu && break; sleep 0.1; done
    refused "ploopctl: a.raw: cannot open: another process has it open for writing" ploopctl convert --to ploop a.raw b.hds
    [[ ! -e b.hds ]] || fail "a failed convert left its target"
    exec 9>&-
    wait $holder
}

test_killed_writer() {
    three_clusters
    expect 134 timeout 60 qemu-io -f parallels -c "write -P 9 1M 64k" -c flush -c abort a.hds
    expect 2 ploopctl check --json a.hds
    same "$(json 'j["recoverable"]')" True "after a crash"
    silent ploopctl info --json a.hds
    same "$(json 'j["in_use"]')" True "after a crash"
    expect 0 ploopctl convert --from ploop a.hds a.raw
    same "$(wc -l <err)" 1 "one warning"
    like "$(cat err)" "ploopctl: a.hds: *not closed cleanly*" "a warning"
    same "$(cmp -n 65536 -i $((1 << 20)):0 a.raw <(head -c 65536 /dev/zero | tr '\0' '\t') && echo same)" same "what was flushed"
}

test_read_only_file() {
    three_clusters
    chmod 444 a.hds
    # File modes hold for root only without these capabilities.
    # shellcheck disable=SC2317
    ploopctl() { setpriv --bounding-set=-dac_override,-dac_read_search --inh-caps=-dac_override,-dac_read_search "$(type -P ploopctl)" "$@"; }
    refused "ploopctl: a.hds: cannot open: Permission denied" ploopctl check --repair leaks a.hds
    silent ploopctl info a.hds
    silent ploopctl check a.hds
    silent ploopctl map a.hds
    silent ploopctl bat a.hds
}

# A sparse file may claim a BAT of any size: the memory for it is limited.
test_huge_bat() {
    local command
    python3 - <<'END'
import struct
entries = 1 << 29
data_off = (64 + 4 * entries + 4095) // 4096 * 8
with open("a.hds", "wb") as file:
    file.write(struct.pack("<16sIIIIIQIIIQ", b"WithouFreSpacExt", 2, 16, 32, 8, entries, entries * 8, 0, data_off, 1, 0))
    file.truncate(data_off * 512)
END
    for command in info check map bat; do
        refused "ploopctl: a.hds: *BAT needs more memory*" ploopctl $command a.hds
    done
    refused "ploopctl: a.hds: *BAT needs more memory*" ploopctl convert --from ploop a.hds a.raw
}

# base.hds of 10M has clusters 0, 1 and 5, middle.hds of 12M has 1, a.hds of 16M has 2; base.raw is odd.
three_deltas() {
    three_clusters "$@"
    mv a.hds base.hds
    silent ploopctl create --size 12M --cluster 64K "$@" middle.hds
    silent ploopctl create --size 16M --cluster 64K "$@" a.hds
    expect 0 qemu-io -f parallels -c "write -P 7 64k 64k" middle.hds
    expect 0 qemu-io -f parallels -c "write -P 9 128k 64k" a.hds
    expect 0 ploopctl check --repair unclean middle.hds # the Empty flag
    expect 0 ploopctl check --repair unclean a.hds
    head -c 100001 /dev/urandom >base.raw
}

test_stack() {
    local version stack=(--base base.hds --base middle.hds a.hds)
    for version in "" --v1; do
        rm -f -- *.hds *.raw
        three_deltas $version
        sha256sum -- *.hds base.raw >before
        silent ploopctl map --json "${stack[@]}"
        same "$(json '[(e["offset"] >> 16, e["length"] >> 16, e["level"]) for e in j]')" \
            "[(0, 1, 0), (1, 1, 1), (2, 1, 2), (3, 2, None), (5, 1, 0), (6, 250, None)]" "map $version"
        silent ploopctl map --base base.hds --base middle.hds a.hds
        same "$(awk '$3 == "mapped" { print $5 }' out | xargs)" "0 1 2 0" "levels"
        silent ploopctl info --json "${stack[@]}"
        same "$(json 'j["delta_count"], j["bases"], j["raw_base"], j["mapped"]')" "3 ['base.hds', 'middle.hds'] False 1" info
        silent ploopctl info "${stack[@]}"
        like "$(cat out)" "*stack         3 deltas, which fit together*delta 0     base.hds*delta 1     middle.hds*" info
        silent ploopctl check "${stack[@]}"
        same "$(cat out)" "$(printf '%s: clean\n' base.hds middle.hds a.hds)" check
        silent ploopctl check --json "${stack[@]}"
        same "$(json 'j["image"], j["records"], j["mapped"], j["recoverable"], j["result"]')" "a.hds [] 5 True clean" "check --json"
        silent ploopctl convert --from ploop "${stack[@]}" flat.raw
        same "$(sha256sum <flat.raw | cut -d' ' -f1)" "$(oracle sha256 a.hds middle.hds base.hds)" "flattened $version"
        silent ploopctl bat --json "${stack[@]}"
        same "$(json 'j["mapped"]')" 1 "the BAT is the top's"

        # The raw base is the lowest, wherever the option stands.
        silent ploopctl convert --from ploop --base middle.hds --raw-base base.raw a.hds raw.raw
        same "$(sha256sum <raw.raw | cut -d' ' -f1)" "$(oracle sha256 a.hds middle.hds raw:base.raw)" "over a raw base"
        silent ploopctl map --json --raw-base base.raw a.hds
        same "$(json '[(e["offset"], e["length"], e["level"], e["host_offset"]) for e in j][:2]')" "[(0, 100352, 0, 0), (100352, 30720, None, None)]" raw
        silent ploopctl check --raw-base base.raw a.hds
        silent ploopctl info --raw-base base.raw a.hds
        grep -q "delta 0     base.raw, raw" out || fail "info: $(cat out)"
        sha256sum -c --quiet before || fail "a file was changed"
    done
}

# A misfit is reported with the file's name, and a check counts it.
test_stack_that_does_not_fit() {
    local command why="disk size 12582912: larger than that of the delta above it, 10485760"
    three_deltas
    sha256sum -- *.hds >before
    for command in info map bat "convert --from ploop"; do
        # shellcheck disable=SC2086
        refused "ploopctl: middle.hds: $why" ploopctl $command --base middle.hds --base base.hds a.hds ${command:+$([[ $command != c* ]] || echo flat.raw)}
    done
    [[ ! -e flat.raw ]] || fail "a failed convert left its target"
    expect 2 ploopctl check --base middle.hds --base base.hds a.hds
    [[ ! -s err ]] || fail "check: $(cat err)"
    same "$(cat out)" "$(printf '%s: clean\n' middle.hds base.hds a.hds; echo "error: $why"; echo "middle.hds: does not fit")" check
    expect 2 ploopctl check --json --base middle.hds --base base.hds a.hds
    same "$(json '[(r["kind"], r["image"], r["text"]) for r in j["records"]]')" "[('misfit', 'middle.hds', '$why')]" "check --json"
    same "$(json 'j["errors"], j["recoverable"], j["result"]')" "1 False corrupt" "check --json"

    silent ploopctl create --v1 --size 10M --cluster 64K old.hds
    silent ploopctl create --size 10M --cluster 32K small.hds
    refused "ploopctl: old.hds: version 1: not the top delta's, 2" ploopctl map --base old.hds a.hds
    refused "ploopctl: small.hds: cluster size 32768: not the top delta's, 65536" ploopctl map --base base.hds --base small.hds a.hds

    # Each file is checked alone too.
    lost 131072 base.hds
    expect 3 ploopctl check --json --base base.hds --base middle.hds a.hds
    same "$(json '[(r["kind"], r["image"]) for r in j["records"]], j["result"]')" "[('leak', 'base.hds')] leaks" "a leak below"
    printf '\xff\xff\x00\x00' | dd of=middle.hds bs=1 seek=$((64 + 4)) conv=notrunc status=none
    expect 2 ploopctl check --base base.hds --base middle.hds a.hds
    like "$(cat out)" "*base.hds: 0 errors, 2 leaked clusters*middle.hds: 1 error*a.hds: clean" "a bad entry in the middle"
    expect 1 ploopctl map --json --base base.hds --base middle.hds a.hds
    same "$(json '[(e["offset"], e["length"]) for e in j if e["state"] == "bad"]')" "[(65536, 65536)]" "a bad entry in the middle"
    printf '\x00' | dd of=base.hds bs=1 seek=16 conv=notrunc status=none
    expect 2 ploopctl check --json --base base.hds a.hds
    same "$(json '[(r["kind"], r["image"]) for r in j["records"]], j["result"]')" "[('header', 'base.hds')] corrupt" "a bad header below"
}

test_stack_wrong_calls() {
    local command many=() i
    three_deltas
    for command in info check map bat; do
        refused "ploopctl: none.hds: cannot open: No such file or directory" ploopctl $command --base none.hds a.hds
        refused "ploopctl: base.raw: *magic*" ploopctl $command --base base.raw a.hds
        misused "ploopctl: $command: more than one --raw-base: 'base.raw' and 'x'" ploopctl $command --raw-base base.raw --raw-base x a.hds
    done
    ln -s a.hds link.hds
    ln base.hds hard.hds
    for command in info check map bat; do
        refused "ploopctl: link.hds: the same file as a.hds: a file cannot be in a stack twice" ploopctl $command --base a.hds link.hds
        refused "ploopctl: hard.hds: the same file as base.hds: *" ploopctl $command --base base.hds --base hard.hds a.hds
        refused "ploopctl: a.hds: the same file as a.hds: *" ploopctl $command --raw-base a.hds a.hds
    done
    refused "ploopctl: link.hds: the same file as a.hds: *" ploopctl convert --from ploop --base a.hds link.hds flat.raw
    misused "ploopctl: check: --repair cannot be combined with --base or --raw-base: *" ploopctl check --repair all --base base.hds a.hds
    refused "ploopctl: base.raw: *magic*" ploopctl check --json --base base.raw a.hds
    misused "ploopctl: convert: --base and --raw-base require a ploop source" ploopctl convert --to ploop --base base.hds three.raw b.hds
    [[ ! -e b.hds ]] || fail "a wrong call left a file"
    for ((i = 0; i < 255; i++)); do many+=(--base base.hds); done
    misused "ploopctl: map: too many backing files: at most 254 are supported" ploopctl map "${many[@]}" a.hds

    printf '\x59\x6e\x6f\x74' | dd of=base.hds bs=1 seek=44 conv=notrunc status=none
    expect 0 ploopctl convert --from ploop --base base.hds a.hds flat.raw
    like "$(cat err)" "ploopctl: base.hds: warning: *not closed cleanly*" "an unclean base"
    expect 2 ploopctl check --json --base base.hds a.hds
    same "$(json '[(r["kind"], r["image"]) for r in j["records"]], j["recoverable"]')" "[('unclean', 'base.hds')] True" "an unclean base"
}

# The largest number, 255, each with a cluster of its own.
test_as_many_deltas_as_there_can_be() {
    local i bases=() all=()
    ploopctl create --size 1M --cluster 4K 0.hds || fail create
    for ((i = 1; i < 255; i++)); do cp 0.hds $i.hds; done
    python3 - <<'END'
import struct
for i in range(255):
    with open("%d.hds" % i, "r+b") as file:
        head = bytearray(file.read())
        start, = struct.unpack_from("<I", head, 48)
        struct.pack_into("<I", head, 64 + 4 * i, start // 8)
        struct.pack_into("<I", head, 52, 0)
        file.seek(0)
        file.write(head.ljust(start * 512, b"\0") + bytes([i + 1 & 255]) * 4096)
END
    for ((i = 0; i < 254; i++)); do bases+=(--base "$i.hds") all=("$i.hds" "${all[@]}"); done
    silent ploopctl check "${bases[@]}" 254.hds
    silent ploopctl map --json "${bases[@]}" 254.hds
    same "$(json 'all(e["level"] == i for i, e in enumerate(j[:255])), len(j)')" "True 256" levels
    silent ploopctl convert --from ploop "${bases[@]}" 254.hds flat.raw
    same "$(sha256sum <flat.raw | cut -d' ' -f1)" "$(oracle sha256 254.hds "${all[@]}")" "flattened"
}

test_stack_base_open_elsewhere() {
    local holder
    three_deltas
    mkfifo hold
    qemu-io -f parallels base.hds <hold >qemu 2>&1 &
    holder=$!
    exec 9>hold
    echo "read 0 1" >&9
    for _ in $(seq 100); do grep -q "read 1/1" qemu && break; sleep 0.1; done
    refused "ploopctl: base.hds: cannot open: another process has it open for writing" ploopctl map --base base.hds --base middle.hds a.hds
    exec 9>&-
    wait $holder
}

# Every command shows how it is called.
test_help_has_examples() {
    local command count=0
    for command in $(ploopctl --help | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p'); do
        count=$((count + 1))
        expect 0 ploopctl "$command" --help
        grep -A1 "^Examples:" out | grep -q "^  ploopctl $command" || fail "$command: $(cat out)"
    done
    ((count >= 11)) || fail "--help lists $count commands"
}

# Colours on a terminal only, and not where NO_COLOR is.
test_colours() {
    three_clusters
    truncate -s +1000000 a.hds
    head -c 1000000 /dev/zero | tr '\0' x | dd of=a.hds bs=65536 oflag=append conv=notrunc status=none
    expect 3 ploopctl check a.hds
    ! grep -q $'\033' out || fail "colours in a file"
    expect 3 env TERM=xterm script -qec "ploopctl check a.hds" typescript
    grep -q $'\033\[33mleak' out || fail "no colours on a terminal: $(cat -v out)"
    expect 3 env TERM=xterm NO_COLOR=1 script -qec "ploopctl check a.hds" typescript
    ! grep -q $'\033' out || fail "colours although NO_COLOR is set"
}

# Ctrl-C ends a check that takes long: one line, and nothing is written.
test_check_interrupted() {
    local status delay
    expect 0 ploopctl create --size 1T --cluster 4K a.hds
    for delay in 0.1 0.3 0.02 1; do
        ploopctl check a.hds >out 2>err &
        sleep $delay
        kill -INT $! 2>/dev/null
        status=0
        wait $! || status=$?
        [[ $status == [01] ]] || fail "exit status $status"
        [[ $status == 1 ]] && break
    done
    same $status 1 "no check was interrupted: exit status"
    same "$(cat err)" "ploopctl: a.hds: cannot check: interrupted" "the line"
    same "$(cat out)" "" "standard output"
    expect 0 ploopctl check a.hds
}

test_completion() {
    # shellcheck disable=SC2016
    complete_at() { # WORDS...: what the last one can become
        bash -c '. "$0"; COMP_WORDS=(ploopctl "$@"); COMP_CWORD=$#; _ploopctl; echo "${COMPREPLY[*]}"' "$here/../../tools/ploopctl.bash" "$@"
    }
    same "$(complete_at che)" check "a command"
    like "$(complete_at check --)" "*--repair*--cached*" "options"
    same "$(complete_at check --repair un)" unclean "an argument"
    : >somefile
    same "$(complete_at check some)" somefile "a file"
}

# Output that cannot be written is a failure.
test_full_output() {
    local call status
    three_clusters
    for call in "info" "info --json" "check" "check --json" "map" "map --json" "bat" "bat --json"; do
        status=0
        # shellcheck disable=SC2086
        ploopctl $call a.hds >/dev/full 2>err || status=$?
        same $status 1 "$call to a full device"
        like "$(cat err)" "ploopctl: standard output: No space left on device" "$call"
    done
    ploopctl --help >/dev/full 2>err && fail "--help to a full device"
    ploopctl map --help >/dev/full 2>err && fail "map --help to a full device"
    :
}

run_scenarios "${@:2}"
