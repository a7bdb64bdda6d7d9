#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The nbdkit plugin, used by NBD clients that share no code with it; QEMU and the oracle read the file.
#
#   nbd.sh BUILD_DIRECTORY
#
# shellcheck source=tests/interop/scenarios.bash
source "$(dirname "$0")/scenarios.bash"

plugin=$build/tools/nbdkit-ploop-plugin.so

# ---- functions for the scenarios ----

# A scenario has its own directory, where each running server has left its process id.
end_processes() {
    local file
    for file in *.pid; do
        if [[ -s $file ]]; then kill -9 "$(cat "$file")" 2>/dev/null; fi
    done
}

# serve ARGUMENTS...: nbdkit, in the background; its messages in server.log. It ends with the scenario at the latest.
serve() {
    trap end_processes EXIT
    rm -f sock server.pid
    nbdkit --foreground --unix sock --pidfile server.pid "$@" >server.log 2>&1 &
    server=$!
    uri="nbd+unix:///?socket=$PWD/sock"
    for ((i = 0; i < 200; i++)); do
        if [[ -s server.pid ]]; then return; fi
        kill -0 "$server" 2>/dev/null || break
        sleep 0.05
    done
    fail "nbdkit did not start: $(cat server.log)"
}

kill_server() {
    kill -9 "$server"
    wait "$server" 2>/dev/null
    rm -f server.pid
}

# A clean end prints nothing; $1 allows lines that the scenario provoked.
stop_server() {
    local status=0
    kill "$server"
    wait "$server" || status=$?
    rm -f server.pid
    same "$status" 0 "nbdkit's exit status"
    same "$(grep -v "${1:-no such line}" server.log)" "" "nbdkit's messages"
}

# not_served TEXT ARGUMENTS...: nbdkit does not start, and prints one line with TEXT.
not_served() {
    local text=$1 status=0
    shift
    timeout 10 nbdkit --foreground --unix sock "$@" >server.log 2>&1 || status=$?
    same "$status" 1 "exit status of nbdkit $*"
    same "$(wc -l <server.log)" 1 "lines of message for nbdkit $* ($(cat server.log))"
    grep -q -- "$text" server.log || fail "nbdkit $*: '$text' is not said by: $(cat server.log)"
}

create() { ploopctl create "$@" || fail "ploopctl create $*"; }

# client CODE: Python with `h`, a connection, and `second()`, another one; libnbd sends unaligned requests too.
client() {
    URI=$uri /usr/bin/python3 - <<PYTHON || fail "the client failed; the server said: $(cat server.log)"
import errno, os, signal, time
import nbd

def second():
    handle = nbd.NBD()
    handle.set_strict_mode(handle.get_strict_mode() & ~nbd.STRICT_ALIGN & ~nbd.STRICT_BOUNDS)
    handle.add_meta_context("base:allocation")
    handle.connect_uri(os.environ["URI"])
    return handle

def fails(number, call, *arguments):
    try:
        call(*arguments)
    except nbd.Error as error:
        assert error.errnum == number, f"{error} instead of {os.strerror(number)}"
    else:
        raise AssertionError(f"{os.strerror(number)} did not come")

def extents(length, offset, flags=0):
    """A list of (length, flags)."""
    found = []
    def take(context, at, entries, error):
        found.extend(zip(entries[::2], entries[1::2]))
    h.block_status(length, offset, take, flags)
    return found

M = 1 << 20
h = second()
$1
PYTHON
}

# A client that is refused when it connects.
no_client() {
    if (client '') 2>/dev/null; then fail "a client was let in: $1"; fi
}

# qemu_serves OPTION...: qemu-nbd has a.hds open until qemu_ends.
qemu_serves() { qemu-nbd "$@" -f parallels -k "$PWD/qemu.sock" --pid-file=qemu.pid --fork a.hds >out 2>&1 || fail "qemu-nbd: $(cat out)"; }
qemu_ends() {
    local pid
    pid=$(cat qemu.pid)
    kill "$pid"
    while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
    rm -f qemu.pid
}

# in_file OFFSET LENGTH: the bytes that the oracle reads from the image, as the file is now.
in_file() { oracle read "$1" "$2" a.hds; }
bytes() { head -c "$2" /dev/zero | tr '\0' "$1"; }
mapped() { oracle map a.hds | wc -l; }

# Freed space lies inside the file and nothing refers to it: a leak to a checker, and no error.
no_errors() {
    oracle check a.hds >out
    local status=$?
    ((status == 0 || status == 3)) || fail "$(cat out)"
}

# ---- scenarios ----

test_wrong_parameters_are_refused() {
    create --size 8M a.hds
    head -c 1M /dev/zero >zeros
    : >empty
    not_served "image= or dir= is required" "$plugin"
    not_served "image= and dir= exclude each other" "$plugin" a.hds dir=.
    not_served "more than one directory: '$PWD/.' and '/'" "$plugin" dir=. dir=/
    not_served "dir=: missing directory name" "$plugin" dir=
    not_served "base= and raw-base= need image=" "$plugin" dir=. base=a.hds
    not_served "$PWD/none: not a directory" "$plugin" dir=none
    not_served "$PWD/a.hds: not a directory" "$plugin" dir=a.hds
    not_served "image=: missing file name" "$plugin" image=
    not_served "more than one image: '$PWD/a.hds' and 'b.hds'" "$plugin" a.hds image=b.hds
    not_served "unknown parameter 'runners'" "$plugin" a.hds runners=4
    not_served "invalid value 'aio' for backend=: expected posix or uring" "$plugin" a.hds backend=aio
    not_served "error: delay: " "$plugin" a.hds delay=soon
    not_served "error: max-age: " "$plugin" a.hds max-age=-1
    not_served "max-age=10 must not be less than delay=20" "$plugin" a.hds delay=20 max-age=10
    not_served "could not decipher boolean" "$plugin" a.hds recover=perhaps
    not_served "$PWD/none.hds: cannot open: No such file" "$plugin" none.hds
    not_served "$PWD/zeros: cannot serve: " "$plugin" zeros
    not_served "$PWD/zeros: cannot serve: .*; if it is a raw disk, use raw-base= below an image" "$plugin" zeros
    not_served "$PWD/empty: cannot serve: [^;]*$" "$plugin" empty
    not_served "$PWD/DiskDescriptor.xml: No such file" "$plugin" "$PWD"
    not_served "max-age=10 must not be less than delay=20" "$plugin" a.hds delay=20 max-age=10 backend=posix direct=0
    not_served "base=: missing file name" "$plugin" a.hds base=
    not_served "more than one raw-base=: '$PWD/zeros' and 'empty'" "$plugin" a.hds raw-base=zeros raw-base=empty
    not_served "$PWD/none.hds: cannot open: No such file" "$plugin" a.hds base=none.hds
    not_served "$PWD/zeros: cannot serve: " "$plugin" a.hds base=zeros
    create --size 16M larger.hds
    create --size 8M --v1 old.hds
    not_served "$PWD/larger.hds: disk size 16777216: larger than that of the delta above it, 8388608" "$plugin" a.hds base=larger.hds
    not_served "$PWD/old.hds: version 1: not the top delta's, 2" "$plugin" a.hds base=old.hds
    ln -s a.hds link.hds
    not_served "$PWD/link.hds: the same file as $PWD/a.hds: a file cannot be in a stack twice" "$plugin" link.hds base=a.hds recover=1
    not_served "$PWD/zeros: the same file as $PWD/zeros: *" "$plugin" a.hds raw-base=zeros base=zeros
    # shellcheck disable=SC2046
    not_served "too many backing files: at most 254 are supported" "$plugin" a.hds $(printf 'base=a.hds %.0s' {1..255})
}

test_what_is_offered() {
    create --size 10000000K a.hds
    serve "$plugin" a.hds
    client '
assert h.get_size() == 10240000000, h.get_size()
assert [h.get_block_size(which) for which in (nbd.SIZE_MINIMUM, nbd.SIZE_PREFERRED, nbd.SIZE_MAXIMUM)] == [512, 4096, 64 * M]
for can in (h.can_flush, h.can_fua, h.can_trim, h.can_zero, h.can_fast_zero, h.can_multi_conn, h.can_cache):
    assert can(), can
assert h.can_meta_context("base:allocation") and not h.is_read_only() and not h.is_rotational()
h.cache(M, 0)'
    stop_server
    same "$(nm -D --defined-only "$plugin" | cut -d' ' -f3)" plugin_init "what the plugin exports"
    [[ $(nbdkit "$plugin" --dump-plugin) == *ploop_version=2.* ]] || fail "--dump-plugin does not tell the version"
}

test_parallel_copy_is_identical() {
    local cluster
    for cluster in 4K 64K 1M; do
        rm -f a.hds
        truncate -s 40M raw
        dd if=/dev/urandom of=raw bs=1M count=12 seek=3 conv=notrunc status=none
        dd if=/dev/urandom of=raw bs=1000 count=9000 seek=20000 conv=notrunc status=none
        create --size 40M --cluster $cluster a.hds
        serve "$plugin" a.hds
        nbdcopy --connections=4 --requests=64 --threads=4 --flush raw "$uri" || fail "nbdcopy"
        nbdcopy --connections=4 --requests=64 --threads=4 "$uri" back || fail "nbdcopy back"
        cmp raw back || fail "what was copied back differs"
        stop_server
        qemu-img compare -f raw -F parallels raw a.hds >out 2>&1 || fail "cluster $cluster: $(cat out)"
        oracle check a.hds >out || fail "cluster $cluster: $(cat out)"
    done
}

# A slow file would show it by time; here the kernel shows it: while the server is stopped no request is answered, and afterwards all are.
test_requests_are_in_flight_together() {
    create --size 64M a.hds
    serve "$plugin" a.hds
    client '
done = []
def finished(error):
    done.append(error.value)
    return 1
for at in range(64):
    h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(b"%c" % at) * 65536), at * M, finished)
assert h.aio_in_flight() + len(done) == 64
while len(done) < 64:
    h.poll(-1)
assert not any(done)
for at in range(64):
    assert h.pread(65536, at * M) == b"%c" % at * 65536'
    stop_server
}

test_fua_and_flush_publish() {
    create --size 64M --cluster 64K a.hds
    serve "$plugin" a.hds delay=3600000 max-age=3600000
    client 'h.pwrite(b"p" * 65536, 0)'
    same "$(mapped)" 0 "clusters mapped in the file after a plain write"
    client 'h.pwrite(b"f" * 4096, 4 * M, nbd.CMD_FLAG_FUA)'
    cmp <(in_file $((4 << 20)) 4096) <(bytes f 4096) || fail "a FUA write is not in the file"
    client 'h.pwrite(b"x" * 4096, 8 * M); second().flush()'
    cmp <(in_file $((8 << 20)) 4096) <(bytes x 4096) || fail "a flush on another connection does not cover a write"
    cmp <(in_file 0 65536) <(bytes p 65536) || fail "a flush does not cover the earlier write"
    kill_server

    # Unclean: refused for writing, with a message at the start already; served read-only and with recover=1.
    serve "$plugin" a.hds
    no_client "for writing to an unclean image"
    grep -q "warning: not closed cleanly" server.log || fail "no warning: $(cat server.log)"
    grep -q "$PWD/a.hds: cannot open: not closed cleanly" server.log || fail "no reason: $(cat server.log)"
    kill_server
    serve -r "$plugin" a.hds
    client 'assert h.pread(4096, 8 * M) == b"x" * 4096'
    stop_server "warning: not closed cleanly"
    serve "$plugin" a.hds recover=1
    client '
assert h.pread(65536, 0) == b"p" * 65536
assert h.pread(M, 4 * M) == b"f" * 4096 + bytes(M - 4096)
assert h.pread(M, 8 * M) == b"x" * 4096 + bytes(M - 4096)'
    # The log shows that a session ended badly, and nothing else.
    grep -q "a.hds: warning: not closed cleanly: recovering; [0-9]* clusters that nothing refers to" server.log ||
        fail "$(cat server.log)"
    stop_server "not closed cleanly: recovering"
    no_errors
}

test_the_state_is_told_on_request() {
    create --size 64M --cluster 64K a.hds
    serve "$plugin" a.hds
    kill -USR1 "$server" # nothing is open yet
    client '
h.pwrite(b"s" * 4096, 0)
os.kill('"$server"', signal.SIGUSR1)
time.sleep(0.5)'
    grep -q "a.hds: status: healthy; 1 connections, .* 1 clusters mapped, 1 pages of the map to be written" server.log ||
        fail "$(cat server.log)"
    stop_server "a.hds: status: healthy"
}

test_the_deadline_writes_the_map() {
    local begin
    create --size 64M --cluster 64K a.hds
    serve "$plugin" a.hds delay=2000 max-age=10000
    begin=$SECONDS
    client 'h.pwrite(b"d" * 4096, 0)'
    same "$(mapped)" 0 "clusters mapped in the file before the deadline"
    while [[ $(mapped) == 0 ]]; do
        ((SECONDS - begin < 20)) || fail "the deadline came and the map was not written"
        sleep 0.1
    done
    ((SECONDS - begin >= 1)) || fail "the map was written before its deadline"
    cmp <(in_file 0 4096) <(bytes d 4096) || fail "what the map shows is not what was written"
    stop_server
}

test_the_maximum_age_writes_a_hot_page() {
    create --size 64M --cluster 64K a.hds
    serve "$plugin" a.hds delay=1500 max-age=2000
    client '
for at in range(40):
    h.pwrite(b"h" * 512, at * 65536)
    time.sleep(0.1)'
    # The last change is younger than the delay, so only the age can have written it.
    (($(mapped) > 0)) || fail "a page that keeps changing was not written"
    stop_server
    same "$(mapped)" 40 "clusters mapped after the close"
}

# A cluster is written whole, and a trim makes no hole.
test_no_holes_where_the_host_shows_stale_blocks() {
    create --size 32M --cluster 1M a.hds
    serve "$plugin" a.hds host-shows-stale=1
    client '
h.pwrite(b"a" * 512, 0)
h.flush()'
    (($(stat -c '%b * %B' a.hds) >= 1 << 20)) || fail "a new cluster has holes"
    client '
h.trim(M, 0)
h.flush()
assert h.pread(M, 0) == bytes(M)'
    (($(stat -c '%b * %B' a.hds) >= 1 << 20)) || fail "a hole was made"
}

test_trim_and_zero() {
    create --size 32M --cluster 1M a.hds
    serve "$plugin" a.hds
    client '
h.pwrite(b"a" * 16 * M, 0)
h.flush()
assert extents(32 * M, 0) == [(16 * M, 0), (16 * M, 3)], extents(32 * M, 0)

h.zero(M + 512, 512, nbd.CMD_FLAG_NO_HOLE)
assert h.pread(2 * M, 0) == b"a" * 512 + bytes(M + 512) + b"a" * (M - 1024)
assert extents(2 * M, 0) == [(2 * M, 0)], "space was to be kept"

h.zero(3 * M, 2 * M)
assert h.pread(4 * M, 2 * M) == bytes(3 * M) + b"a" * M

h.zero(4096, 6 * M + 512)
assert h.pread(M, 6 * M) == b"a" * 512 + bytes(4096) + b"a" * (M - 4608)

h.trim(2 * M, 8 * M, nbd.CMD_FLAG_FUA)
assert set(h.pread(2 * M, 8 * M)) <= {0, 97}
assert h.pread(M, 7 * M) == b"a" * M and h.pread(M, 10 * M) == b"a" * M, "a trim went too far"

# Nothing is mapped there, so the server has nothing to do and maps nothing.
h.zero(4 * M, 20 * M, nbd.CMD_FLAG_FAST_ZERO)
h.zero(4 * M, 20 * M)
h.trim(4 * M, 20 * M)
assert extents(16 * M, 16 * M) == [(16 * M, 3)], extents(16 * M, 16 * M)
h.zero(32 * M, 0)
assert h.pread(32 * M, 0) == bytes(32 * M)'

    # A fast zero is either done, or fails because it would be slow.
    client '
h.pwrite(b"b" * 2 * M, 0)
try:
    h.zero(M + 4096, 0, nbd.CMD_FLAG_FAST_ZERO | nbd.CMD_FLAG_NO_HOLE)
except nbd.Error as error:
    assert error.errnum in (errno.ENOTSUP, errno.EOPNOTSUPP), error
    h.zero(M + 4096, 0)
assert h.pread(2 * M, 0) == bytes(M + 4096) + b"b" * (M - 4096)'
    stop_server
    no_errors
    cmp <(in_file 0 $((2 << 20))) <(bytes '\0' $(((1 << 20) + 4096)); bytes b $(((1 << 20) - 4096))) || fail "the image differs"
}

test_extents_are_those_of_ploopctl_map() {
    create --size 20000K --cluster 64K a.hds
    serve "$plugin" a.hds
    client '
for at in (0, 1, 2, 7, 9, 10, 100, 312):
    h.pwrite(b"e" * 512, at * 65536)
assert extents(65536, 65536 * 2 + 512, nbd.CMD_FLAG_REQ_ONE) == [(65024, 0)]
assert extents(8 * 65536, 0, nbd.CMD_FLAG_REQ_ONE) == [(3 * 65536, 0)]'
    stop_server
    serve -r "$plugin" a.hds
    nbdinfo --map --json "$uri" >nbd.json || fail "nbdinfo"
    ploopctl map --json a.hds >map.json || fail "ploopctl map"
    qemu-img map -f raw --output=json "$uri" >qemu.json || fail "qemu-img map"
    /usr/bin/python3 - <<'PYTHON' || fail "the maps differ: $(cat nbd.json map.json)"
import json

def data(path, mapped):
    """The bytes that are data, as a list of [begin, end) without gaps between neighbours."""
    found = []
    tree = json.load(open(path))
    for extent in tree if isinstance(tree, list) else tree["extents"]:
        if mapped(extent):
            begin, end = (extent["offset"] if "offset" in extent else extent["start"]), extent["length"]
            end += begin
            if found and found[-1][1] == begin:
                found[-1][1] = end
            else:
                found.append([begin, end])
    return found

K = 1024
want = [[0, 192 * K], [448 * K, 512 * K], [576 * K, 704 * K], [6400 * K, 6464 * K], [19968 * K, 20000 * K]]
assert data("nbd.json", lambda e: e["type"] == 0) == want, data("nbd.json", lambda e: e["type"] == 0)
assert data("qemu.json", lambda e: e["data"]) == want
assert data("map.json", lambda e: e["state"] == "mapped") == want
PYTHON
    stop_server
}

test_read_only_changes_nothing() {
    local before
    create --size 8M a.hds
    serve "$plugin" a.hds
    client 'h.pwrite(b"r" * 4096, M)'
    stop_server
    before=$(sha256sum a.hds)
    chmod 444 a.hds
    serve -r "$plugin" a.hds
    client '
assert h.is_read_only()
h.set_strict_mode(0)
assert h.pread(4096, M) == b"r" * 4096
fails(errno.EPERM, h.pwrite, b"w" * 512, 0)
fails(errno.EPERM, h.zero, 512, 0)
fails(errno.EPERM, h.trim, 512, 0)'
    qemu-io -r -f parallels -c 'read -P 114 1M 4k' a.hds >out 2>&1 || fail "another reader is kept out: $(cat out)"
    stop_server "Operation not permitted\|invalid request\|write request"
    same "$(sha256sum a.hds)" "$before" "the image after a read-only export"
}

test_unaligned_requests_are_refused() {
    create --size 8M a.hds
    serve "$plugin" a.hds
    client '
h.pwrite(b"k" * 1024, 0)
h.set_strict_mode(0)
fails(errno.EINVAL, h.pwrite, b"x" * 512, 1)
fails(errno.EINVAL, h.pwrite, b"x" * 511, 0)
fails(errno.EINVAL, h.pread, 100, 0)
fails(errno.EINVAL, h.zero, 512, 100)
fails(errno.EINVAL, h.trim, 513, 0)
fails(errno.EINVAL, h.pread, 1024, 8 * M - 512)
fails(errno.ENOSPC, h.pwrite, b"x" * 1024, 8 * M - 512)
assert h.pread(1024, 0) == b"k" * 1024'
    grep -q "$PWD/a.hds: write of 512 bytes at 1: not aligned to 512 bytes" server.log || fail "not said: $(cat server.log)"
    grep -q "$PWD/a.hds: write of 511 bytes at 0: not aligned" server.log || fail "not said: $(cat server.log)"
    grep -q "trim of 513 bytes at 0: not aligned" server.log || fail "not said: $(cat server.log)"
    stop_server "not aligned to 512\|invalid request"
    serve --filter=blocksize "$plugin" a.hds minblock=512
    client '
h.pwrite(b"u" * 3, 5)
assert h.pread(10, 0) == b"k" * 5 + b"u" * 3 + b"k" * 2'
    stop_server
}

test_an_image_open_elsewhere_is_refused() {
    create --size 8M a.hds
    qemu_serves
    not_served "$PWD/a.hds: cannot open: another process has it open" "$plugin" a.hds
    not_served "$PWD/a.hds: cannot open: another process has it open" -r "$plugin" a.hds
    qemu_ends

    # A reader is noticed when a client connects that wants to write.
    qemu_serves -r
    serve "$plugin" a.hds
    no_client "for writing beside a reader"
    grep -q "$PWD/a.hds: cannot open: another process has it open" server.log || fail "not said: $(cat server.log)"
    # The reader ends, and the next client is served.
    qemu_ends
    client 'h.pwrite(b"n" * 512, 0)'

    # The same with the roles exchanged.
    qemu-io -f parallels -c 'write 0 4k' a.hds >out 2>&1 && fail "QEMU wrote to an image in use"
    grep -q "lock" out || fail "QEMU says: $(cat out)"
    qemu-io -r -f parallels -c 'read 0 4k' a.hds >out 2>&1 && fail "QEMU read an image in use"
    timeout 10 nbdkit --foreground --unix other "$plugin" a.hds >out 2>&1 && fail "a second server started"
    grep -q "another process has it open" out || fail "the second server says: $(cat out)"
    stop_server "another process has it open"
}

test_qemu_as_the_client() {
    create --size 64M a.hds
    serve "$plugin" a.hds
    qemu-io -f raw -c 'write -P 7 3M 5M' -c 'write -f -P 8 10M 64k' -c 'write -z -u 4M 1M' -c 'discard 5M 1M' -c 'flush' \
        -c 'read -P 7 3M 1M' -c 'read -P 0 4M 1M' -c 'read -P 7 6M 2M' -c 'read -P 8 10M 64k' "$uri" >out 2>&1 || fail "$(cat out)"
    grep -q "verification failed" out && fail "$(cat out)"
    stop_server
    qemu-io -r -f parallels -c 'read -P 7 3M 1M' -c 'read -P 0 4M 1M' -c 'read -P 7 6M 2M' -c 'read -P 8 10M 64k' -c 'read -P 0 11M 53M' \
        a.hds >out 2>&1 || fail "$(cat out)"
    grep -q "verification failed" out && fail "$(cat out)"
    qemu-img check -f parallels a.hds >out 2>&1 || fail "$(cat out)"
}

test_every_kind_of_image() {
    local kind
    for kind in "--v1" "--cluster 4K" "--cluster 32K --v1" "--cluster 64M"; do
        rm -f a.hds
        # shellcheck disable=SC2086
        create --size 9999872 $kind a.hds
        serve "$plugin" a.hds delay=0
        client '
end = 9999872
h.pwrite(b"l" * 512, end - 512)
h.pwrite(b"i" * 70000 * 64, 512)
assert h.pread(1024, end - 1024) == bytes(512) + b"l" * 512
assert sum(length for length, _ in extents(end, 0)) == end'
        stop_server
        qemu-io -r -f parallels -c 'read -P 108 9999360 512' -c 'read -P 105 512 4480000' -c 'read -P 0 0 512' a.hds >out 2>&1 || fail "$kind: $(cat out)"
        grep -q "verification failed" out && fail "$kind: $(cat out)"
        oracle check a.hds >out || fail "$kind: $(cat out)"
    done
}

# Whatever memory nbdkit brings: of 32 MiB that were written and read, at most the map is in the cache.
test_direct_bypasses_the_page_cache() {
    local image backend cached
    for backend in posix uring; do
        image=$(mktemp -u "$build/nbd-direct.XXXXXX") # /tmp may be a tmpfs, which cannot
        create --size 32M --cluster 64K "$image"
        dd if=/dev/urandom of=raw bs=1M count=32 status=none
        serve "$plugin" "$image" direct=1 backend=$backend
        client 'assert not h.can_cache()'
        nbdcopy --requests=64 --flush raw "$uri" || fail "nbdcopy"
        client 'h.pwrite(b"o" * 512, 512 * 3)
assert h.pread(512, 512 * 3) == b"o" * 512'
        nbdcopy --requests=64 "$uri" back || fail "nbdcopy back"
        cached=$(fincore --bytes --noheadings --output RES "$image")
        ((cached <= 1 << 20)) || fail "backend=$backend: $cached bytes are in the page cache"
        stop_server
        printf 'o%.0s' {1..512} | dd of=raw bs=512 seek=3 conv=notrunc status=none
        cmp raw back || fail "backend=$backend: what was read differs"
        qemu-img compare -f raw -F parallels raw "$image" >out 2>&1 || fail "$(cat out)"
        rm "$image"
    done
}

# exports LIST: what the server lists, sorted and joined by spaces.
exports() {
    local listed
    listed=$(URI=$uri /usr/bin/python3 -c '
import nbd, os
h = nbd.NBD()
h.set_opt_mode(True)
h.connect_uri(os.environ["URI"])
names = []
h.opt_list(lambda name, description: names.append(name) and 0 or 0)
print(*sorted(names))
h.opt_abort()') || fail "no list"
    same "$listed" "$1" "the exports"
}

# refused_export NAME TEXT: the client is turned away, and the server says why.
refused_export() {
    URI=$uri NAME=$1 /usr/bin/python3 -c '
import nbd, os
h = nbd.NBD()
h.set_export_name(os.environ["NAME"])
try:
    h.connect_unix(os.environ["URI"].split("socket=")[1])
except nbd.Error:
    exit(0)
exit(1)' || fail "a client was let in: '$1'"
    grep -qF -- "export '$1': $2" server.log || fail "export '$1': '$2' is not said by: $(cat server.log)"
}

test_a_directory_of_images() {
    mkdir images outside
    create --size 8M images/a.hds
    create --size 16M images/b.hds
    create --size 8M outside/c.hds
    echo "no image" >images/notes
    mkdir images/sub
    create --size 8M images/sub/d.hds
    ln -s ../outside/c.hds images/link.hds
    serve "$plugin" dir=images
    exports "a.hds b.hds"
    local name
    for name in "" . .. ../outside/c.hds sub/d.hds /etc/passwd "$PWD/outside/c.hds"; do
        refused_export "$name" "expected the name of a file in"
    done
    for name in none link.hds sub; do
        refused_export "$name" "no such image in"
    done
    SOCKET=$PWD/sock /usr/bin/python3 - <<'PYTHON' || fail "the client failed; the server said: $(cat server.log)"
import nbd, os, time
def client(name):
    h = nbd.NBD()
    h.set_export_name(name)
    h.connect_unix(os.environ["SOCKET"])
    return h
M = 1 << 20
a, again, b = client("a.hds"), client("a.hds"), client("b.hds")
assert (a.get_size(), again.get_size(), b.get_size()) == (8 * M, 8 * M, 16 * M)
a.pwrite(b"a" * M, 0)
b.pwrite(b"b" * M, 0)
assert again.pread(M, 0) == b"a" * M and b.pread(M, 0) == b"b" * M
again.flush()
again.shutdown()
assert a.pread(M, 0) == b"a" * M
a.shutdown()
# The last connection is gone: the image is closed, without the mark, and may be opened again.
for _ in range(100):
    if os.system("ploopctl check images/a.hds >/dev/null 2>&1") == 0:
        break
    time.sleep(0.05)
else:
    raise AssertionError("a.hds stays open")
assert os.system("ploopctl check images/b.hds >/dev/null 2>&1") != 0
c = client("a.hds")
assert c.pread(M, 0) == b"a" * M
c.shutdown()
b.shutdown()
PYTHON
    exports "a.hds b.hds"
    stop_server "export '\|notes: cannot\|is no image\|not a ploop"
    for name in a b; do
        oracle check images/$name.hds >out || fail "$name: $(cat out)"
    done
    serve "$plugin" outside/c.hds
    exports ""
    stop_server
}

# What was given is not advised again.
test_advice_for_a_damaged_image() {
    create --size 8M a.hds
    printf '\377\377\0\0' | dd of=a.hds bs=1 seek=72 conv=notrunc status=none
    serve "$plugin" a.hds
    no_client "for writing to a damaged image"
    grep -q "$PWD/a.hds: cannot open: .*use recover=1" server.log || fail "no advice: $(cat server.log)"
    kill_server
    serve "$plugin" a.hds recover=1
    no_client "for writing to a damaged image"
    grep -q "$PWD/a.hds: cannot open: damaged, which recover= cannot repair; run ploopctl check" server.log ||
        fail "the reason: $(cat server.log)"
    kill_server
}

test_a_server_that_ends_closes_cleanly() {
    create --size 256M --cluster 64K a.hds
    serve "$plugin" a.hds
    dd if=/dev/urandom of=raw bs=1M count=256 status=none
    nbdcopy --requests=64 raw "$uri" >/dev/null 2>&1 &
    sleep 0.2
    stop_server "read data\|write data\|reply\|request"
    wait $!
    oracle check a.hds >out || fail "$(cat out)"
}

# nbdinfo and other clients see one disk: a file system in the base, changed through a top; the base is unchanged.
test_a_stack() {
    local version
    for version in "" --v1; do
        rm -rf -- *.hds *.raw files
        mkdir files && cp -r "$here" files/old
        truncate -s 40M fs.raw
        mkfs.ext4 -q -d files fs.raw || fail mkfs
        # shellcheck disable=SC2086
        timeout 60 ploopctl convert --to ploop --cluster 64K $version fs.raw base.hds || fail convert
        # shellcheck disable=SC2086
        create --size 48M --cluster 64K $version a.hds
        sha256sum base.hds >before
        serve "$plugin" a.hds base=base.hds
        client 'assert h.get_size() == 48 * M and h.pread(M, 40 * M) == bytes(M)'
        nbdcopy "$uri" work.raw || fail nbdcopy
        cmp -n $((40 << 20)) work.raw fs.raw || fail "the base is not seen"
        # The file system is changed in a copy, and only the differences are written.
        printf 'rm old/nbd.sh\nwrite %s new\nmkdir dir\n' "$plugin" | debugfs -w -f - work.raw >out 2>&1 || fail "$(cat out)"
        e2fsck -fy work.raw >out 2>&1
        client '
import os
work, fs = open("work.raw", "rb").read(), open("fs.raw", "rb").read()
changed = [at for at in range(0, 40 * M, 4096) if work[at:at + 4096] != fs[at:at + 4096]]
assert changed
for at in changed:
    h.pwrite(work[at:at + 4096], at)
h.flush()'
        nbdcopy "$uri" seen.raw || fail nbdcopy
        cmp seen.raw work.raw || fail "what was written is not what is read"
        stop_server
        sha256sum -c --quiet before || fail "the base was changed"
        same "$(oracle sha256 a.hds base.hds)" "$(sha256sum <work.raw | cut -d' ' -f1)" "what the oracle reads"
        timeout 60 ploopctl convert --from ploop --base base.hds a.hds flat.raw || fail convert
        cmp flat.raw work.raw || fail "flattened, it differs"
        e2fsck -fn flat.raw >out 2>&1 || fail "e2fsck: $(cat out)"
        ploopctl check --base base.hds a.hds >out || fail "$(cat out)"
        (($(oracle map a.hds | wc -l) < 640)) || fail "all of the base was copied"
    done
}

test_a_stack_over_a_raw_base() {
    head -c 1234567 /dev/urandom >base.raw
    create --size 4M --cluster 64K a.hds
    sha256sum base.raw >before
    serve "$plugin" raw-base=base.raw a.hds direct=1
    client '
base = open("base.raw", "rb").read()
model = bytearray(base.ljust(4 * M, b"\0"))
assert h.pread(4 * M, 0) == model
def put(at, bytes):
    h.pwrite(bytes, at)
    model[at:at + len(bytes)] = bytes
put(65536 + 512, b"x" * 512)
put(1234567 // 512 * 512, b"y" * 512)
put(2 * M, b"z" * 512)
h.zero(65536, 3 * 65536)
model[3 * 65536:4 * 65536] = bytes(65536)
h.trim(65536, 4 * 65536)
assert h.pread(65536, 4 * 65536) == model[4 * 65536:5 * 65536], "a trim gave back what the base has"
h.trim(65536, 65536)
seen = h.pread(65536, 65536)
assert seen == bytes(65536) or seen == model[65536:2 * 65536], "a trim brought the base back"
model[65536:2 * 65536] = seen
assert h.pread(4 * M, 0) == model
open("model.raw", "wb").write(model)'
    stop_server
    sha256sum -c --quiet before || fail "the base was changed"
    same "$(oracle sha256 a.hds raw:base.raw)" "$(sha256sum <model.raw | cut -d' ' -f1)" "what the oracle reads"
    # The same base, at the same time, below two tops.
    create --size 4M --cluster 64K b.hds
    serve "$plugin" b.hds raw-base=base.raw
    # shellcheck disable=SC2016
    nbdkit -U - "$plugin" a.hds raw-base=base.raw --run 'nbdcopy "$uri" seen.raw' >out 2>&1 || fail "a shared base: $(cat out)"
    cmp seen.raw model.raw || fail "a shared base: other data"
    stop_server
}

# A base that is clean and cut off (R19): recover=1 makes it whole, and shares it again; without it nothing changes.
test_a_cut_off_base() {
    local size
    create --size 8M --cluster 64K base.hds
    create --size 8M --cluster 64K a.hds
    serve "$plugin" base.hds
    client 'h.pwrite(b"b" * 131072, 0)'
    stop_server
    truncate -s -30000 base.hds
    size=$(stat -c %s base.hds)
    cp base.hds cut.hds
    serve "$plugin" a.hds base=base.hds
    no_client "for writing over a base that is cut off"
    kill_server
    grep -q "base.hds: BAT.*: cut off: .* bytes are in the file; needs recovery" server.log || fail "no reason: $(cat server.log)"
    serve -r "$plugin" base.hds
    client 'assert h.pread(512, 0) == b"b" * 512'
    # shellcheck disable=SC2016  # nbdkit's variable
    nbdkit -U - "$plugin" image=a.hds base=base.hds recover=1 --run 'nbdinfo --size "$uri"' >out 2>err && fail "recovered under a reader"
    grep -q "base.hds: BAT.*: cut off: " err || fail "no reason: $(cat err)"
    grep -q "base.hds: cannot open: another process has it open" err || fail "no reason: $(cat err)"
    stop_server
    cmp base.hds cut.hds || fail "changed by a refused open"
    serve "$plugin" a.hds base=base.hds recover=1
    client 'assert h.pread(65536, 0) == b"b" * 65536; h.pwrite(b"a" * 512, 4 * 65536)'
    ploopctl info base.hds >out 2>&1 || fail "the base is not shared again: $(cat out)"
    cmp -n "$size" base.hds cut.hds || fail "what was there has changed"
    stop_server "was cut off: "
    ploopctl check --base base.hds a.hds >out || fail "$(cat out)"
}

# Both were left open: recover=1 makes the base clean too, and does not touch a base that was closed.
test_a_stack_is_recovered() {
    create --size 8M --cluster 64K base.hds
    create --size 8M --cluster 64K middle.hds
    create --size 8M --cluster 64K a.hds
    serve "$plugin" base.hds
    client 'h.pwrite(b"b" * 65536, 0)'
    stop_server
    serve "$plugin" middle.hds
    client 'h.pwrite(b"m" * 65536, 65536, nbd.CMD_FLAG_FUA)'
    kill_server
    serve "$plugin" a.hds
    client 'h.pwrite(b"a" * 65536, 2 * 65536, nbd.CMD_FLAG_FUA)'
    kill_server
    sha256sum -- *.hds >before
    serve "$plugin" a.hds base=base.hds base=middle.hds
    no_client "for writing over an unclean base"
    kill_server
    same "$(grep -c "warning: not closed cleanly" server.log)" 2 "warnings"
    serve -r "$plugin" a.hds base=base.hds base=middle.hds recover=1
    client 'assert h.pread(4 * 65536, 0) == b"b" * 65536 + b"m" * 65536 + b"a" * 65536 + bytes(65536)'
    stop_server
    sha256sum -c --quiet before || fail "a file was changed by reading or by a refused open"
    sha256sum base.hds >before
    serve "$plugin" a.hds base=base.hds base=middle.hds recover=1
    client 'assert h.pread(4 * 65536, 0) == b"b" * 65536 + b"m" * 65536 + b"a" * 65536 + bytes(65536)'
    oracle check middle.hds >out || fail "the base was not recovered: $(cat out)"
    grep -q "middle.hds: warning: not closed cleanly: recovered" server.log || fail "$(cat server.log)"
    stop_server "not closed cleanly: recover"
    ploopctl check --base base.hds --base middle.hds a.hds >out || fail "$(cat out)"
    sha256sum -c --quiet before || fail "a base that was closed cleanly was changed"
}

test_attack() { /usr/bin/python3 "$here/nbd_stress.py" "$build" --rounds 12 --seconds 0.3 >out 2>&1 || fail "$(cat out)"; }

run_scenarios "${@:2}"
