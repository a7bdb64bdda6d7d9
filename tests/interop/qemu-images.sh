#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Random writes: images that QEMU wrote read the same through the library, images that the library wrote read the same in QEMU and the
# independent reader, and an image that both wrote in turn is as sound as one that only one of them wrote.
#
#   qemu-images.sh BUILD_DIRECTORY [SCENARIO...]       SEEDS=N of them; 8 if not set
# shellcheck source=tests/interop/scenarios.bash
source "$(dirname "$0")/scenarios.bash"

seeds=${SEEDS:-8}
plugin=$(find "$build" -name nbdkit-ploop-plugin.so)
clusters=(4096 65536 1048576 32768)
sizes=(3000320 20000256 66000384 10485760)

# play ARGUMENTS...: qemu-io runs the session in file script, and nothing in it fails.
play() {
    qemu-io "$@" <script >played 2>&1 || fail "qemu-io $*: $(tail -n 3 played)"
    ! grep -qi "failed\|error" played || fail "qemu-io $*: $(grep -i "failed\|error" played | head -n 3)"
}

# Writes the session to an image through the library: QEMU is the client, nbdkit the server.
play_here() {
    # shellcheck disable=SC2016
    nbdkit --unix - "$plugin" "$1" --run 'qemu-io -f raw "$uri"' <script >played 2>&1 || fail "nbdkit $1: $(tail -n 3 played)"
    ! grep -qi "failed\|error" played || fail "nbdkit $1: $(grep -i "failed\|error" played | head -n 3)"
}

# holds IMAGE RAW: all readers see these bytes, and find the image sound.
holds() {
    expect 0 ploopctl check "$1"
    expect 0 oracle check "$1"
    rm -f here.raw
    expect 0 ploopctl convert --from ploop "$1" here.raw
    cmp here.raw "$2" || fail "$1 seen from here"
    same "$(oracle sha256 "$1")" "$(sha256sum <"$2" | cut -d ' ' -f 1)" "$1 seen by the independent reader"
    expect 0 qemu-img compare -f parallels -F raw "$1" "$2"
}

session() {
    python3 "$here/random_writes.py" "$@" script expected.raw || fail random_writes.py
}

test_written_by_qemu() {
    local seed cluster size
    for ((seed = 1; seed <= seeds; seed++)); do
        cluster=${clusters[seed % 4]} size=${sizes[seed / 2 % 4]}
        session "$size" "$cluster" "$seed"
        rm -f a.hds
        if ((seed % 2)); then
            qemu-img create -q -f parallels -o "cluster_size=$cluster" a.hds "$size" || fail "qemu-img create"
        else
            ploopctl create --size "$size" --cluster "$cluster" a.hds || fail create
        fi
        play -f parallels a.hds
        # QEMU 7.2 leaves the Empty flag of a new image set.
        ((seed % 2)) || expect 0 ploopctl check --repair unclean a.hds
        holds a.hds expected.raw
    done
}

test_written_here() {
    local seed cluster size version
    for ((seed = 1; seed <= seeds; seed++)); do
        cluster=${clusters[seed % 4]} size=${sizes[seed / 2 % 4]}
        ((seed % 3)) && version=() || version=(--v1)
        python3 "$here/random_writes.py" "$size" "$cluster" "$seed" script expected.raw --aio || fail random_writes.py
        rm -f a.hds
        ploopctl create --size "$size" --cluster "$cluster" "${version[@]}" a.hds || fail create
        play_here a.hds
        holds a.hds expected.raw
    done
}

# In turn, each continuing where the other one stopped.
test_to_and_fro() {
    local seed turn
    for ((seed = 1; seed <= seeds; seed++)); do
        rm -f a.hds b.raw
        ploopctl create --size 20000256 --cluster 64K a.hds || fail create
        truncate -s 20000256 b.raw
        for turn in 1 2 3 4; do
            session 20000256 65536 $((100 * seed + turn))
            grep -v '^read' script >writes && mv writes script
            if ((turn % 2)); then play_here a.hds; else play -f parallels a.hds; fi
            play -f raw b.raw
            holds a.hds b.raw
        done
        judged a.hds
    done
}

run_scenarios "${@:2}"
