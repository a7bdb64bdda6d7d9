#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""P4 and P6 over NBD: what reaches the file for the same writes, served by this library (nbdkit and its plugin) and by QEMU's parallels
and qcow2 drivers (qemu-nbd).

Each serves a new image of 16 GiB with 1 MiB clusters under strace to the same client: random writes of 4 KiB, 32 in flight, with a
flush every 32 (sent when the 32 are done). Counted from the first write to the client's end: bytes written to the map's part of the
file, and SYNCs. Afterwards the blocks of the file; raw is a sparse file served by nbdkit's file plugin. Times mean nothing here.

It is started as a program of the system's Python, which has libnbd.
"""
import os
import random
import re
import subprocess
import sys
import tempfile
import time

# This folder comes last: a measurer in it may be named as a module is that others import.
sys.path.append(sys.path.pop(0))
import nbd  # noqa: E402

import measure  # noqa: E402

WRITES = 1920
BLOCK, DISK, CLUSTER, IN_FLIGHT = 4096, 16 << 30, 1 << 20, 32
CALLS = "trace=pwrite64,pwritev,pwritev2,fdatasync,fsync,fallocate,ftruncate"
# A call's arguments are in the line that begins it, whether the call ends there or is resumed in another.
PWRITE = re.compile(r'pwrite64\(\d+, .*?, (\d+), (\d+)(?:\)| <unf)')
PWRITEV = re.compile(r"pwritev2?\(\d+, (.*), \d+, (\d+)(?:, [\w|]+)?(?:\)| <unf)")


def client(socket, writes, flush_every):
    handle = nbd.NBD()
    for _ in range(100):
        try:
            handle.connect_unix(socket)
            break
        except nbd.Error:
            handle = nbd.NBD()
            time.sleep(0.05)
    rng = random.Random(1)
    buffer = nbd.Buffer.from_bytearray(bytearray(b"\x5a" * BLOCK))
    in_flight = 0
    failed = []

    def done(error):
        nonlocal in_flight
        in_flight -= 1
        if error.value:
            failed.append(error.value)
        return 1

    for number in range(writes):
        while in_flight >= IN_FLIGHT:
            handle.poll(-1)
        in_flight += 1
        handle.aio_pwrite(buffer, rng.randrange(DISK // BLOCK) * BLOCK, completion=done)
        if flush_every and (number + 1) % flush_every == 0:
            while in_flight:
                handle.poll(-1)
            handle.flush()
    while in_flight:
        handle.poll(-1)
    if failed:
        sys.exit("a write failed: errno %d" % failed[0])
    handle.shutdown()


def count(trace):
    metadata_bytes = data_bytes = syncs = 0
    with open(trace) as lines:
        for line in lines:
            match = PWRITE.search(line) or PWRITEV.search(line)
            if match:
                length, offset = match.groups()
                length = int(length) if length.isdigit() else sum(int(n) for n in re.findall(r"iov_len=(\d+)", length))
                if int(offset) < CLUSTER:
                    metadata_bytes += length
                else:
                    data_bytes += length
            elif re.search(r"f(data)?sync\(", line):
                syncs += 1
    return metadata_bytes, data_bytes, syncs


def run(server, image, directory):
    """Metadata bytes per data byte, SYNCs per flush, and MiB of blocks."""
    socket, trace = os.path.join(directory, "s"), os.path.join(directory, "trace")
    for path in (socket, trace):
        if os.path.exists(path):
            os.unlink(path)
    command = ["strace", "-f", "-v", "-s", "0", "-e", CALLS, "-e", "signal=none", "-o", trace, *server(socket, image)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    client(socket, WRITES, IN_FLIGHT)
    # Writes of the close are not counted: the trace is read before the server ends.
    time.sleep(0.5)
    metadata_bytes, data_bytes, syncs = count(trace)
    subprocess.run(["pkill", "-TERM", "-P", str(process.pid)], check=False)
    process.wait()
    return metadata_bytes / max(data_bytes, 1), syncs * IN_FLIGHT / WRITES, os.stat(image).st_blocks / 2048


def nbdkit(*plugin):
    return lambda socket, image: ["nbdkit", "-f", "-U", socket, *plugin, image if plugin == ("file",) else "image=" + image]


def qemu_nbd(format_):
    return lambda socket, image: ["qemu-nbd", "-k", socket, "-f", format_, "--cache=none", "--aio=threads", image]


def qemu_img(format_, *options):
    return lambda image: ["qemu-img", "create", "-q", "-f", format_, *options, image, "16G"]


def main():
    plugin = os.path.join(measure.BUILD, "tools/nbdkit-ploop-plugin.so")
    servers = {
        "ours": (nbdkit(plugin), lambda image: [os.path.join(measure.BUILD, "tools/ploopctl"), "create", "--size", "16G", image]),
        "raw": (nbdkit("file"), qemu_img("raw")),
        "QEMU parallels": (qemu_nbd("parallels"), qemu_img("parallels", "-o", "cluster_size=1M")),
        "QEMU qcow2": (qemu_nbd("qcow2"), qemu_img("qcow2", "-o", "cluster_size=1M")),
    }
    found = {}
    with tempfile.TemporaryDirectory(dir=measure.BUILD) as directory:
        for name, (server, create) in servers.items():
            image = os.path.join(directory, "image")
            subprocess.run(create(image), check=True, stdout=subprocess.DEVNULL)
            found[name] = run(server, image, directory)
            os.unlink(image)
    ours = found["ours"]
    peer = found["QEMU parallels"]
    if measure.wanted("P4"):
        measure.figure("P4", "metadata bytes per data byte, served; peer: QEMU parallels", ours[0], peer[0], "bytes per byte")
        measure.figure("P4", "syncs per flush, served; peer: QEMU parallels", ours[1], peer[1], "syncs")
    if measure.wanted("P6"):
        for name in ("raw", "QEMU parallels", "QEMU qcow2"):
            measure.figure("P6", f"blocks of {WRITES:,} random 4 KiB writes; peer: {name}", ours[2], found[name][2], "MiB")


if __name__ == "__main__":
    main()
