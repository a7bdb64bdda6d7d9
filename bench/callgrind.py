#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Rows that are counts of instructions: P0, P1, P1b, P12, P19. Only what a program does between BENCH_COUNT_BEGINS() and
BENCH_COUNT_ENDS() is counted; of QEMU, which has no such marks, the difference between two numbers of requests.

P1 is the library's share: of all that was counted, what does not lie in the files of bench/ or, with the shared library, in the program.
"""
import os
import re
import subprocess
import tempfile

import measure

REQUESTS, DEPTH = 6400, 32


def callgrind(directory, *arguments, options=("--instr-atstart=no",)):
    """The profile: (object, file, instructions), and the sum."""
    out = os.path.join(directory, "out")
    subprocess.run(["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={out}", "--compress-strings=no",
                    "--compress-pos=no", *options, *arguments], check=True, stdout=subprocess.DEVNULL)
    lines, place, inclusive = [], {"ob": "", "fl": ""}, False
    with open(out, encoding="utf-8", errors="replace") as profile:
        for line in profile:
            name = re.match(r"(ob|fl|fi|fe)=(.*)", line)
            if name:
                place["ob" if name[1] == "ob" else "fl"] = name[2]
            elif line.startswith("calls="):
                inclusive = True
            elif re.match(r"\d+ \d+$", line):
                if not inclusive:
                    lines.append((place["ob"], place["fl"], int(line.split()[1])))
                inclusive = False
    return lines, sum(count for _, _, count in lines)


def is_bench(program, shared, place, file):
    return os.path.abspath(os.path.join(measure.ROOT, file)).startswith(measure.BENCH + "/") or \
        (shared and os.path.basename(place) == os.path.basename(program))


def library(directory):
    for op in ("read", "overwrite"):
        for depth in (DEPTH, 1):
            _, floor = callgrind(directory, f"{measure.BUILD}/bench/bench_floor", op, str(REQUESTS), str(depth))
            floor /= REQUESTS
            which = f"{op}, a run for each" + (f" {depth}" if depth > 1 else "")
            if measure.wanted("P0"):
                measure.figure("P0", f"floor: {which}", round(floor), None, "instructions")
            for name, suffix in (("archive", ""), ("shared library", "_shared")) if measure.wanted("P1") else ():
                program = f"{measure.BUILD}/bench/bench_instructions{suffix}"
                lines, _ = callgrind(directory, program, op, str(REQUESTS), str(depth))
                ours = sum(count for place, file, count in lines if not is_bench(program, suffix, place, file))
                measure.figure("P1", f"{which}, {name}", round(ours / REQUESTS), round(floor), "instructions")


def whole_process(directory):
    """Both read 4 KiB blocks of the same 64 MiB, 32 at once, with O_DIRECT through io_uring."""
    image = os.path.join(directory, "image.hds")
    for command in (["qemu-img", "create", "-q", "-f", "parallels", "-o", "cluster_size=1M", image, "64M"],
                    ["qemu-io", "-f", "parallels", "-c", "write -P 1 0 64M", image]):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    _, total = callgrind(directory, f"{measure.BUILD}/bench/bench_backends", "reads", image, str(REQUESTS))
    counts = []
    for requests in (REQUESTS, 2 * REQUESTS):
        counts.append(callgrind(directory, "qemu-img", "bench", "-f", "parallels", "-t", "none", "-i", "io_uring", "-d", str(DEPTH),
                                "-s", "4096", "-c", str(requests), image, options=())[1])
    measure.figure("P1b", "mapped read, io_uring, QD32; peer: QEMU parallels", round(total / REQUESTS),
                   round((counts[1] - counts[0]) / REQUESTS), "instructions")


def dirty_pages(directory):
    few = None
    for pages in (256, 16 << 10, 256 << 10):
        _, count = callgrind(directory, f"{measure.BUILD}/bench/bench_dirty_pages", str(pages))
        few = few or count
        if pages > 256:
            measure.figure("P12", f"16 dirty pages of {pages >> 10} K; peer: of 256", count, few, "instructions")


def new_clusters(directory):
    first, count = None, 1000
    for percent in (1, 50, 99):
        lines, _ = callgrind(directory, f"{measure.BUILD}/bench/bench_space", "fill", str(percent), str(count))
        ours = round(sum(number for place, file, number in lines if not is_bench("", False, place, file)) / count)
        first = first or ours
        measure.figure("P19", f"a new cluster, {percent} % full; peer: 1 %", ours, first, "instructions")


def main():
    with tempfile.TemporaryDirectory(dir=measure.BUILD) as directory:
        if measure.wanted("P0") or measure.wanted("P1"):
            library(directory)
        if measure.wanted("P12"):
            dirty_pages(directory)
        if measure.wanted("P19"):
            new_clusters(directory)
        if measure.wanted("P1b"):
            whole_process(directory)


if __name__ == "__main__":
    main()
