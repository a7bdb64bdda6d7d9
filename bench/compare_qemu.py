#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""What reaches the file, for the same writes: this library (nbdkit and its plugin) and QEMU's parallels driver (qemu-nbd).

  compare_qemu.py BUILD_DIR [WRITES]

Both serve a new image of 16 GiB with 1 MiB clusters over NBD, under strace, to the same client: random writes of 4 KiB, 32 in
flight, without a flush and with one every 32 (sent when the 32 are done). Counted from the first write to the client's end, per run:
writes to the map's part of the file, their bytes, and SYNCs. Times mean nothing here.
"""
import os
import random
import re
import subprocess
import sys
import tempfile
import time

import nbd

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
    metadata = metadata_bytes = data_bytes = syncs = space = 0
    with open(trace) as lines:
        for line in lines:
            match = PWRITE.search(line) or PWRITEV.search(line)
            if match:
                length, offset = match.groups()
                length = int(length) if length.isdigit() else sum(int(n) for n in re.findall(r"iov_len=(\d+)", length))
                if int(offset) < CLUSTER:
                    metadata, metadata_bytes = metadata + 1, metadata_bytes + length
                else:
                    data_bytes += length
            elif re.search(r"f(data)?sync\(", line):
                syncs += 1
            elif re.search(r"(fallocate|ftruncate)\(", line):
                space += 1
    return metadata, metadata_bytes, data_bytes, syncs, space


def run(name, server, image, writes, flush_every, directory):
    socket, trace = os.path.join(directory, "s"), os.path.join(directory, "trace")
    for path in (socket, trace):
        if os.path.exists(path):
            os.unlink(path)
    process = subprocess.Popen(["strace", "-f", "-v", "-s", "0", "-e", CALLS, "-e", "signal=none", "-o", trace] + server(socket, image),
                               stdout=subprocess.DEVNULL)
    client(socket, writes, flush_every)
    # Writes of the close are not counted: the trace is read before the server ends.
    time.sleep(0.5)
    metadata, metadata_bytes, data_bytes, syncs, space = count(trace)
    subprocess.run(["pkill", "-TERM", "-P", str(process.pid)], check=False)
    process.wait()
    thousands = writes / 1000
    print("%-16s %-16s %12.1f %14.3f %8.1f %8.1f" % (
        "flush every %d" % flush_every if flush_every else "no flush", name, metadata / thousands,
        metadata_bytes / max(data_bytes, 1), syncs / thousands, space / thousands), flush=True)


def main():
    build = sys.argv[1]
    writes = int(sys.argv[2]) if len(sys.argv) > 2 else 10000
    tool, plugin = os.path.join(build, "tools/ploopctl"), os.path.join(build, "tools/nbdkit-ploop-plugin.so")

    def ours(socket, image):
        return ["nbdkit", "-f", "-U", socket, plugin, "image=" + image]

    def qemu(socket, image):
        return ["qemu-nbd", "-k", socket, "-f", "parallels", "--cache=none", "--aio=threads", image]

    print("per 1,000 writes: metadata writes, metadata bytes per data byte, SYNCs, changes of the file's size or space")
    print("%-16s %-16s %12s %14s %8s %8s" % ("# workload", "server", "meta writes", "bytes/byte", "syncs", "space"))
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        for flush_every in (0, IN_FLIGHT):
            for name, server in (("libploop", ours), ("qemu parallels", qemu)):
                image = os.path.join(directory, "image.hds")
                if os.path.exists(image):
                    os.unlink(image)
                subprocess.run([tool, "create", "--size", "16G", image], check=True, stdout=subprocess.DEVNULL)
                run(name, server, image, writes, flush_every, directory)


if __name__ == "__main__":
    main()
