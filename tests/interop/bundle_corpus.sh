#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Bundles as other software writes them (tests/corpus/bundles.py): each opens, with the snapshots and storages it has, is checked,
# converted and served for writing; or is refused in one line.
#
#   bundle_corpus.sh BUILD_DIRECTORY
source "$(dirname "$0")/scenarios.bash"
# shellcheck source=SCRIPTDIR/bundle.bash
source "$here/bundle.bash"

opens() {
    local name=$1 snapshots=$2 storages=$3
    expect 0 ploopctl bundle info --json "$name"
    same "$(json '(len(j["snapshots"]), len(j["storages"]))')" "($snapshots, $storages)" "$name: snapshots and storages"
    rm -f disk.raw
    expect 0 ploopctl convert --from bundle --to raw "$name" disk.raw
    same "$(stat -c %s disk.raw)" 2097152 "$name: the size of the disk"
    [[ $name == desktop_plain ]] && return # which the plugin leaves to others
    expect 0 ploopctl check "$name"
    cp -a "$name" used
    guest used "write -P 7 700k 300k" "read -P 7 700k 300k"
    expect 0 ploopctl check used
    rm -r used
}

test_corpus() {
    local name result snapshots storages count=0
    python3 "$here/../corpus/bundles.py" . || fail "no corpus"
    while IFS=$'\t' read -r name result snapshots storages _; do
        count=$((count + 1))
        if [[ $result == ok ]]; then
            opens "$name" "$snapshots" "$storages"
        else
            refused "ploopctl: $name/DiskDescriptor.xml: *" ploopctl bundle info "$name"
            refused "ploopctl: $name/DiskDescriptor.xml: *" ploopctl convert --to raw "$name" x
            [[ ! -e x ]] || fail "$name: a target was left"
        fi
    done <bundles.tsv
    echo "     $count bundles"
}

run_scenarios "${@:2}"
