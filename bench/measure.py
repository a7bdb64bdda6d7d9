# SPDX-License-Identifier: MIT
"""What bench/run, the gate and the measurers in Python share: measurers are found and run here, and
bench/limits is read and applied.

A measurer is bench/NAME.sh, bench/NAME.py, or the program bench_NAME built of bench/NAME.c. It is
called with the build directory, which is on a disk, and --json, and prints a line of JSON for each
figure (bench/support/bench.h). It may look at BENCH_BUILD instead, the same directory, and at
BENCH_ROWS, the rows that are wanted; it may print more.
"""
import fnmatch
import json
import os
import re
import subprocess

BENCH = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(BENCH)
BUILD = os.path.abspath(os.environ.get("BENCH_BUILD", os.path.join(ROOT, "build/release")))

# The rows, and who measures each.
MEASURERS = {
    "P0": ["callgrind"], "P1": ["callgrind"], "P1b": ["callgrind"], "P12": ["callgrind"],
    "P2": ["backends", "qemu"], "P2n": ["nbd"], "P3": ["allocating", "qemu"], "P7": ["allocating", "qemu"],
    "P4": ["writeback", "served"], "P5": ["writeback"], "P6": ["served"], "P8": ["threads"],
    "P9": ["load"], "P10": ["load"], "P11": ["counts"], "P13": ["counts"], "P14": ["counts"],
    "P15": ["counts"], "P16": ["counts"], "P17": ["convert"], "P18": ["turn"],
    "P19": ["callgrind", "space"], "P20": ["snapshot"],
}
ROWS = sorted(MEASURERS, key=lambda row: (int(re.search(r"\d+", row)[0]), row))


def command(name):
    """How to start a measurer; None where there is none."""
    for path in (f"{BENCH}/{name}.sh", f"{BENCH}/{name}.py", f"{BUILD}/bench/bench_{name}"):
        if os.path.exists(path):
            return [path, BUILD, "--json"]
    return None


def wanted(row):
    """In a measurer: whether this row was asked for."""
    rows = os.environ.get("BENCH_ROWS")
    return not rows or row in rows.split()


def figure(row, what, ours, peer, unit, ratio=None):
    """In a measurer: print a figure. The ratio is ours to the peer's if none is given."""
    if ratio is None and ours is not None and peer:
        ratio = ours / peer
    print(json.dumps({"row": row, "what": what, "ours": ours, "peer": peer, "ratio": ratio, "unit": unit}), flush=True)


def measure(name, rows):
    """The figures of one measurer for these rows, and what went wrong: None, or a line of text."""
    start = command(name)
    if not start:
        return [], f"bench/{name} is missing"
    environment = dict(os.environ, BENCH_BUILD=BUILD, BENCH_ROWS=" ".join(rows))
    result = subprocess.run(start, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, check=False)
    figures = []
    for line in result.stdout.decode().splitlines():
        try:
            found = json.loads(line)
        except json.JSONDecodeError:
            return figures, f"bench/{name} printed what is no JSON: {line[:80]}"
        if found.get("ratio") is None and found.get("ours") is not None and found.get("peer"):
            found["ratio"] = found["ours"] / found["peer"]
        if found["row"] in rows:
            found.setdefault("ratio", None)
            figures.append(found)
    if result.returncode:
        last = result.stderr.decode().strip().splitlines()[-1:] or ["no message"]
        return figures, f"bench/{name} failed, exit status {result.returncode}: {last[0]}"
    return figures, None


def limits():
    """The lines of bench/limits, in order, as dicts."""
    found = []
    with open(f"{BENCH}/limits", encoding="utf-8") as lines:
        for line in lines:
            if line.strip() and not line.startswith("#"):
                row, kind, target, gate, what = line.split(None, 4)
                found.append({"row": row, "kind": kind, "target": target, "gate": gate, "what": what.strip()})
    return found


def limit_of(figure_, limits_):
    """The first line of bench/limits that is about this figure: about what it is, or that and its unit."""
    names = (figure_["what"], f"{figure_['what']}, {figure_['unit']}")
    for limit in limits_:
        if limit["row"] == figure_["row"] and any(fnmatch.fnmatchcase(name, limit["what"]) for name in names):
            return limit
    return None


def keeps(value, bound):
    """Whether a value keeps a bound such as "<=200" or ">=0.9"."""
    number = float(bound[2:])
    return value <= number if bound.startswith("<=") else value >= number
