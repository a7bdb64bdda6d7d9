#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Space on real file systems: the end of it, and giving it back.
#
#   space.sh BUILD_DIRECTORY
#
# Each file system is mounted in a namespace that ends with this script. As root; where there is no mount namespace, or no loop device,
# what needs it is reported as skipped.
#
# shellcheck source=tests/interop/scenarios.bash
if [[ ${SPACE_NAMESPACE-} != 1 ]]; then
    if ((EUID != 0)) || ! unshare --mount true 2>/dev/null; then
        echo "skipped: no root, or no mount namespaces"
        exit 0
    fi
    SPACE_NAMESPACE=1 exec unshare --mount --propagation private "$0" "$@"
fi
source "$(dirname "$0")/scenarios.bash"

full=$scratch/full
liburing=() backends=(posix)
grep -q '^URING_FOUND:INTERNAL=1' "$build/CMakeCache.txt" && liburing=(-luring) backends=(posix uring)
cc -std=c11 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -I"$here/../../include" -o "$full" "$here/full.c" "$build/src/libploop.a" -pthread \
    "${liburing[@]}" || exit 1

# Waits until a file is there.
appears() {
    local i
    for ((i = 0; i < 200; i++)); do
        [[ ! -e $1 ]] || return 0
        sleep 0.05
    done
    return 1
}

unmount() { umount mount 2>/dev/null || umount -l mount; }

# Each backend: fail, park and go on by the clock or asked to, close with writes parked.
runs_full() {
    local backend
    for backend in "${backends[@]}"; do
        "$full" "$PWD/mount" "$backend" >out 2>&1 || fail "$backend: $(cat out)"
    done
}

test_a_full_tmpfs() {
    mkdir mount
    mount -t tmpfs -o size=24M ploop-space mount || fail "no tmpfs"
    trap unmount EXIT
    runs_full
}

test_a_full_ext4() {
    mkdir mount
    truncate -s 64M disk
    mkfs.ext4 -q -F -m 0 -b 4096 disk || fail "mkfs.ext4"
    mount -o loop disk mount 2>/dev/null || { echo "    skipped: no loop device"; return; }
    trap unmount EXIT
    runs_full
}

# Removals ripen by the clock, and a close gives back what is left: with a flush, without one, and before the clock.
test_trimmed_space_goes_back() {
    local flush wait
    for flush in 1 0; do
        for wait in 0 8; do
            ((flush == 0 || wait == 0)) || continue
            rm -f a.hds sock
            ploopctl create --size 64M --cluster 64K a.hds || fail create
            nbdkit --foreground --unix sock "$build/tools/nbdkit-ploop-plugin.so" a.hds >server.log 2>&1 &
            server=$!
            appears sock
            FLUSH=$flush /usr/bin/python3 - <<'PYTHON' || fail "the client: $(cat server.log)"
import os, random, nbd
h = nbd.NBD()
h.connect_unix("sock")
for i in range(1024):
    h.pwrite(bytes([i % 255 + 1]) * 65536, i * 65536)
h.flush()
for i in random.Random(1).sample(range(1024), 700):
    h.trim(65536, i * 65536)
if os.environ["FLUSH"] == "1":
    h.flush()
h.shutdown()
PYTHON
            sleep "$wait"
            used=$(($(stat -c %b a.hds) / 128))
            ((wait == 0 || used < 340)) || fail "flush=$flush: after $wait s $used clusters take space"
            kill "$server"
            wait "$server" || fail "nbdkit: $(cat server.log)"
            used=$(($(stat -c %b a.hds) / 128))
            ((used < 340)) || fail "flush=$flush wait=$wait: after a close $used clusters take space"
            expect 0 ploopctl check a.hds
        done
    done
}

# A session that was killed leaves a long file; the next ones use that first, and cut it off.
test_killed_sessions_do_not_make_the_file_longer() {
    local round
    ploopctl create --size 1G a.hds || fail create
    for round in 1 2 3 4 5 6; do
        rm -f sock
        nbdkit --foreground --unix sock "$build/tools/nbdkit-ploop-plugin.so" a.hds recover=1 >server.log 2>&1 &
        server=$!
        appears sock
        qemu-io -f raw -c "write -P $round 0 40M" -c flush "nbd+unix:///?socket=$PWD/sock" >out 2>&1 || fail "$(cat out server.log)"
        if ((round < 6)); then kill -9 "$server"; else kill "$server"; fi
        wait "$server" 2>/dev/null
        # 40 MiB of data, the map, and one extension of 128 MiB ahead of need.
        (($(stat -c %s a.hds) <= 172 << 20)) || fail "round $round: the file has $(stat -c %s a.hds) bytes"
    done
    (($(stat -c %s a.hds) <= 42 << 20)) || fail "after a close the file has $(stat -c %s a.hds) bytes"
    expect 0 ploopctl check a.hds
}

# A guest's file system on the image: deletes and fstrim free space of the image file, and a check is content.
test_fstrim() {
    mkdir mount fuse
    ploopctl create --size 512M --cluster 64K a.hds || fail create
    nbdfuse fuse/disk --command nbdkit -s --exit-with-parent --filter=blocksize "$build/tools/nbdkit-ploop-plugin.so" a.hds \
        minblock=4096 >fuse.log 2>&1 &
    appears fuse/disk || { echo "    skipped: no FUSE: $(head -n 1 fuse.log)"; return; }
    trap 'umount mount 2>/dev/null; umount fuse 2>/dev/null || umount -l fuse 2>/dev/null' EXIT
    mkfs.ext4 -q -F fuse/disk >out 2>&1 || fail "mkfs.ext4: $(cat out)"
    mount -o loop fuse/disk mount 2>/dev/null || { echo "    skipped: no loop device"; return; }
    head -c 200M /dev/urandom >mount/large
    head -c 8M /dev/urandom >kept
    cp kept mount/kept
    sync -f mount
    local before after
    before=$(($(stat -c %b a.hds) / 2048))
    rm mount/large
    sync -f mount
    fstrim mount || fail "fstrim"
    cmp kept mount/kept || fail "what was kept"
    umount mount || fail "umount"
    umount fuse || fail "umount of nbdfuse's"
    for ((i = 0; i < 100; i++)); do
        expect_closed && break
        sleep 0.1
    done
    after=$(($(stat -c %b a.hds) / 2048))
    ((before >= 200 && after < before - 180)) || fail "$before MiB before, $after MiB after the trim"
    expect 0 ploopctl check a.hds
}

# Nobody has the image open any more.
expect_closed() { ploopctl check --repair leaks a.hds >/dev/null 2>&1; }

run_scenarios
