#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""ploopctl convert and merge beside a copy of the same bytes through the same backend (copy.c), and beside qemu-img convert.

  convert.py BUILD_DIR [--size BYTES] [--rounds N] [--directory DIR] [--json]

The source is full of random bytes, as a raw file and as an image. Each round runs every program once, in turn, each to a new file;
all of them end with the target synced. A merge copies the full one of two images into the empty one. Printed are the medians of the rounds: MiB/s with the median of the rounds' ratios (above 1:
convert is faster), and CPU seconds per GiB (below 1: convert takes less). With --json one object a line, the same figures.
"""
import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import tempfile
import time

MIB = 1 << 20


def fill(path, size):
    rng = random.Random(17)
    with open(path, "wb") as file:
        for at in range(0, size, MIB):
            file.write(rng.randbytes(min(MIB, size - at)))


def run(command, target, prepare=None):
    """Wall and CPU seconds."""
    if prepare:
        subprocess.run(prepare, check=True, stdout=subprocess.DEVNULL)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall = time.monotonic() - begin
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    os.unlink(target)
    return wall, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--size", type=int, default=1 << 30)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--directory", default="/dev/shm")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        measure(options, directory)


def measure(options, directory):
    raw, image, target = (os.path.join(directory, name) for name in ("source.raw", "source.hds", "target"))
    ctl = os.path.join(options.build, "tools/ploopctl")
    convert = [ctl, "convert"]
    qemu = ["qemu-img", "convert", "-W", "-m", "16", "-t", "writeback", "-f", "raw"]
    fill(raw, options.size)
    subprocess.run(convert + ["--from", "raw", raw, image], check=True)
    commands = {
        "copy": [os.path.join(options.build, "bench/bench_copy"), raw, target],
        "raw to ploop": convert + ["--from", "raw", "--to", "ploop", raw, target],
        "ploop to raw": convert + ["--from", "ploop", "--to", "raw", image, target],
        "ploop to ploop": convert + ["--from", "ploop", "--to", "ploop", image, target],
        "raw to raw": convert + ["--from", "raw", "--to", "raw", raw, target],
        "merge up": [ctl, "merge", "--base", image, target],
        "merge down": [ctl, "merge", "--down", "--base", target, image],
        "qemu-img raw to raw": qemu + ["-O", "raw", raw, target],
        "qemu-img raw to parallels": qemu + ["-O", "parallels", raw, target],
    }
    empty = [ctl, "create", "--size", str(options.size), target]
    prepare = {"merge up": empty, "merge down": empty}
    costs = {name: [] for name in commands}
    for _ in range(options.rounds):
        for name, command in commands.items():
            costs[name].append(run(command, target, prepare.get(name)))
    report(options, directory, costs)


def report(options, directory, costs):
    if not options.json:
        kind = subprocess.run(["stat", "-f", "-c", "%T", directory], check=True, capture_output=True, text=True).stdout.strip()
        print("convert and merge of %d MiB of data on %s, medians of %d rounds" % (options.size // MIB, kind, options.rounds))
        print("%-16s %-26s %9s %9s %7s   %s" % ("# convert", "peer", "ours", "peer's", "ratio", "unit"))
    pairs = [(ours, "copy") for ours in ("raw to ploop", "ploop to raw", "ploop to ploop", "raw to raw", "merge up", "merge down")]
    pairs += [("raw to raw", "qemu-img raw to raw"), ("raw to ploop", "qemu-img raw to parallels")]
    for number, unit, amount in ((0, "MiB/s", options.size / MIB), (1, "CPU s/GiB", options.size / (1 << 30))):
        for ours, peer in pairs:
            figures = [[amount / cost[number] if number == 0 else cost[number] / amount for cost in costs[name]] for name in (ours, peer)]
            row = {
                "row": "P17",
                "what": "%s%s, peer %s" % ("" if ours.startswith("merge") else "convert ", ours, peer),
                "ours": round(statistics.median(figures[0]), 3),
                "peer": round(statistics.median(figures[1]), 3),
                "ratio": round(statistics.median(a / b for a, b in zip(*figures)), 3),
                "unit": unit,
            }
            if options.json:
                print(json.dumps(row))
            else:
                print("%-16s %-26s %9.2f %9.2f %7.2f   %s" % (ours, peer, row["ours"], row["peer"], row["ratio"], unit))


if __name__ == "__main__":
    main()
