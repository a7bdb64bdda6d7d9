# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# What the scripts about bundles share; sourced after scenarios.bash.

# shellcheck disable=SC2154  # $build, of scenarios.bash
PADDING=$(printf '%4096s' x)
export PADDING # OpenVZ's tool crashes in a small environment

plugin=$build/tools/nbdkit-ploop-plugin.so
# shellcheck disable=SC2034  # for who sources this
top="{5fbaabe3-6958-40ff-92a7-860e329aab41}"

# guest BUNDLE QEMU_IO_COMMAND...: through the plugin.
guest() {
    local bundle=$1 command=() one
    shift
    for one in "$@"; do command+=(-c "'$one'"); done
    # shellcheck disable=SC2016  # nbdkit's variable
    nbdkit -U - "$plugin" image="$bundle" --run 'qemu-io -f raw '"${command[*]}"' "$uri"' >guest.log 2>&1 || echo failed >>guest.log
    ! grep -q failed guest.log || fail "guest $bundle $*: $(cat guest.log)"
}

# theirs BUNDLE FIELD...: what OpenVZ's ploop lists of the snapshots, a line each, sorted, without spaces.
theirs() {
    local bundle=$1
    shift
    ploop snapshot-list -H -o "$(IFS=,; echo "$*")" "$bundle/DiskDescriptor.xml" | tr -s ' ' | sed 's/ *$//' | sort
}

# agreed BUNDLE: both see the same snapshots, parents and top.
agreed() {
    ploopctl bundle list --json "$1" >out || fail "bundle list $1"
    json '"\n".join(sorted("%s %s" % (s["parent"] or "{00000000-0000-0000-0000-000000000000}", s["guid"]) for s in j["snapshots"]))' >ours
    same "$(theirs "$1" parent_uuid uuid)" "$(cat ours)" "$1: the snapshots that OpenVZ's ploop sees"
    same "$(theirs "$1" current uuid | sed -n 's/^\* //p')" "$(json 'j["top"]')" "$1: the top that OpenVZ's ploop sees"
}

# content BUNDLE: the sum of the disk.
content() {
    rm -f content.raw
    expect 0 ploopctl convert --to raw "$1" content.raw
    sha256sum <content.raw
}
