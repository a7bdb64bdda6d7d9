#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The program in README.md compiles without a warning, runs, and leaves a clean image. Every command in README.md is run, in order and as
# it stands there, or is named below with the reason why it is not; a new one that is neither is a failure.
#
#   readme.sh BUILD_DIRECTORY
set -euo pipefail
export LC_ALL=C

top=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# What is not run: the beginning of the command, and why.
not_run=(
    "scripts/demo"      "a part of scripts/test full"
    "scripts/test"      "this is a part of it"
    "nbdkit -U"         "tests/interop/nbd and nbd_stack do, with sockets of their own"
    "qemu-img convert"  "tests/interop/nbd does"
    "qemu-system-x86_64" "tests/guest boots from a served disk"
    "nbdfuse"           "needs /dev/fuse; the server is the same"
    "cmake --preset"    "tests/configurations installs, and so do the packages"
)
# reason COMMAND: why it is not run; false: it is.
reason() {
    local i
    for ((i = 0; i < ${#not_run[@]}; i += 2)); do
        if [[ $1 == "${not_run[i]}"* ]]; then
            echo "${not_run[i + 1]}"
            return 0
        fi
    done
    return 1
}

# ---- The program ----

# shellcheck disable=SC2016  # backquotes of Markdown
sed -n '/^```c$/,/^```$/p' "$top/README.md" | grep -v '^```' >hello.c
cc -Wall -Wextra -Wpedantic -Werror -I "$top/include" -o hello hello.c -L "$build/src" -lploop -Wl,-rpath,"$build/src"
[[ $(./hello) == "hello, disk" ]]
"$build/tools/ploopctl" check hello.hds
qemu-img check -q -f parallels hello.hds

# ---- The commands ----

export PATH="$build/tools:$PATH"
# As an installation would answer.
pkg-config() { [[ $* == "--cflags --libs ploop" ]] && echo "-I$top/include -L$build/src -lploop"; }
export -f pkg-config
export top build
# A disk to be converted, and the stack that the last command names; a convert makes a new file.
truncate -s 4M disk.raw
prepare() {
    case $1 in
    "ploopctl convert --from raw --to ploop "*) rm disk.hds ;;
    "ploopctl convert --from ploop --base "*)
        mv disk.hds base.hds
        ploopctl snapshot base.hds between.hds
        mv between.hds monday.hds
        ploopctl snapshot --base base.hds monday.hds tuesday.hds
        ;;
    esac
}
# Of the program's lines none begins with a command.
# shellcheck disable=SC2016
sed -n '/^```c$/,/^```$/!p' "$top/README.md" | sed -n 's/^    \([a-z].*\)/\1/p' >commands
ran=0
while IFS= read -r command; do
    if why=$(reason "$command"); then
        echo "not run: $command: $why" >>skipped
        continue
    fi
    prepare "$command"
    bash -euo pipefail -c "$command" >log 2>&1 </dev/null || { cat log; echo "FAILED: README.md: $command"; exit 1; }
    ran=$((ran + 1))
done <commands
[[ -e a.out && -e disk.hdd && -e flat.raw ]]
for ((i = 0; i < ${#not_run[@]}; i += 2)); do
    grep -q "^not run: ${not_run[i]}" skipped || { echo "FAILED: README.md has no ${not_run[i]}"; exit 1; }
done
((ran >= 10))
echo "$ran commands run, $(wc -l <skipped) not"
