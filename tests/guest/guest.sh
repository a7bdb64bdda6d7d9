#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A real guest: Linux in QEMU, whose disk the plugin serves.
#
#   guest.sh BUILD_DIRECTORY [SCENARIO...]      all of them, or these; 77: there can be no guest here
#
# shellcheck source=tests/interop/scenarios.bash
source "$(dirname "$0")/../interop/scenarios.bash"
# shellcheck source=tests/guest/machine.bash
source "$(dirname "$0")/machine.bash"

if ! why=$(make_guest); then
    echo "$why"
    exit 77
fi

# A new file system, files, what fstrim frees, and a check that is content.
test_a_guest() {
    alone
    ploopctl create --size 256M --cluster 64K a.hds || fail create
    serve a.hds
    boot format,mount,files,sums,trim,unmount
    powered_off
    served_well a.hds
    # 6 of 8 files of 3 MB each were trimmed; the journal of a file system of this size has 8 MB.
    (($(stat -c %b a.hds) / 2048 < 20)) || fail "$(($(stat -c %b a.hds) / 2048)) MiB after the trim"
}

# Killed twice under a load of fsync, with the guest paused meanwhile, as the man page has it: nothing that was synced is lost.
test_a_killed_server() {
    alone
    local seen=0
    ploopctl create --size 512M --cluster 64K a.hds || fail create
    serve a.hds
    boot format,mount,load
    for seen in 15 30; do
        hears "synced $seen"
        monitor stop >/dev/null
        waits_for 100 map_is_written || fail "the map is not written: $(tail -n 1 server.log)"
        kill -9 "$server"
        wait "$server" 2>/dev/null
        ((seen > 15)) || cp --sparse=always a.hds early.hds
        serve a.hds recover=1
        monitor cont >/dev/null
    done
    hears "synced 45"
    # And then all of it at once: the machine too.
    kill -9 "$machine" "$server"
    wait "$machine" "$server" 2>/dev/null
    seen=$(sed -n 's/^guest: synced \([0-9]*\).*/\1/p' console | tail -n 1)
    serve a.hds recover=1
    boot mount,load_sums,unmount "last=$seen"
    hears "right up to $seen"
    powered_off
    served_well a.hds
    # The guest would have seen a loss: a disk that has only what was synced before the first kill.
    serve early.hds recover=1
    boot mount,load_sums,unmount "last=$seen"
    hears "wrong: load"
}

map_is_written() {
    kill -USR1 "$server"
    sleep 0.1
    [[ $(tail -n 1 server.log) == *" 0 pages of the map to be written"* ]]
}

# The host runs full: QEMU stops the guest. There is space again: it goes on, and nothing is lost.
test_out_of_space_and_back() {
    alone
    mkdir room
    mount -t tmpfs -o size=40M ploop-guest room 2>/dev/null || { echo "    skipped: no tmpfs can be mounted"; return; }
    trap 'kill -9 ${machine-} ${server-} 2>/dev/null; umount -l room' EXIT
    ploopctl create --size 256M --cluster 64K room/a.hds || fail create
    serve room/a.hds
    boot format,mount,fill,unmount
    waits_for 1800 is_stopped || fail "the guest was not stopped: $(tail -n 3 console server.log)"
    said "done fill" && fail "there was no lack of space"
    mount -o remount,size=200M room || fail remount
    monitor cont >/dev/null
    powered_off
    served_well room/a.hds
}

is_stopped() { [[ $(monitor "info status") == *"paused (io-error)"* ]]; }

run_scenarios "${@:2}"
