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

# script PAGE: what the page has in ```sh blocks, and its ```c block as a file.
script() {
    python3 - "$1" "${GUIDE_FROM_SOURCE-}" "$build" <<'PYTHON'
import pathlib, re, sys
text, from_source, build = pathlib.Path(sys.argv[1]).read_text(), sys.argv[2], sys.argv[3]
names = re.findall(r"^Save it as `([a-z.]+)`", text, re.MULTILINE)
print("set -euo pipefail")
for kind, block in re.findall(r"^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
    if kind == "c":
        print(f"cat >{names.pop(0)} <<'END OF THE PROGRAM'\n{block}END OF THE PROGRAM")
    elif kind == "sh" and "cmake --install" in block and not from_source:
        print(f'cmake --install "{build}" --prefix "$PREFIX" >install.log')
    elif kind == "sh":
        print(block, end="")
    else:
        sys.exit(f"{sys.argv[1]}: a block of an unknown kind: {kind}")
if names:
    sys.exit(f"{sys.argv[1]}: no program for {names}")
PYTHON
}

count=0
environment=
for page in "$top/docs/guide/first-disk.md" "$top"/docs/guide/*.md; do
    name=$(basename "$page" .md)
    [[ ! -e $work/$name ]] || continue
    mkdir "$work/$name"
    cd "$work/$name"
    script "$page" >"$work/$name.sh"
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
