#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Locks: this library and QEMU refuse each other's open images, and admit accesses that do no harm.
#
#   lock.sh BUILD_DIRECTORY [SCENARIO...]
source "$(dirname "$0")/scenarios.bash"

holder=$scratch/lock_holder
liburing=()
grep -q '^URING_FOUND:INTERNAL=1' "$build/CMakeCache.txt" && liburing=(-luring)
cc -std=c11 -I"$here/../../include" -o "$holder" "$here/lock_holder.c" "$build/src/libploop.a" -pthread "${liburing[@]}" || exit 1

# hold COMMAND...: runs in the background until release. It has the image when it has printed a line; it ends with its standard input.
hold() {
    mkfifo in
    "$@" <in >held 2>&1 &
    held_pid=$!
    exec 9>in
    rm in
    echo length >&9 # qemu-io answers this; the holder ignores it
    local tries=0
    until [[ -s held ]]; do
        tries=$((tries + 1))
        ((tries < 500)) || fail "$*: did not start"
        sleep 0.02
    done
}

release() {
    exec 9>&-
    wait "$held_pid" || fail "the holder ended with $?: $(cat held)"
    rm held
}

opened() { expect 0 "$@"; }
kept_out() { expect 1 "$@"; }

# kept_out_by_lock COMMAND...: QEMU fails and names the lock.
kept_out_by_lock() {
    kept_out "$@"
    like "$(cat err)" '*ock*' "$*"
}

image() {
    silent ploopctl create --size 64M a.hds
}

test_a_writer_here_keeps_everybody_out() {
    image
    hold "$holder" w a.hds
    same "$(cat held)" open "the holder"
    kept_out "$holder" w a.hds
    same "$(cat out)" "errno 11" "a second writer"
    kept_out "$holder" r a.hds
    kept_out_by_lock qemu-io -f parallels -c quit a.hds
    kept_out_by_lock qemu-io -r -f parallels -c 'read 0 512' a.hds
    kept_out_by_lock qemu-img info a.hds
    kept_out_by_lock qemu-io -f raw -c quit a.hds
    opened qemu-img info -U a.hds # -U asks not to be locked out
    release
    opened "$holder" w a.hds
    opened qemu-io -f parallels -c 'write 0 512' a.hds
}

test_readers_here_keep_out_writers_only() {
    image
    hold "$holder" r a.hds
    opened "$holder" r a.hds
    opened qemu-io -r -f parallels -c 'read 0 512' a.hds
    opened qemu-img info a.hds
    opened qemu-img check -f parallels a.hds
    kept_out "$holder" w a.hds
    kept_out_by_lock qemu-io -f parallels -c quit a.hds
    kept_out_by_lock qemu-io -f raw -c quit a.hds
    release
    opened "$holder" w a.hds
}

test_a_writer_there_keeps_us_out() {
    image
    hold qemu-io -f parallels a.hds
    kept_out "$holder" w a.hds
    kept_out "$holder" r a.hds
    release
    opened "$holder" w a.hds
    opened "$holder" r a.hds
}

test_a_raw_writer_there_keeps_us_out() {
    image
    hold qemu-io -f raw a.hds
    kept_out "$holder" w a.hds
    kept_out "$holder" r a.hds
    release
    opened "$holder" w a.hds
}

test_a_reader_there_keeps_out_writers_only() {
    image
    hold qemu-io -r -f parallels a.hds
    opened "$holder" r a.hds
    kept_out "$holder" w a.hds
    release
    opened "$holder" w a.hds
}

# nbd_server ARGUMENT...: qemu-nbd in the background, ready when this returns.
nbd_server() {
    trap '[[ ! -s nbd.pid ]] || kill "$(cat nbd.pid)"' EXIT
    opened qemu-nbd -t --fork --pid-file=nbd.pid -k "$PWD/nbd.sock" -f parallels "$@" 9>&-
    # The program that starts it may end before it has written its number.
    local tries=0
    until [[ -s nbd.pid ]]; do
        tries=$((tries + 1))
        ((tries < 500)) || fail "qemu-nbd has not written its number"
        sleep 0.02
    done
}

nbd_end() {
    kill "$(cat nbd.pid)"
    while kill -0 "$(cat nbd.pid)" 2>/dev/null; do
        sleep 0.02
    done
    rm -f nbd.pid
}

test_a_server_there_keeps_us_out() {
    image
    nbd_server a.hds
    kept_out "$holder" w a.hds
    kept_out "$holder" r a.hds
    nbd_end
    nbd_server -r a.hds
    kept_out "$holder" w a.hds
    opened "$holder" r a.hds
    nbd_end
    opened "$holder" w a.hds
}

test_a_writer_here_keeps_out_a_server() {
    image
    hold "$holder" w a.hds
    expect 1 qemu-nbd -t --fork --pid-file=nbd.pid -k "$PWD/nbd.sock" -f parallels a.hds
    expect 1 qemu-nbd -r -t --fork --pid-file=nbd.pid -k "$PWD/nbd.sock" -f parallels a.hds
    release
    hold "$holder" r a.hds
    nbd_server -r a.hds
    nbd_end
    release
}

test_a_reader_here_keeps_out_a_writing_server() {
    image
    hold "$holder" r a.hds
    kept_out_by_lock qemu-nbd -t --fork --pid-file=nbd.pid -k "$PWD/nbd.sock" -f parallels a.hds
    kept_out_by_lock qemu-nbd -t --fork --pid-file=nbd.pid -k "$PWD/nbd.sock" -f raw a.hds
    release
    nbd_server a.hds
    nbd_end
}

# The data of the server's client is there, whichever programs came and went meanwhile; each call that is refused says why, and changes nothing.
test_a_server_at_work_is_not_disturbed() {
    local command
    image
    nbd_server a.hds
    opened qemu-io -f raw -c 'write -P 7 0 1M' -c flush "nbd:unix:$PWD/nbd.sock"
    cp a.hds before.hds
    for command in check 'check --repair all' info map bat; do
        # shellcheck disable=SC2086
        refused '*a.hds: cannot open*: another process has it open*' ploopctl $command a.hds
    done
    refused '*a.hds: cannot open*: another process has it open*' ploopctl convert --from ploop --to raw a.hds b.raw
    [[ ! -e b.raw ]] || fail "a conversion that was refused left a file"
    cmp a.hds before.hds || fail "the server's image was changed"
    opened qemu-io -f raw -c 'write -P 8 1M 1M' -c 'read -P 7 0 1M' -c 'read -P 8 1M 1M' "nbd:unix:$PWD/nbd.sock"
    nbd_end
    silent ploopctl convert --from ploop --to raw a.hds b.raw
    opened qemu-io -f raw -c 'read -P 7 0 1M' -c 'read -P 8 1M 1M' -c 'read -P 0 2M 62M' b.raw
}

# A refused program leaves no lock behind: programs that could open the image before still can, here and in QEMU.
test_a_refusal_leaves_no_lock() {
    image
    hold qemu-io -r -f parallels a.hds
    kept_out "$holder" w a.hds
    opened qemu-io -r -f parallels -c 'read 0 512' a.hds
    opened "$holder" r a.hds
    release
    hold "$holder" r a.hds
    kept_out_by_lock qemu-io -f parallels -c quit a.hds
    opened "$holder" r a.hds
    opened qemu-io -r -f parallels -c 'read 0 512' a.hds
    release
    opened "$holder" w a.hds
    opened qemu-io -f parallels -c 'write 0 512' a.hds
}

test_a_server_that_dies_leaves_no_lock() {
    image
    nbd_server a.hds
    kept_out "$holder" w a.hds
    kill -9 "$(cat nbd.pid)"
    while kill -0 "$(cat nbd.pid)" 2>/dev/null; do
        sleep 0.02
    done
    rm -f nbd.pid
    opened "$holder" w a.hds
    expect 2 ploopctl check a.hds # only its mark is set
    silent ploopctl check --repair unclean a.hds
}

test_a_process_that_dies_leaves_no_lock() {
    image
    hold "$holder" w a.hds
    kill -9 "$held_pid"
    wait "$held_pid" 2>/dev/null
    exec 9>&-
    opened "$holder" w a.hds
}

shift
run_scenarios "$@"
