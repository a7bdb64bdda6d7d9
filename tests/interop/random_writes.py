#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A random session of writes for qemu-io, and the disk it must leave.

  random_writes.py SIZE CLUSTER SEED SCRIPT RAW [--aio]

SCRIPT gets qemu-io commands, RAW the expected content. Offsets and lengths prefer the borders of clusters, and places that
were written before. With --aio the writes between two "aio_flush" are in flight together; they never overlap.
"""
import random
import sys

SECTOR = 512


def extent(r, size, cluster, written):
    """An offset and a length in whole sectors, within the disk."""
    kind = r.randrange(4)
    if kind == 0:
        offset = r.randrange(size // SECTOR) * SECTOR
    elif kind == 1 and written:
        offset = r.choice(written)
    else:
        offset = r.randrange(-(-size // cluster)) * cluster + r.choice([-SECTOR, 0, 0, SECTOR])
    length = r.choice([SECTOR, 3 * SECTOR, 8 * SECTOR, cluster - SECTOR, cluster, cluster, cluster + SECTOR, 3 * cluster])
    offset = min(max(offset, 0), size - SECTOR)
    return offset, max(min(length, size - offset, 1 << 20), SECTOR)


def main(argv):
    size, cluster, seed = map(int, argv[1:4])
    aio = argv[6:] == ["--aio"]
    r = random.Random(seed)
    disk, written, in_flight, script = bytearray(size), [], [], []
    for _ in range(r.randrange(50, 200)):
        offset, length = extent(r, size, cluster, written)
        pattern = r.randrange(1, 256)
        if aio and (r.randrange(12) == 0 or any(offset < end and start < offset + length for start, end in in_flight)):
            script.append("aio_flush")
            in_flight = []
        kind = r.randrange(20)
        if kind == 0:
            script.append("flush")
        elif kind <= 2:
            script.append("%swrite -z %d %d" % ("aio_" if aio else "", offset, length))
            pattern = 0
        else:
            fua = "-f " if not aio and r.randrange(8) == 0 else ""
            script.append("%swrite %s-P %d %d %d" % ("aio_" if aio else "", fua, pattern, offset, length))
        if kind:
            disk[offset:offset + length] = bytes([pattern]) * length
            written.append(offset)
            in_flight.append((offset, offset + length))
        if not aio and r.randrange(6) == 0:
            # qemu-io itself reads the data back at once, as far as it is one pattern.
            script.append("read -P %d %d %d" % (disk[offset], offset, SECTOR))
    if aio:
        script.append("aio_flush")
    with open(argv[4], "w", encoding="ascii") as file:
        file.write("\n".join(script) + "\nquit\n")
    with open(argv[5], "wb") as file:
        file.write(disk)


if __name__ == "__main__":
    main(sys.argv)
