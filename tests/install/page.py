#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Prints a page of the guide as a script: its ```sh blocks as they stand there, and its ```c programs as files of the names that the
page gives them.

  page.py PAGE [INSTALL]      INSTALL: a command in place of the block that builds and installs from source
"""
import pathlib
import re
import sys

page, install = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""
text = pathlib.Path(page).read_text()
names = re.findall(r"^Save it as `([a-z.]+)`", text, re.MULTILINE)
print("set -euo pipefail")
for kind, block in re.findall(r"^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
    if kind == "c":
        print(f"cat >{names.pop(0)} <<'END OF THE PROGRAM'\n{block}END OF THE PROGRAM")
    elif kind == "sh" and "cmake --install" in block and install:
        print(install)
    elif kind == "sh":
        print(block, end="")
    elif kind != "text":
        sys.exit(f"{page}: a block of an unknown kind: {kind}")
if names:
    sys.exit(f"{page}: no program for {names}")
