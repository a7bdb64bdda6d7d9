#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The nbdkit plugin with backend=uring: which system calls carry the guest's requests, and what happens without io_uring.
#
#   uring.sh BUILD_DIRECTORY
#
# shellcheck source=tests/interop/scenarios.bash
source "$(dirname "$0")/scenarios.bash"

plugin=$build/tools/nbdkit-ploop-plugin.so

# serve TRACED [STRACE_OPTION...] -- PARAMETER...: client.py against nbdkit under strace; trace and server.log are left.
serve() {
    local traced=$1 options=()
    shift
    while [[ $1 != -- ]]; do
        options+=("$1")
        shift
    done
    shift
    [[ -e a.hds ]] || ploopctl create --size 64M --cluster 64K a.hds >/dev/null
    strace -f -qq -o trace -e trace="$traced" "${options[@]}" \
        nbdkit --foreground --unix "$PWD/sock" --pidfile server.pid "$plugin" a.hds "$@" >server.log 2>&1 &
    for ((i = 0; i < 200; i++)); do
        [[ -s server.pid ]] && break
        sleep 0.05
    done
    timeout 120 /usr/bin/python3 client.py >client.log 2>&1 || fail "$(cat client.log server.log)"
    kill "$(cat server.pid)"
    wait $! || fail "nbdkit's exit status: $? ($(cat server.log))"
    rm -f server.pid sock
}

# client_is [no]: 200 writes, FUA writes among them, flushes, and 200 reads that see them. With no: the reads only.
client_is() {
    local writes=${1-yes}
    cat >client.py <<P
import nbd
h = nbd.NBD()
h.connect_unix("$PWD/sock")
def block(i):
    return bytes([i % 251 + 1]) * 4096
for i in range(200 if "$writes" == "yes" else 0):
    h.pwrite(block(i), i * 20480, nbd.CMD_FLAG_FUA if i % 10 == 0 else 0)
    if i % 50 == 0:
        h.flush()
for i in range(200):
    assert h.pread(4096, i * 20480) == block(i), i
h.shutdown()
P
}

lines() {
    grep -cE "$1" trace
}

test_the_rings_carry_the_guests_requests() {
    client_is
    serve io_uring_setup,io_uring_enter,openat,pread64,preadv,pwrite64,pwritev,pwritev2 -- backend=uring direct=1
    (($(lines io_uring_setup) >= 3)) || fail "rings: $(lines io_uring_setup)"
    (($(lines io_uring_enter) >= 200)) || fail "calls that send: $(lines io_uring_enter)"
    (($(lines 'openat.*O_DIRECT') > 0)) || fail "nothing is opened with O_DIRECT"
    # What is left to threads: the header and the BAT at open and close.
    (($(lines '(pread|pwrite)') < 40)) || fail "requests of threads: $(lines '(pread|pwrite)')"
    same "$(cat server.log)" "" "nbdkit's messages"
    expect 0 ploopctl check a.hds
    client_is no
    serve openat -- backend=posix
}

test_direct_io_takes_the_rings_by_default() {
    client_is
    serve io_uring_setup,io_uring_enter -- direct=1
    (($(lines io_uring_enter) >= 200)) || fail "calls that send: $(lines io_uring_enter)"
    client_is no
    serve io_uring_setup,io_uring_enter -- direct=0
    same "$(lines io_uring)" 0 "calls of io_uring through the page cache"
}

test_without_io_uring_the_other_backend_serves() {
    client_is
    serve io_uring_setup,pwritev -e inject=io_uring_setup:error=ENOSYS -- backend=uring
    same "$(grep -c 'io_uring is not available' server.log)" 1 "lines that say so ($(cat server.log))"
    expect 0 ploopctl check a.hds
    rm a.hds
    serve io_uring_setup,pwritev -e inject=io_uring_setup:error=EPERM -- backend=uring
    same "$(grep -c 'io_uring is not available' server.log)" 1 "lines that say so ($(cat server.log))"
}

# No ring but each file's first can be had: the queues share it.
test_queues_without_a_ring_share_one() {
    client_is
    serve io_uring_setup,pwritev -e inject=io_uring_setup:error=ENOMEM:when=3+ -- backend=uring
    (($(lines 'io_uring_setup.*ENOMEM') > 0)) || fail "no ring was refused ($(lines io_uring_setup) were made)"
    same "$(cat server.log)" "" "nbdkit's messages"
    expect 0 ploopctl check a.hds
}

test_the_parameter_is_judged() {
    local status=0
    ploopctl create --size 64M a.hds >/dev/null
    nbdkit --foreground --unix "$PWD/sock" "$plugin" a.hds backend=aio >server.log 2>&1 || status=$?
    same "$status" 1 "nbdkit's exit status"
    grep -q "expected posix or uring" server.log || fail "$(cat server.log)"
}

run_scenarios "${@:2}"
