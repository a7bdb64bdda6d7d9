#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes random images, valid ones and ones with a few random fields, entries and sizes spoiled.

  random_images.py OUTDIR COUNT SEED
"""
import os
import random
import struct
import sys

import malformed

FIELDS = [(16, "<I"), (28, "<I"), (32, "<I"), (36, "<Q"), (44, "<I"), (48, "<I"), (52, "<I"), (56, "<Q")]


def valid(rng):
    magic = rng.choice([malformed.MAGIC_V1, malformed.MAGIC_V2])
    cluster = rng.choice([1, 2, 8, 63, 128])
    entries = rng.choice([1, 5, 1008, 1009, 3000])
    host_clusters = rng.randrange(0, 12)
    guests = rng.sample(range(entries), min(entries, rng.randrange(0, host_clusters + 1)))
    hosts = rng.sample(range(1, host_clusters + 1), len(guests))
    mapped = dict(zip(guests, hosts))
    return bytearray(malformed.image(
        magic=magic, cluster=cluster, entries=entries, real_entries=entries, mapped=mapped, host_clusters=host_clusters,
        sectors=entries * cluster - rng.choice([0, 0, 1, cluster // 2]), in_use=rng.choice([0, malformed.CLOSED, malformed.IN_USE]))), entries


def spoil(rng, data, entries):
    for _ in range(rng.randrange(0, 3)):
        kind = rng.randrange(4)
        if kind == 0:
            offset, form = rng.choice(FIELDS)
            old, = struct.unpack_from(form, data, offset)
            new = rng.choice([0, 1, old + 1, old - 1, old * 2, 0xFFFFFFFF, 128])
            struct.pack_into(form, data, offset, new % (1 << 8 * struct.calcsize(form)))
        elif kind == 1:
            index = rng.randrange(entries)
            other, = struct.unpack_from("<I", data, 64 + 4 * rng.randrange(entries))
            struct.pack_into("<I", data, 64 + 4 * index, rng.choice([other, other + 1, rng.randrange(1 << 32), rng.randrange(4000)]) % (1 << 32))
        elif kind == 2:
            del data[max(0, len(data) - rng.randrange(1, 70000)):]
        else:
            data += bytes(rng.randrange(1, 3000))
        if len(data) < 64 + 4 * entries:
            return


def main(argv):
    out, count, seed = argv[1], int(argv[2]), int(argv[3])
    os.makedirs(out, exist_ok=True)
    for number in range(count):
        rng = random.Random(seed * 1000003 + number)
        data, entries = valid(rng)
        spoil(rng, data, entries)
        with open(os.path.join(out, "random-%d.hds" % number), "wb") as file:
            file.write(data)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
