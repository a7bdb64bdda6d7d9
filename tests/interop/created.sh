#!/bin/bash
# SPDX-License-Identifier: MIT
#
# New images, checked by other programs: QEMU, OpenVZ's tool, the independent reader.
#
#   created.sh BUILD_DIRECTORY
source "$(dirname "$0")/scenarios.bash"
PADDING=$(printf '%4096s' x)
export PADDING # OpenVZ's tool crashes in a small environment

sizes=(512 1048064 10486272 107374182400)
clusters=(4K 32K 64K 1M 4M 64M)

# judged_new IMAGE SIZE CLUSTER: run every checker that knows such clusters.
judged_new() {
    local bytes
    expect 0 ploopctl check "$1"
    expect 0 oracle check "$1"
    expect 0 oracle info "$1"
    json '[j["disk"], j["mapped"], j["in_use"], j["flags"]]' >info
    same "$(cat info)" "[$2, 0, 0, 1]" "$1: $3, $2 bytes: what the independent reader sees"
    qemu-img check -f parallels "$1" >out 2>err || {
        # QEMU 7.2 counts the BAT area from its second cluster on as a leak.
        bytes=$(stat -c %s "$1")
        [[ $(cat out err) == *"space leaked at the end"* && $bytes -gt $(numfmt --from=iec "$3") ]] || fail "qemu-img check $1 ($3, $2 bytes): $(cat out err)"
    }
    expect 0 qemu-img info -f parallels --output=json "$1"
    same "$(json 'j["virtual-size"]')" "$2" "$1: $3: the size that QEMU sees"
    case $3 in
    4K | 64M) ;; # OpenVZ's tool knows 32 KiB to 32 MiB
    *)
        cp --sparse=never "$1" full.hds
        expect 0 ploop check -f -c -r full.hds
        rm full.hds
        ;;
    esac
}

test_all_sizes() {
    local version size cluster bat count=0
    for version in "" --v1; do
        for cluster in "${clusters[@]}"; do
            for size in "${sizes[@]}"; do
                bat=$((4 * size / $(numfmt --from=iec "$cluster")))
                ((bat < 10000000)) || continue # keep the files small
                rm -f a.hds
                # shellcheck disable=SC2086
                ploopctl create $version --size "$size" --cluster "$cluster" a.hds || fail "create $version $size $cluster"
                judged_new a.hds "$size" "$cluster"
                count=$((count + 1))
            done
        done
    done
    ((count > 40)) || fail "only $count images"
    echo "     $count images"
}

# All readers see what QEMU writes into them.
test_written_by_qemu() {
    local version cluster
    for version in "" --v1; do
        for cluster in 4K 64K 1M; do
            rm -f a.hds a.raw
            # shellcheck disable=SC2086
            ploopctl create $version --size 10486272 --cluster "$cluster" a.hds || fail create
            qemu-io -f parallels -c 'write -P 7 4096 3000320' -c 'write -P 9 10485760 512' a.hds >out 2>&1 || fail "$(cat out)"
            truncate -s 10486272 a.raw
            qemu-io -f raw -c 'write -P 7 4096 3000320' -c 'write -P 9 10485760 512' a.raw >out 2>&1 || fail "$(cat out)"
            same "$(oracle sha256 a.hds)" "$(sha256sum <a.raw | cut -d ' ' -f 1)" "$version $cluster: content"
            # QEMU 7.2 leaves the Empty flag of a new image set; nothing else is wrong.
            ploopctl check --json a.hds >out
            same "$(json '[r["kind"] for r in j["records"] if r["repair"] != "leaks"]')" "['empty_flag']" "$version $cluster: errors"
            expect 0 ploopctl check --repair all a.hds
            same "$(oracle sha256 a.hds)" "$(sha256sum <a.raw | cut -d ' ' -f 1)" "$version $cluster: content after the repair"
            expect 0 oracle check a.hds
            expect 0 qemu-img check -f parallels a.hds
            expect 0 qemu-img compare -f parallels -F raw a.hds a.raw
        done
    done
}

# A BAT of 64 MiB, and a size that version 1 does not have.
test_large() {
    ploopctl create --size 16T a.hds || fail create
    expect 0 ploopctl check a.hds
    expect 0 ploopctl info a.hds
    rm -f a.hds
    refused "*too large for a version 1 image*" ploopctl create --v1 --size 2T a.hds
}

run_scenarios
