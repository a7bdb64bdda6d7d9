#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Images with a format extension that the library writes to: QEMU never finds a stale dirty bitmap, whether the session was closed or
# killed, and the kept features are there after a close.
#
#   extension.sh BUILD_DIRECTORY [SCENARIO...]
# shellcheck source=tests/interop/scenarios.bash
source "$(dirname "$0")/scenarios.bash"

plugin=$(find "$build" -name nbdkit-ploop-plugin.so)
name=30313233-3435-3637-3839-616263646566 # of malformed.py's bitmap

write_image() { python3 "$here/extension_images.py" write "$@" || fail "extension_images.py"; }
listed() { python3 "$here/extension_images.py" list "$1" || fail "extension_images.py"; }

# qemu_sees_bitmap IMAGE: QEMU opens it for reading and finds the bitmap, with the extents it should have.
qemu_sees_bitmap() {
    qemu-nbd -r -f parallels -k "$PWD/qemu.sock" --pid-file=qemu.pid --fork -B "$name" "$1" >out 2>&1 || return 1
    local status=0
    qemu-img map --output=json --image-opts "driver=nbd,server.type=unix,server.path=$PWD/qemu.sock,x-dirty-bitmap=qemu:dirty-bitmap:$name" >map.json 2>err || status=$?
    kill "$(cat qemu.pid)"
    while [[ -e qemu.pid ]] && kill -0 "$(cat qemu.pid)" 2>/dev/null; do sleep 0.05; done
    rm -f qemu.pid
    ((status == 0)) || fail "qemu-img map of the bitmap: $(cat err)"
    grep -q '"data": false' map.json # a dirty extent
}

qemu_sees_none() {
    timeout 60 qemu-nbd -r -f parallels -k "$PWD/qemu.sock" --pid-file=qemu.pid --fork -B "$name" "$1" >out 2>&1 && fail "QEMU finds the bitmap"
    like "$(cat out)" "*Bitmap*is not found*" "$1: QEMU"
}

# write_here IMAGE ARGUMENTS...: write guest cluster 5 with 7 and all of 600 to 640, through the plugin.
write_here() {
    # shellcheck disable=SC2016
    nbdkit --unix - "$plugin" "$@" --run 'qemu-io -f raw -c "write -P 7 327680 65536" -c "write -P 7 39321600 2621440" -c flush "$uri"' \
        >played 2>&1 || fail "nbdkit $1: $(tail -n 3 played)"
    ! grep -v "not closed cleanly: recovering\|warning: format extension dropped" played | grep -qi "failed\|error" ||
        fail "nbdkit: $(cat played)"
}

# kill_here IMAGE: the same, and kill the server after the flush.
kill_here() {
    rm -f sock server.pid
    nbdkit --foreground --unix sock --pidfile server.pid "$plugin" "$1" >server.log 2>&1 &
    local server=$! tries
    for ((tries = 0; tries < 200; tries++)); do
        [[ -s server.pid ]] && break
        sleep 0.05
    done
    qemu-io -f raw -c "write -P 7 327680 65536" -c "write -P 7 39321600 2621440" -c flush "nbd:unix:$PWD/sock" >played 2>&1 ||
        fail "qemu-io: $(cat played) $(cat server.log)"
    kill -9 "$server"
    wait "$server" 2>/dev/null
}

# All readers see the guest's bytes.
holds() {
    rm -f raw
    truncate -s 67108864 expected
    local guest host
    for guest in 0:1 1:2 2:3 1015:4; do
        host=$(printf '\\x%x' $((0xA0 + ${guest#*:})))
        # shellcheck disable=SC2059
        head -c 65536 /dev/zero | tr '\0' "$(printf "$host")" | dd of=expected bs=65536 seek="${guest%:*}" conv=notrunc status=none
    done
    head -c 65536 /dev/zero | tr '\0' '\007' | dd of=expected bs=65536 seek=5 conv=notrunc status=none
    head -c 2621440 /dev/zero | tr '\0' '\007' | dd of=expected bs=65536 seek=600 conv=notrunc status=none
    expect 0 ploopctl convert --from ploop "$1" raw
    cmp raw expected || fail "$1 seen from here"
    same "$(oracle sha256 "$1")" "$(sha256sum <expected | cut -d ' ' -f 1)" "$1 seen by the independent reader"
}

# sound IMAGE: clean or with leaks; QEMU finds no errors.
sound() {
    local status=0
    ploopctl check "$1" >out 2>&1 || status=$?
    [[ $status == 0 || $status == 3 ]] || fail "ploopctl check: $(cat out)"
    oracle check "$1" >out 2>&1 || [[ $? == 3 ]] || fail "oracle check: $(cat out)"
}

qemu_reads_the_same() {
    qemu-img check -f parallels "$1" >out 2>err || [[ $? == 3 ]] || fail "qemu-img check: $(cat out err)"
    expect 0 qemu-img info -f parallels "$1"
    expect 0 qemu-img compare -f parallels -F raw "$1" expected
}

test_a_session_drops_the_bitmap() {
    local letters
    for letters in b bb; do
        write_image a.hds "$letters"
        [[ $letters == bb ]] || qemu_sees_bitmap a.hds || fail "QEMU does not find the bitmap in an image that nobody wrote"
        write_here a.hds
        [[ $letters == bb ]] || grep -q "format extension dropped, with 1 dirty bitmaps" played || fail "not said: $(cat played)"
        same "$(listed a.hds)" none "$letters: what is left"
        holds a.hds
        sound a.hds
        qemu_sees_none a.hds
        qemu_reads_the_same a.hds
    done
}

test_a_killed_session_leaves_no_stale_bitmap() {
    write_image a.hds b
    kill_here a.hds
    same "$(listed a.hds)" mark "after the kill"
    qemu_sees_none a.hds
    expect 2 ploopctl check a.hds
    write_here a.hds recover=1
    same "$(listed a.hds)" none "after RECOVER"
    holds a.hds
    sound a.hds
    qemu_reads_the_same a.hds
}

test_a_plain_feature_is_dropped() {
    write_image a.hds pb
    expect 1 qemu-img info -f parallels a.hds # QEMU opens no unknown feature
    write_here a.hds
    same "$(listed a.hds)" none "what is left"
    holds a.hds
    sound a.hds
    qemu_reads_the_same a.hds
}

test_what_is_to_be_kept_is_kept() {
    local letters
    for letters in t ptb; do
        write_image a.hds "$letters"
        write_here a.hds
        same "$(listed a.hds)" "closed t" "$letters: what is left"
        holds a.hds
        sound a.hds
        write_here a.hds
        same "$(listed a.hds)" "closed t" "$letters: what is left by another session"
        sound a.hds
        kill_here a.hds
        same "$(listed a.hds)" "mark t" "$letters: after a kill"
        write_here a.hds recover=1
        same "$(listed a.hds)" none "$letters: after RECOVER"
        holds a.hds
        sound a.hds
        qemu_reads_the_same a.hds
    done
}

# Reading changes nothing, so everything stays.
test_a_session_of_reading_keeps_all() {
    write_image a.hds ptb
    cp a.hds before.hds
    expect 0 ploopctl convert --from ploop --to raw a.hds raw
    expect 0 ploopctl check a.hds
    cmp a.hds before.hds || fail "changed"
}

run_scenarios "${@:2}"
