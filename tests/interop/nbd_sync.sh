#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The nbdkit plugin on a file whose SYNC fails: the errors of clients, the log and the exit status.
#
#   nbd_sync.sh BUILD_DIRECTORY
#
# shellcheck source=tests/interop/scenarios.bash
source "$(dirname "$0")/scenarios.bash"

plugin=$build/tools/nbdkit-ploop-plugin.so

# with_failing_sync PARAMETER...: client.py against nbdkit under strace, which makes every fdatasync from the 20th on fail. nbdkit's
# messages are in server.log then, and its exit status in $status.
with_failing_sync() {
    ploopctl create --size 64M --cluster 64K a.hds >/dev/null
    status=0
    strace -f -qq -o /dev/null -e trace=fdatasync -e inject=fdatasync:error=ENOSPC:when=20+ \
        nbdkit --foreground --unix "$PWD/sock" --pidfile server.pid "$plugin" a.hds "$@" >server.log 2>&1 &
    for ((i = 0; i < 200; i++)); do
        [[ -s server.pid ]] && break
        sleep 0.05
    done
    /usr/bin/python3 client.py >client.log 2>&1 || fail "$(cat client.log server.log)"
    kill "$(cat server.pid)"
    wait $! || status=$?
}

client_is() {
    cat >client.py <<P
import errno, nbd
h = nbd.NBD()
h.connect_unix("$PWD/sock")
def error_of(request):
    try:
        request()
    except nbd.Error as e:
        return e.errnum
    return 0
errors = []
for i in range(300):
    h.pwrite(b"x" * 4096, i % 64 << 16)
    errors.append(error_of(h.flush))
    if errors[-1]:
        break
assert errors[-1] == errno.EIO, errors
$1
P
}

test_flushes_fail_and_writes_go_on() {
    client_is '
for i in range(2000):
    assert error_of(h.flush) == errno.EIO
h.pwrite(b"y" * 4096, 0)
assert h.pread(4096, 0) == b"y" * 4096'
    with_failing_sync
    same "$(grep -c "a SYNC failed: No space left on device" server.log)" 1 "lines that say why ($(cat server.log))"
    (($(grep -c "flush: Input/output error" server.log) <= 3)) || fail "repeated lines: $(grep -c flush: server.log)"
    grep -q "not everything reached the disk" server.log || fail "nothing said at the end: $(cat server.log)"
    same "$status" 1 "nbdkit's exit status"
}

test_writes_can_be_refused() {
    client_is '
assert error_of(lambda: h.pwrite(b"y" * 4096, 0)) == errno.EIO
assert error_of(lambda: h.zero(65536, 0)) == errno.EIO
assert error_of(lambda: h.trim(65536, 0)) == errno.EIO
assert h.pread(4096, 0) == b"x" * 4096'
    with_failing_sync after-sync-failure=refuse
    same "$status" 1 "nbdkit's exit status ($(cat server.log))"
}

test_the_parameter_is_judged() {
    status=0
    ploopctl create --size 64M a.hds >/dev/null
    nbdkit --foreground --unix "$PWD/sock" "$plugin" a.hds after-sync-failure=maybe >server.log 2>&1 || status=$?
    same "$status" 1 "nbdkit's exit status"
    grep -q "expected go-on or refuse" server.log || fail "$(cat server.log)"
}

run_scenarios "${@:2}"
