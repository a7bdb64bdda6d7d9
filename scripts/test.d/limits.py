#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The limits that HACKING.md states for C: lines of a file and of a function, columns of a line,
and which folder of src/ may include which; bundle/ includes public headers only. Prints what is over a limit; exits 1 then."""
import re
import subprocess
import sys

FILE_LINES, FUNCTION_LINES, COLUMNS = 600, 70, 100

# From the bottom up: a folder includes those before it in this list, and itself.
ROOMS = ["util", "format", "file", "image", "space", "bat", "delta", "dev", "pio", "engine", "life",
         "live", "ops"]

wrong = []


def tracked(*patterns):
    out = subprocess.run(["git", "ls-files", "-z", *patterns], stdout=subprocess.PIPE, check=True)
    return [name for name in out.stdout.decode().split("\0") if name]


def functions(name, lines):
    """A function's body lies between braces in the first column, as .clang-format has it."""
    begin = None
    for number, line in enumerate(lines, 1):
        if line == "{":
            begin = number
        elif line == "}" and begin:
            if number - begin - 1 > FUNCTION_LINES:
                wrong.append(f"{name}:{begin}: a function of {number - begin - 1} lines, "
                             f"{FUNCTION_LINES} at most")
            begin = None


def includes(name, text):
    room = re.match(r"src/(\w+)/", name)
    if name.startswith("bundle/"):
        for target in re.findall(r'^#include ["<](\w+/.*)[">]', text, re.M):
            if not re.match("(ploop|libxml|sys)/", target):
                wrong.append(f"{name}: includes {target}: only the core's public headers are there")
    if not room:
        return
    for target in re.findall(r'^#include "(\w+)/', text, re.M):
        if ROOMS.index(target) > ROOMS.index(room[1]):
            wrong.append(f"{name}: includes src/{target}, which is above src/{room[1]}")


def mutants():
    """A mutant's number is used once in its folder, and its name has a row in docs/mutants.md."""
    with open("docs/mutants.md", encoding="utf-8") as file:
        rows = set(re.findall(r"^\| ([a-z0-9-]+) \|", file.read(), re.M))
    numbers = {}
    for name in tracked("tests/*/mutants/*.patch"):
        folder, number, title = re.match(r"(.*/)(\d+)-(.*)\.patch", name).groups()
        other = numbers.setdefault(folder + number, name)
        if other != name:
            wrong.append(f"{name}: its number is that of {other}")
        if folder in ("tests/sim/mutants/", "tests/sched/mutants/") and title not in rows:
            wrong.append(f"{name}: no row in docs/mutants.md")


mutants()
for name in tracked("*.c", "*.h"):
    with open(name, encoding="utf-8") as file:
        text = file.read()
    lines = text.split("\n")
    functions(name, lines)
    includes(name, text)
    if len(lines) > FILE_LINES + 1:
        wrong.append(f"{name}: {len(lines) - 1} lines, {FILE_LINES} at most")
    for number, line in enumerate(lines, 1):
        if len(line) > COLUMNS:
            wrong.append(f"{name}:{number}: {len(line)} columns, {COLUMNS} at most")
print("\n".join(wrong) if wrong else "limits: kept")
sys.exit(bool(wrong))
