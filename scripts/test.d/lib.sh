# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# What the parts of scripts/test share. $RESULTS gets a line "KIND PASSED FAILED SKIPPED" for each count reported, $NOTES what people should
# see even if all is well.

set -u
jobs=$(nproc)
: "${RESULTS:=/dev/null}" "${NOTES:=/dev/null}" "${TIER:=full}"

# count KIND PASSED FAILED [SKIPPED]
count() {
    echo "$1 $2 $3 ${4-0}" >>"$RESULTS"
}

# note LINE
note() {
    echo "$1" >>"$NOTES"
}

# judge KIND COMMAND...: one test, which passes if the command does.
judge() {
    local kind=$1
    shift
    echo "== $*"
    if "$@"; then count "$kind" 1 0; else
        count "$kind" 0 1
        echo "FAILED: $*"
    fi
}

# judge_or_skip KIND COMMAND...: as judge; exit status 77 says that it cannot be tried on this machine, its last line why.
judge_or_skip() {
    local kind=$1 output status
    shift
    echo "== $*"
    output=$("$@" 2>&1)
    status=$?
    echo "$output"
    case $status in
    0) count "$kind" 1 0 ;;
    77)
        count "$kind" 0 0 1
        note "skipped: $(tail -n 1 <<<"$output")"
        ;;
    *)
        count "$kind" 0 1
        echo "FAILED: $*"
        ;;
    esac
}

# build_preset PRESET [TARGET...]: configure and build it, or only these targets of it, in silence unless it fails.
build_preset() {
    local log=build/log/build-$1.log
    if ! { cmake --preset "$1" && cmake --build --preset "$1" -j "$jobs" ${2:+--target "${@:2}"} -- -k 0; } >"$log" 2>&1; then
        grep -v '^\[[0-9/]*\] \(Building\|Linking\|Generating\)' "$log"
        echo "building $1 failed"
        return 1
    fi
}

# count_program KIND NAME STATUS TAP: what a libcheck program says it ran; one that writes no TAP file is one test.
count_program() {
    local passed=0 failed=0
    if [[ -s $4 ]]; then
        passed=$(grep -c '^ok' "$4")
        failed=$(grep -c '^not ok' "$4")
        grep '^not ok' "$4" | sed "s|^|FAILED: $2: |"
    fi
    if (($3 == 0 && passed + failed == 0)); then
        passed=1
    elif (($3 != 0 && failed == 0)); then
        failed=1
        echo "FAILED: $2: exit status $3"
    fi
    count "$1" "$passed" "$failed"
}

# run_ctest KIND PRESET LABEL: the programs with that label, counted by their checks.
run_ctest() {
    local directory=build/$2 name status
    rm -f "$directory"/*.tap "$directory/Testing/Temporary/LastTestsFailed.log"
    ctest --test-dir "$directory" -L "^$3\$" -j "$jobs" --output-on-failure
    # What the tests printed: the listing below starts that log anew.
    cp "$directory/Testing/Temporary/LastTest.log" "build/log/$1.tests"
    for name in $(ctest --test-dir "$directory" -N -L "^$3\$" | sed -n 's/^ *Test *#[0-9]*: //p'); do
        grep -q ":$name\$" "$directory/Testing/Temporary/LastTestsFailed.log" 2>/dev/null
        status=$((! $?))
        count_program "$1" "$name" $status "$directory/${name/\//-}.tap"
    done
}

# tidy FOLDER...: clang-tidy over what the build compiles there, which is how it knows the flags; each file is one test.
tidy() {
    local database=build/log/tidy file files log
    local list=()
    log=$(mktemp -d)
    # Each file once: tests/sched compiles src anew, and clang-tidy would go through both, in one process, which confuses its analyzer.
    mkdir -p $database
    python3 -c 'import json, sys
first = {}
for entry in json.load(sys.stdin): first.setdefault(entry["file"], entry)
json.dump(list(first.values()), sys.stdout, indent=0)' <build/dev-clang/compile_commands.json >$database/compile_commands.json
    for file in "$@"; do list+=(-e "$PWD/$file/"); done
    files=$(sed -n 's/.*"file": "\(.*\)".*/\1/p' $database/compile_commands.json | sort -u | grep -F "${list[@]}")
    # shellcheck disable=SC2016  # the inner shell's variables
    xargs -P "$jobs" -I{} sh -c 'name=$(echo "$3" | tr / _); clang-tidy --quiet -p "$2" "$3" >"$1/$name" 2>&1 || touch "$1/$name.failed"' \
        - "$log" $database {} <<<"$files"
    local failed
    failed=$(find "$log" -name '*.failed' | wc -l)
    count clang-tidy $(($(wc -l <<<"$files") - failed)) "$failed"
    for file in "$log"/*.failed; do [[ -e $file ]] && cat "${file%.failed}"; done
    rm -rf "$log"
}

# cpp_check FOLDER...
cpp_check() {
    cppcheck --quiet --std=c11 --enable=warning,performance,portability --library=posix --inline-suppr --error-exitcode=1 \
        --suppressions-list=scripts/cppcheck-suppressions -j "$jobs" -I include -I src -I tests -D_GNU_SOURCE "$@"
}

# run_scripts KIND DIRECTORY BUILD: each script there, with the build directory as its argument; as many at a time as there are cores.
# Exit status 77 is as in judge_or_skip.
# The longest file first: it is likely to take longest.
run_scripts() {
    local script status logs
    logs=$(mktemp -d)
    # shellcheck disable=SC2016  # the inner shell's variables
    wc -c "$2"/*.sh | grep -v ' total$' | sort -rn | sed 's/^ *[0-9]* //' |
        xargs -P "$jobs" -I{} sh -c '"$3" "$2" >"$1/${3##*/}.log" 2>&1; echo $? >"$1/${3##*/}.status"' - "$logs" "$3" {}
    for script in "$2"/*.sh; do
        status=$(cat "$logs/${script##*/}.status")
        echo "== $script $3"
        cat "$logs/${script##*/}.log"
        count "$1" $((status == 0)) $((status != 0 && status != 77)) $((status == 77))
        case $status in
        0) ;;
        77) note "skipped: $(tail -n 1 "$logs/${script##*/}.log")" ;;
        *) echo "FAILED: $script $3" ;;
        esac
    done
    rm -rf "$logs"
}
