#!/bin/bash
# SPDX-License-Identifier: MIT
#
# An image that was not closed cleanly and stays partly in the page cache because a program maps it: neither the plugin nor a repair
# trusts its content, unless told to.
#
#   cached.sh BUILD_DIRECTORY [SCENARIO...]
# shellcheck source=tests/interop/scenarios.bash
source "$(dirname "$0")/scenarios.bash"
plugin=$build/tools/nbdkit-ploop-plugin.so

# On tmpfs the cache is the storage, so nothing is refused.
cache_is_storage() { [[ $(stat -f -c %T .) == tmpfs ]]; }

mark() { printf '\x59\x6e\x6f\x74' | dd of=a.hds bs=1 seek=44 conv=notrunc status=none; }

unclean() {
    silent ploopctl create --size 8M a.hds
    mark
}

# A program that maps the image and has its first page in use.
map_image() {
    trap 'kill -9 $mapper 2>/dev/null' EXIT
    /usr/bin/python3 -c '
import mmap, time
with open("a.hds", "rb") as image:
    pages = mmap.mmap(image.fileno(), 0, prot=mmap.PROT_READ)
    open("mapped", "wb").write(pages[:1])
    time.sleep(600)' &
    mapper=$!
    while [[ ! -s mapped ]]; do sleep 0.02; done
}

unmap_image() {
    kill -9 "$mapper"
    wait "$mapper" 2>/dev/null
}

serve_and_read() {
    # shellcheck disable=SC2016  # nbdkit's variable
    nbdkit --unix - "$plugin" a.hds "$@" --run 'nbdinfo --size "$uri"' >out 2>err
}

test_a_repair_drops_the_cache() {
    unclean
    misused "ploopctl: check: --cached requires --repair" ploopctl check --cached a.hds
    map_image
    if ! cache_is_storage; then
        cp a.hds before
        expect 1 ploopctl check --repair all a.hds
        like "$(cat err)" "*a.hds: cannot repair: part of it stays in the page cache*--cached" "the reason"
        cmp a.hds before || fail "a repair that was refused changed the image"
    fi
    expect 0 ploopctl check --repair all --cached a.hds
    unmap_image
    mark
    expect 0 ploopctl check --repair all a.hds
}

test_a_recovery_drops_the_cache() {
    unclean
    map_image
    if ! cache_is_storage; then
        cp a.hds before
        if serve_and_read recover=1; then fail "served: $(cat out err)"; fi
        grep -q "cache cannot be dropped" err || fail "no reason: $(cat err)"
        grep -q "stays in the page cache.*recover=cached" err || fail "no advice: $(cat err)"
        cmp a.hds before || fail "a recovery that was refused changed the image"
    fi
    serve_and_read recover=cached || fail "not served with recover=cached: $(cat err)"
    same "$(cat out)" 8388608 "size"
    unmap_image
    expect 0 ploopctl check a.hds
    mark
    serve_and_read recover=1 || fail "not served with recover=1: $(cat err)"
    expect 0 ploopctl check a.hds
}

run_scenarios "${@:2}"
