#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Proof that kernel.sh can fail: each patch of tests/kernel/mutants breaks one rule of src/file. The changed files are compiled without
# the library's own assertions and linked in front of the archive; then the runs named here are made on ext4 without a journal until one
# fails. Prints a table; exit status 1 if a mutant was not caught, 77 as kernel.sh.
#
#   mutants.sh BUILD_DIRECTORY
set -u
top=$(cd "$(dirname "$0")/../.." && pwd)
build=$(realpath "$1")
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
cc=${CC:-cc}
liburing=()
grep -q '^URING_FOUND:INTERNAL=1' "$build/CMakeCache.txt" && liburing=(-luring)
missed=0

# The runs that show each fault; if none is named, all runs, "reopen" among them. Several FUA writes at once depend on chance.
declare -A runs=(
    [fua-on-sync-description]="WLUFC"
    [fua-writes-share-a-description]="PK PA PC PK PA PC PK PA PC PK PA PC PK PA PC PK PA PC PK PA PC PK PA PC"
    [recover-trusts-the-cache]="WLFC.w"
    [reopen-without-sync]="--reopen"
)

printf '| mutant | rule | what it does | caught |\n|---|---|---|---|\n'
for patch in "$top"/tests/kernel/mutants/*.patch; do
    name=$(basename "$patch" .patch)
    name=${name#*-}
    cp -r "$top/src" "$work/src"
    how="DOES NOT APPLY"
    if patch -s -p1 -d "$work" <"$patch" >"$work/log" 2>&1; then
        changed=$(sed -n "s,^+++ b/\([^[:space:]]*\).*,$work/\1,p" "$patch")
        # shellcheck disable=SC2086
        $cc -std=c11 -D_GNU_SOURCE -DNDEBUG -O1 -w -I"$work/src" -I"$top/include" -I"$top/tests/kernel" -o "$work/lossy" \
            "$top"/tests/kernel/*.c $changed "$build/src/libploop_internal.a" -lpthread "${liburing[@]}" || exit 2
        # shellcheck disable=SC2086
        "$top/tests/kernel/kernel.sh" "$work/lossy" ext4-nojournal ${runs[$name]} >"$work/log" 2>&1
        case $? in
        0) how="NOT CAUGHT" ;;
        1) how=$(grep -m 1 '^FAILED' "$work/log" | sed 's/^FAILED //' | cut -c 1-60) ;;
        77) cat "$work/log"; exit 77 ;;
        *) how="NOT CAUGHT: $(tail -n 1 "$work/log")" ;;
        esac
    fi
    [[ $how == NOT* || $how == DOES* ]] && missed=$((missed + 1))
    printf '| %s | %s | %s | %s |\n' "$name" "$(sed -n 's/^Rule: //p' "$patch")" "$(sed -n 's/^Mutant: //p' "$patch")" "$how"
    rm -rf "$work/src" "$work/lossy"
done
echo
echo "${#runs[@]} mutants, $missed not caught"
((missed == 0))
