# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# What the scripts around ploopctl share. A scenario is a function whose name begins with "test_"; each runs in a subshell, in an
# empty directory of its own, and fail() ends it. run_scenarios runs them all and says which failed.

set -u
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"

build=$(cd "$1" && pwd) || exit 1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PATH="$build:$build/tools:$PATH"
scratch=$(mktemp -d "${TMPDIR:-/tmp}/ploop-interop.XXXXXX") || exit 1
trap 'rm -rf "$scratch"' EXIT

fail() {
    echo "    $*" >&2
    exit 1
}

same() {
    [[ $1 == "$2" ]] || fail "$3: expected '$2', got '$1'"
}

# like TEXT PATTERN WHAT: a shell pattern.
like() {
    # shellcheck disable=SC2053
    [[ $1 == $2 ]] || fail "$3: expected '$2', got '$1'"
}

# expect STATUS COMMAND...: standard output and standard error go to files out and err. A program that hangs gets status 124.
expect() {
    local want=$1 status=0
    shift
    [[ $(type -t "$1") == function ]] || set -- timeout 120 "$@"
    "$@" >out 2>err </dev/null || status=$?
    [[ $status == "$want" ]] || fail "$*: exit status $status instead of $want: $(cat err)"
}

# refused PATTERN COMMAND...: exit 1, nothing on standard output, and one line on standard error like the pattern.
refused() {
    local pattern=$1
    shift
    expect 1 "$@"
    same "$(wc -l <err)" 1 "$*: lines on standard error: $(cat err)"
    like "$(cat err)" "$pattern" "$*"
    [[ ! -s out ]] || fail "$*: wrote to standard output: $(cat out)"
}

# misused PATTERN COMMAND...: the same for a wrong call of ploopctl, and a second line that names --help.
misused() {
    local pattern=$1
    shift
    expect 1 "$@"
    same "$(wc -l <err)" 2 "$*: lines on standard error: $(cat err)"
    like "$(head -n 1 err)" "$pattern" "$*"
    [[ ! -s out ]] || fail "$*: wrote to standard output: $(cat out)"
    if ploopctl --help | grep -q "^  ${2-none} "; then
        same "$(tail -n 1 err)" "Try 'ploopctl $2 --help' for more information." "$*"
    else
        same "$(tail -n 1 err)" "Try 'ploopctl --help' for more information." "$*"
    fi
}

# silent COMMAND...: exit 0 and nothing on standard error.
silent() {
    expect 0 "$@"
    [[ ! -s err ]] || fail "$*: wrote to standard error: $(cat err)"
}

oracle() {
    python3 "$here/../oracle/ploop_oracle.py" "$@"
}

# json EXPRESSION: of the JSON in file out, as the Python variable j.
json() {
    python3 -c "import json; j = json.load(open('out')); print($1)" || fail "no JSON with $1: $(head -c 300 out)"
}

# judged IMAGE: every judge finds it sound. OpenVZ's tool takes holes for faults, has limits on clusters, and insists on data_off.
judged() {
    expect 0 ploopctl check "$1"
    expect 0 oracle check "$1"
    expect 0 qemu-img check -f parallels "$1"
    cp --sparse=never "$1" full.hds
    expect 0 ploop check -f -c -r full.hds
    rm full.hds
}

# run_scenarios [SCENARIO...]: without its "test_"; all if none is named.
run_scenarios() {
    local scenario failed=0 count=0
    [[ $# -gt 0 ]] || set -- $(declare -F | sed -n 's/^declare -f test_//p')
    for scenario in "${@/#/test_}"; do
        count=$((count + 1))
        mkdir "$scratch/$scenario"
        SECONDS=0
        if (cd "$scratch/$scenario" && "$scenario"); then
            echo "ok   ${scenario#test_} (${SECONDS}s)"
        else
            echo "FAIL ${scenario#test_} (${SECONDS}s)"
            failed=$((failed + 1))
        fi
        rm -rf "${scratch:?}/$scenario"
    done
    echo "$count scenarios, $failed failed"
    [[ $count -gt 0 && $failed == 0 ]]
}
