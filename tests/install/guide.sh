#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Every command of the guide runs, as it stands there, page by page, each in a folder of its own; a C program is saved where the page
# says. The first page builds and installs: here what is built already is installed, with GUIDE_FROM_SOURCE=1 it is done to the letter
# (tests/packages/guide.sh).
#
#   guide.sh BUILD_DIRECTORY
set -euo pipefail
export LC_ALL=C
top=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export SOURCE=$top PREFIX=$work/prefix

install=
[[ ${GUIDE_FROM_SOURCE-} ]] || install="cmake --install \"$build\" --prefix \"\$PREFIX\" >install.log"

count=0
environment=
for page in "$top/docs/guide/first-disk.md" "$top"/docs/guide/*.md; do
    name=$(basename "$page" .md)
    [[ ! -e $work/$name ]] || continue
    mkdir "$work/$name"
    cd "$work/$name"
    "$top/tests/install/page.py" "$page" "$install" >"$work/$name.sh"
    (($(wc -l <"$work/$name.sh") > 1)) || continue
    # What the first page exports holds for all.
    [[ ! $environment ]] || sed -i "1r $environment" "$work/$name.sh"
    bash "$work/$name.sh" >"$work/log" 2>&1 || { cat "$work/log"; echo "FAILED: a command of $page"; exit 1; }
    if [[ ! $environment ]]; then
        environment=$work/environment
        grep '^export ' "$work/$name.sh" >"$environment"
    fi
    count=$((count + 1))
done
((count >= 2)) || { echo "only $count pages have commands"; exit 1; }
echo "$count pages with commands"
