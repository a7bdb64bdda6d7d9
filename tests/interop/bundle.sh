#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Bundles: OpenVZ's ploop reads, changes and locks what is written here, and the other way round; QEMU reads the images. The data goes
# through nbdkit and convert.
#
#   bundle.sh BUILD_DIRECTORY [SCENARIO...]
source "$(dirname "$0")/scenarios.bash"
# shellcheck source=SCRIPTDIR/bundle.bash
source "$here/bundle.bash"

test_theirs_is_read() {
    mkdir theirs
    (cd theirs && ploop init -s 20M -t none -v 1 root.hds >/dev/null 2>&1) || fail "ploop init"
    agreed theirs
    guest theirs "write -P 1 0 3M"
    expect 0 ploop snapshot theirs/DiskDescriptor.xml
    agreed theirs
    guest theirs "write -P 2 1M 1M"
    expect 0 ploop snapshot theirs/DiskDescriptor.xml
    agreed theirs
    guest theirs "read -P 1 0 1M" "read -P 2 1M 1M" "read -P 1 2M 1M" "read -P 0 3M 1M"
    expect 0 ploopctl info --json theirs
    same "$(json 'j["delta_count"]')" 3 "the deltas of a stack that OpenVZ's ploop made"
    expect 0 ploopctl check theirs
}

test_ours_is_changed_by_theirs() {
    local root first
    expect 0 ploopctl bundle create --v1 --size 20M ours.hdd
    agreed ours.hdd
    guest ours.hdd "write -P 1 0 2M"
    root=$(ploopctl bundle snapshot ours.hdd) || fail "bundle snapshot"
    agreed ours.hdd
    guest ours.hdd "write -P 2 1M 1M"
    expect 0 ploop snapshot ours.hdd/DiskDescriptor.xml
    agreed ours.hdd
    first=$(content ours.hdd)
    expect 0 ploop snapshot-switch -u "$root" ours.hdd/DiskDescriptor.xml
    agreed ours.hdd
    guest ours.hdd "read -P 1 0 2M" "write -P 3 0 1M"
    [[ $(content ours.hdd) != "$first" ]] || fail "a switch changed nothing"
    silent ploopctl bundle switch ours.hdd "$(theirs ours.hdd uuid | grep -v -e "$root" -e "$top")"
    agreed ours.hdd
    same "$(content ours.hdd)" "$first" "the disk after going back"
    for image in ours.hdd/*.hds*; do judged "$image"; done
    same "$(find ours.hdd -name '*.hds*' | wc -l)" 3 "images of three snapshots"
}

test_deleted() {
    local root lost
    expect 0 ploopctl bundle create --size 10M d
    root=$(ploopctl bundle snapshot d)
    guest d "write -P 1 0 1M"
    lost=$(ploopctl bundle snapshot d)
    silent ploopctl bundle switch d "$root"
    guest d "read -P 0 0 10M"
    silent ploopctl bundle delete d "$lost"
    agreed d
    refused "*: it has no snapshot $lost" ploopctl bundle delete d "$lost"
    refused "*: 'x' is not a GUID in braces" ploopctl bundle switch d x
    refused "*: this is the top, not one of its snapshots" ploopctl bundle delete d $top
    same "$(find d -name '*.hds*' | wc -l)" 2 "images of two snapshots"
}

# One command makes of a raw disk what Parallels Desktop takes; QEMU and the tools read it.
test_converted() {
    local image version
    head -c 5000000 /dev/urandom >raw
    truncate -s 12M raw
    for version in --v1 ""; do
        # shellcheck disable=SC2086
        silent ploopctl convert --to bundle $version raw disk.hdd
        image=$(echo disk.hdd/*.hds)
        [[ ! $version || $image == "disk.hdd/disk.hdd.0.$top.hds" ]] || fail "the image's name is $image"
        same "$(head -c 16 "$image")" "$([[ $version ]] && echo WithoutFreeSpace || echo WithouFreSpacExt)" "the image's format"
        agreed disk.hdd
        judged "$image"
        expect 0 qemu-img compare -f raw -F parallels raw "$image"
        same "$(content disk.hdd)" "$(sha256sum <raw)" "the raw disk again"
        expect 0 ploopctl bundle snapshot disk.hdd
        same "$(content disk.hdd)" "$(sha256sum <raw)" "the raw disk again, through a stack"
        silent ploopctl convert --to ploop disk.hdd flat.hds
        expect 0 qemu-img compare -f raw -F parallels raw flat.hds
        silent ploopctl convert --to bundle disk.hdd again.hdd
        same "$(content again.hdd)" "$(sha256sum <raw)" "a bundle of a bundle"
        rm -r disk.hdd again.hdd flat.hds
    done
    mkdir there
    refused "ploopctl: there: cannot create: File exists" ploopctl convert --to bundle raw there
    [[ -d there ]] || fail "what was there is gone"
    refused "ploopctl: nothing: cannot open: *" ploopctl convert --to bundle nothing new
    [[ ! -e new ]] || fail "a bundle of nothing"
    refused "ploopctl: raw: not a bundle" ploopctl convert --from bundle --to raw raw new
    [[ ! -e new ]] || fail "a target was left"
}

# One raw file, and the two halves of a split disk.
test_plain_and_split() {
    local xml=plain/DiskDescriptor.xml
    head -c 1M /dev/urandom >raw
    expect 0 ploopctl bundle create --size 1M plain
    cp raw plain/raw
    sed -i -e 's/Compressed/Plain/' -e 's/root.hds/raw/' $xml
    same "$(content plain)" "$(sha256sum <raw)" "a plain bundle"
    refused "ploopctl: plain: its only image, raw, is a raw disk" ploopctl info plain
    expect 1 nbdkit -U - "$plugin" image=plain --run true
    like "$(cat err)" "*is a raw disk*" "the plugin on a plain bundle"
    expect 0 ploopctl bundle snapshot plain
    guest plain "write -P 9 0 4k"
    same "$(sha256sum <plain/raw)" "$(sha256sum <raw)" "the raw disk below a snapshot"
    expect 0 ploopctl info --json plain
    same "$(json 'j["raw_base"]')" True "a stack on a raw disk"

    expect 0 ploopctl bundle create --size 1M split
    xml=split/DiskDescriptor.xml
    python3 - $xml <<'END'
import re, sys
text = open(sys.argv[1]).read()
half = re.search("<Storage>.*</Storage>", text, re.S)[0]
lower = half.replace("<End>2048", "<End>1024")
upper = half.replace("<Start>0", "<Start>1024").replace("root.hds", "more.hds")
open(sys.argv[1], "w").write(text.replace(half, lower + upper))
END
    cp split/root.hds split/more.hds
    expect 0 ploopctl bundle info --json split
    same "$(json '[(s["start"], s["end"]) for s in j["storages"]]')" "[(0, 524288), (524288, 1048576)]" "a split disk"
    refused "ploopctl: split/DiskDescriptor.xml: a split disk is only read" ploopctl bundle snapshot split
}

test_in_use() {
    expect 0 ploopctl bundle create --size 10M d
    # shellcheck disable=SC2016  # nbdkit's variable
    nbdkit -U - "$plugin" image=d --run 'nbdinfo --size "$uri" && ploopctl bundle snapshot d' >out 2>err && fail "a snapshot under a server"
    like "$(cat err)" "*'root.hds': another program has it open" "a snapshot under a server"
    flock d/DiskDescriptor.xml.lck sleep 0.01
    (flock 9 && refused "*another program changes it" ploopctl bundle snapshot d) 9>d/DiskDescriptor.xml.lck || fail "under OpenVZ's lock"
    same "$(find d -name '*.hds*' | wc -l)" 1 "images"
    expect 0 ploopctl bundle snapshot d
}

test_wrong_calls() {
    misused "ploopctl: bundle: missing argument" ploopctl bundle
    misused "ploopctl: bundle: unknown action 'x'" ploopctl bundle x
    misused "ploopctl: bundle: missing argument after*" ploopctl bundle switch d
    misused "ploopctl: bundle: --size is required" ploopctl bundle create d
    refused "ploopctl: d: a bundle's disk cannot be empty" ploopctl bundle create --size 0 d
    mkdir empty
    refused "ploopctl: empty/DiskDescriptor.xml: No such file or directory" ploopctl info empty
    expect 0 ploopctl bundle create --size 1M d
    refused "ploopctl: d: is a bundle, which names its backing images itself" ploopctl info --base x d
    expect 0 ploopctl info d/DiskDescriptor.xml
    expect 0 ploopctl map d
}

run_scenarios "${@:2}"
