#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Disks that are split into parts: one disk for ploopctl and for the plugin, whatever the parts are. A shadow in one raw file takes the
# same requests; QEMU and the independent reader judge each part. What does not fit is refused in one line, and nothing is changed.
#
#   bundle_split.sh BUILD_DIRECTORY [SCENARIO...]
source "$(dirname "$0")/scenarios.bash"
# shellcheck source=SCRIPTDIR/bundle.bash
source "$here/bundle.bash"

# split DIR END[:KIND]...: a split disk whose parts end at these sectors; KIND is plain, v1, v2 (the default) or stack, two images.
split() {
    local dir=$1
    shift
    mkdir "$dir"
    python3 - "$dir" "$top" "$@" <<'END'
import pathlib, subprocess, sys
directory, top, parts = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
below, zero = "{11111111-2222-3333-4444-555555555555}", "{%s}" % "-".join("0" * n for n in (8, 4, 4, 4, 12))
stacked = any(part.endswith(":stack") for part in parts)
start, storages = 0, ""

def made(name, kind, sectors):
    path = directory / name
    if kind == "plain":
        with open(path, "wb") as file:
            file.truncate(sectors * 512)
    else:
        version = ["--v1"] if kind == "v1" else []
        subprocess.run(["ploopctl", "create", "--size", str(sectors * 512), "--cluster", "64K", *version, path], check=True)
    return "<Image><GUID>%s</GUID><Type>%s</Type><File>" + name + "</File></Image>"

for number, part in enumerate(parts):
    end, _, kind = part.partition(":")
    images = ""
    if stacked:
        images = made("%d.base" % number, kind, int(end) - start) % (below, "Plain" if kind == "plain" else "Compressed")
        kind = "v1" if kind in ("v1", "plain") else "v2"
    images += made("%d.hds" % number, kind, int(end) - start) % (top, "Plain" if kind == "plain" else "Compressed")
    storages += "<Storage><Start>%d</Start><End>%s</End><Blocksize>128</Blocksize>%s</Storage>" % (start, end, images)
    start = int(end)
shots = "<Shot><GUID>%s</GUID><ParentGUID>%s</ParentGUID></Shot>" % (top, below if stacked else zero)
shots += "<Shot><GUID>%s</GUID><ParentGUID>%s</ParentGUID></Shot>" % (below, zero) if stacked else ""
(directory / "DiskDescriptor.xml").write_text(
    "<Parallels_disk_image Version=\"1.0\"><Disk_Parameters><Disk_size>%d</Disk_size></Disk_Parameters><StorageData>%s</StorageData>"
    "<Snapshots>%s</Snapshots></Parallels_disk_image>" % (start, storages, shots))
END
}

# both DIR COMMAND...: the same qemu-io commands for the disk, through the plugin, and for its shadow.
both() {
    local dir=$1 command=() one
    shift
    guest "$dir" "$@"
    for one in "$@"; do command+=(-c "$one"); done
    qemu-io -f raw "${command[@]}" shadow >shadow.log 2>&1 || fail "qemu-io shadow: $(cat shadow.log)"
}

# alike DIR: the disk is its shadow, for convert, for a client and in the map; each part is sound.
alike() {
    local image
    rm -f out.raw
    expect 0 ploopctl convert --to raw "$1" out.raw
    cmp out.raw shadow || fail "$1: convert"
    # shellcheck disable=SC2016  # nbdkit's variable
    nbdkit -U - -r "$plugin" image="$1" --run 'qemu-img compare -f raw -F raw "$uri" shadow' >compare.log 2>&1 || fail "$1: $(cat compare.log)"
    expect 0 ploopctl check "$1"
    for image in "$1"/*.hds; do
        if head -c 7 "$image" | grep -q "^Withou"; then expect 0 oracle check "$image"; fi
    done
}

# tried DIR SECTORS: requests inside the parts and across their borders.
tried() {
    truncate -s $(($2 * 512)) shadow
    both "$1" "write -P 1 0 $(($2 * 512))"
    alike "$1"
    both "$1" "write -P 2 512k 1M" "write -P 3 0 512" "write -P 4 $(($2 * 512 - 512)) 512"
    both "$1" "write -z 700k 900k" "write -f -P 5 1000k 3k" "write -zu 100k 300k" "flush"
    alike "$1"
    guest "$1" "discard 0 200k"
    expect 0 ploopctl check "$1"
    rm shadow
}

test_expanding() {
    split d 1500 2048:v1 6001
    tried d 6001
    split one 1:v1 2 3 4096:v1
    tried one 4096
}

test_plain() {
    split d 1500:plain 2048 6001:plain
    tried d 6001
    split all 100:plain 4096:plain
    tried all 4096
}

test_stacks() {
    split d 1500:v1 2048:plain 6001:stack
    tried d 6001
}

test_shown() {
    split d 1024 2048:plain
    guest d "write -P 1 0 4k"
    expect 0 ploopctl info d
    like "$(cat out)" "*split into 2 parts*part 0*bytes 0 to 524288: d/0.hds, mapped 64*part 1*d/1.hds, raw, mapped 512*" info
    expect 0 ploopctl info --json d
    same "$(json '[(p["start"], p["end"], p["raw"], p["mapped_bytes"]) for p in j["parts"]]')" \
        "[(0, 524288, False, 65536), (524288, 1048576, True, 524288)]" "info --json"
    expect 0 ploopctl map --json d
    same "$(json '[(e["offset"], e["length"], e["state"], e["part"]) for e in j]')" \
        "[(0, 65536, 'mapped', 0), (65536, 458752, 'zero', 0), (524288, 524288, 'mapped', 1)]" "map --json"
    expect 0 ploopctl map d
    same "$(wc -l <out)" 4 "lines of map"
    expect 0 ploopctl check --json d
    same "$(json '(j["result"], len(j["parts"]))')" "('clean', 1)" "check --json"
    printf '\x59\x6e\x6f\x74' | dd of=d/0.hds bs=1 seek=44 conv=notrunc status=none
    expect 2 ploopctl check d
    expect 0 ploopctl check --repair all d
    expect 0 ploopctl check d
    refused "ploopctl: d: a disk split into 2 parts cannot be used here" ploopctl bat d
    refused "ploopctl: d: --force-share does not work with a disk split into parts" ploopctl info -U d
    silent ploopctl convert --to bundle d one.hdd
    same "$(content one.hdd)" "$(content d)" "one part of it"
}

# unfit PATTERN DIR: nobody opens it, and no file of it is changed.
unfit() {
    local before
    before=$(find "$2" -type f ! -name '*.lck' -exec sha256sum {} + | sort)
    refused "ploopctl: *$1" ploopctl info "$2"
    refused "ploopctl: *$1" ploopctl map "$2"
    refused "ploopctl: *$1" ploopctl convert --to raw "$2" x
    [[ ! -e x ]] || fail "a target was left"
    expect 1 nbdkit -U - "$plugin" image="$2" --run true
    like "$(cat err)" "*$1" "the plugin on $2"
    same "$(wc -l <err)" 1 "lines of the plugin: $(cat err)"
    same "$(find "$2" -type f ! -name '*.lck' -exec sha256sum {} + | sort)" "$before" "the files"
}

test_malformed() {
    local xml=d/DiskDescriptor.xml
    split d 1024 2048:plain 3072
    cp -a d good
    again() { rm -rf d && cp -a good d; }
    sed -i 's/<Start>1024/<Start>1030/' $xml
    unfit "storages do not lie one behind the other*" d
    again && sed -i 's/<Start>2048/<Start>2000/' $xml
    unfit "storages do not lie one behind the other*" d
    again && sed -i 's/<Disk_size>3072/<Disk_size>3073/' $xml
    unfit "the storages end at sector 3072, the disk at 3073" d
    again && sed -i 's/3072/3071/g' $xml
    unfit "its image '2.hds' has a disk of 524288 bytes and clusters of 65536, not 523776 and 65536" d
    again && sed -i -e 's/<End>1024/<End>1000/' -e 's/<Start>1024/<Start>1000/' $xml
    unfit "its image '0.hds' has a disk of 524288 bytes and clusters of 65536, not 512000 and 65536" d
    again && sed -i 's/<Blocksize>128/<Blocksize>256/' $xml
    unfit "its image '0.hds' has a disk of 524288 bytes and clusters of 65536, not 524288 and 131072" d
    again && truncate -s 524287 d/1.hds
    unfit "its image '1.hds' is a raw disk of 524287 bytes, not 524288" d
    again && truncate -s 1M d/1.hds
    unfit "its image '1.hds' is a raw disk of 1048576 bytes, not 524288" d
    again && truncate -s 40 d/2.hds
    unfit "its image '2.hds': *" d
    again && rm d/2.hds
    unfit "its image '2.hds': No such file or directory" d
    again && sed -i 's/2.hds/0.hds/' $xml
    unfit "two images are the file '0.hds'" d
    again
    expect 0 ploopctl info d
}

# The last part is not clean: the first one is not opened for writing.
test_unclean() {
    split d 1024 2048
    guest d "write -P 1 0 1M"
    printf '\x59\x6e\x6f\x74' | dd of=d/1.hds bs=1 seek=44 conv=notrunc status=none
    # shellcheck disable=SC2016  # nbdkit's variable
    nbdkit -U - "$plugin" image=d --run 'nbdinfo --size "$uri"' >out 2>err && fail "an unclean part was opened"
    like "$(cat err)" "*its image '1.hds'*" "an unclean part"
    expect 0 ploopctl check d/0.hds
    # shellcheck disable=SC2016
    nbdkit -U - "$plugin" image=d recover=1 --run 'qemu-io -f raw -c "read -P 1 0 1M" "$uri"' >out 2>err || fail "recover=1: $(cat err)"
    expect 0 ploopctl check d
    expect 1 nbdkit -U - "$plugin" image=d direct=1 --run true
    like "$(cat err)" "*takes neither direct=1 nor backend=uring" "direct=1"
    refused "ploopctl: d/DiskDescriptor.xml: a split disk is only read" ploopctl bundle snapshot d
}

test_in_use() {
    split d 1024 2048:plain
    # shellcheck disable=SC2016  # nbdkit's variable
    nbdkit -U - "$plugin" image=d --run 'nbdinfo --size "$uri" && ploopctl info d' >out 2>err && fail "info under a server"
    like "$(cat err)" "*its image '0.hds': another program has it open" "info under a server"
    guest d "write -P 1 0 4k"
}

run_scenarios "${@:2}"
