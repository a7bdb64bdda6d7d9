#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""QEMU's figures for P2, P3 and P7: what its parallels and qcow2 drivers make of the same requests, beside its own raw driver, in one
process (qemu-img bench, io_uring, past the page cache). "peer" is the driver's figure and "ratio" the one to QEMU's raw; "ours" is empty.

qemu-img bench has no random offsets: it adds a step to the last one, modulo the size of the disk. A large odd step makes the clusters
as scattered as random ones (a step is at most 2 GiB).
"""
import os
import re
import resource
import statistics
import subprocess
import tempfile

import measure

FILLED, DISK, SCATTER = 64 << 20, 16 << 30, 323987 * 4096
FORMATS = ("raw", "parallels", "qcow2")
CLUSTER = {"raw": [], "parallels": ["-o", "cluster_size=1M"], "qcow2": ["-o", "cluster_size=1M"]}


def qemu_img(*arguments):
    return subprocess.run(["qemu-img", *arguments], check=True, stdout=subprocess.PIPE).stdout.decode()


def create(image, format_, size):
    if os.path.exists(image):
        os.unlink(image)
    qemu_img("create", "-q", "-f", format_, *CLUSTER[format_], image, str(size))


def bench(image, format_, *options):
    """The seconds that it says it took, and the CPU time of the whole process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    out = qemu_img("bench", "-f", format_, "-t", "none", "-i", "io_uring", *options, image)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return float(re.search(r"completed in ([\d.]+) seconds", out)[1]), \
        after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def figures(row, what, per_format, unit, better):
    raw = statistics.median(per_format["raw"])
    for format_ in FORMATS[1:]:
        value = statistics.median(per_format[format_])
        measure.figure(row, f"QEMU {format_} to QEMU raw: {what}, {better}", None, round(value, 3), unit, value / raw)


def mapped(directory):
    images = {format_: os.path.join(directory, format_) for format_ in FORMATS}
    for format_, image in images.items():
        create(image, format_, FILLED)
        bench(image, format_, "-w", "-s", "1M", "-d", "1", "-c", str(FILLED >> 20))
    for depth in (1, 32):
        for what, options in (("read", []), ("overwrite", ["-w"])):
            rate, cpu = ({format_: [] for format_ in FORMATS} for _ in range(2))
            for _ in range(3):
                for format_, image in images.items():
                    arguments = [*options, "-s", "4096", "-S", str(SCATTER % FILLED), "-d", str(depth)]
                    count = 8000
                    seconds, used = bench(image, format_, *arguments, "-c", str(count))
                    _, start = bench(image, format_, *arguments, "-c", "1")
                    rate[format_].append(count * 4096 / seconds / (1 << 20))
                    cpu[format_].append(max(used - start, 0) / count * 1e6)
            figures("P2", f"direct {what} QD{depth}", rate, "MiB/s", "throughput")
            figures("P2", f"direct {what} QD{depth}", cpu, "us", "CPU")


def allocating(directory, row, what, size, count, *options):
    rate = {format_: [] for format_ in FORMATS}
    for _ in range(3):
        for format_ in FORMATS:
            image = os.path.join(directory, "image")
            create(image, format_, DISK)
            seconds, _ = bench(image, format_, "-w", "-s", str(size), "-c", str(count), *options)
            rate[format_].append(count * size / seconds / (1 << 20))
            os.unlink(image)
    figures(row, what, rate, "MiB/s", "throughput")


def main():
    with tempfile.TemporaryDirectory(dir=measure.BUILD) as directory:
        if measure.wanted("P2"):
            mapped(directory)
        if measure.wanted("P3"):
            scattered = ("-S", str(SCATTER), "-d", "32")
            allocating(directory, "P3", "random 4 KiB QD32, no flush", 4096, 1920, *scattered)
            allocating(directory, "P3", "random 4 KiB QD32, a flush every 32", 4096, 960, *scattered, "--flush-interval", "32")
        if measure.wanted("P7"):
            allocating(directory, "P7", "sequential 64 KiB QD1", 65536, 1000, "-d", "1")
            allocating(directory, "P7", "sequential 64 KiB QD16", 65536, 2000, "-d", "16")


if __name__ == "__main__":
    main()
