#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Every relative link of the Markdown files below a folder leads to a file, and to a heading of it where it names one.

  links.py FOLDER
"""
import pathlib
import re
import sys

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def anchors(text):
    """The names that a heading can be linked by, as GitHub makes them."""
    for heading in re.findall(r"^#+ +(.*)$", text, re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-")


def without_code(text):
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def main():
    folder = pathlib.Path(sys.argv[1])
    broken = []
    count = 0
    for page in sorted(folder.rglob("*.md")):
        for link in LINK.findall(without_code(page.read_text())):
            if re.match(r"[a-z]+:", link):
                continue
            count += 1
            path, _, anchor = link.partition("#")
            target = (page.parent / path) if path else page
            if not target.exists():
                broken.append(f"{page}: {link}")
            elif anchor and target.suffix == ".md" and anchor not in anchors(target.read_text()):
                broken.append(f"{page}: {link}: no such heading")
    print("\n".join(broken), file=sys.stderr)
    print(f"{count} links")
    return 1 if broken or not count else 0


sys.exit(main())
