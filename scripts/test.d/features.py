#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The last column of docs/features.md names tests that exist: a file (unit/open, interop/nbd, bench/instructions, examples/event_loop,
fuzz/open, bindings/go, sim or sched and a scenario) and, after it, tests of that file; a name that ends in dots is the beginning of one. A row that is done names one."""
import pathlib
import re
import sys

PLACES = {"unit": "tests/unit/test_%s.c", "interop": "tests/interop/%s.sh", "bench": "bench/%s.c", "examples": "examples/%s.c",
          "fuzz": "tests/fuzz/fuzz_%s.c",
          "bindings": "tests/bindings/%s.sh"}
SCENARIOS = "random exhaustive scenarios bounded snapshot grow" + "".join(pathlib.Path("tests/sim/%s.c" % name).read_text() for name in ("scenarios", "repair"))

SCHEDULES = "".join(path.read_text() for path in sorted(pathlib.Path("tests/sched").glob("scenario_*.c")))


def faults(shown):
    text = ""
    for word in re.findall(r"[A-Za-z_/-]+(?:\.\.\.)?", re.sub(r"\([^)]*\)|`[^`]*`", "", shown)):
        kind, slash, name = word.partition("/")
        if slash and kind in PLACES:
            path = pathlib.Path(PLACES[kind] % name)
            if not path.exists():
                yield f"no {path}"
                return
            text = path.read_text()
        elif kind == "sim":
            text = SCENARIOS
            if name and name not in text:
                yield f"no mode {name} of the simulator"
        elif kind == "sched":
            text = SCHEDULES
        elif "_" in word or (text in (SCENARIOS, SCHEDULES) and "-" in word):
            if not re.search(r"\b" + re.escape(word.removesuffix("...")) + ("" if word.endswith("...") else r"\b"), text):
                yield f"no {word} there"


bad = 0
rows = {}
for line in pathlib.Path("docs/features.md").read_text().splitlines():
    row = re.fullmatch(r"\| ([SDON]\d+) \| (.*) \| ([^|]*) \| ([^|]*)\|", line)
    if row:
        number, _, status, shown = (part.strip() for part in row.groups())
        rows[number] = status
        found = list(faults(shown))
        if status == "done" and not shown:
            found.append("done, and no test named")
        for fault in found:
            print(f"{number}: {fault}: {shown}")
        bad += bool(found)
print(len(rows), "rows,", sum(status == "done" for status in rows.values()), "done")
sys.exit(bad > 0 or not rows)
