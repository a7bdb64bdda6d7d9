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
    unit = 1 if magic == malformed.MAGIC_V1 else cluster
    data_off = -(-(64 + 4 * entries) // (512 * unit)) * unit
    sectors = entries * cluster - rng.choice([0, 0, 1, cluster // 2])
    kw = dict(magic=magic, cluster=cluster, entries=entries, real_entries=entries, mapped=mapped, host_clusters=host_clusters,
              sectors=sectors, in_use=rng.choice([0, malformed.CLOSED, malformed.IN_USE]))
    if rng.randrange(3) == 0:
        kw.update(in_use=malformed.CLOSED, ext_off=data_off + host_clusters * cluster,
                  ext=extension(rng, sectors, cluster, lambda: data_off + rng.randrange(host_clusters + 2) * cluster))
    return bytearray(malformed.image(**kw)), entries


def extension(rng, sectors, cluster, place):
    """An extension of some features; its bitmaps' clusters are anywhere."""
    features = []
    for _ in range(rng.randrange(4)):
        if rng.randrange(2):
            features.append((rng.choice([5, 6]), rng.randrange(3), b"abcd"))
            continue
        l1 = [rng.choice([0, 1, place(), place(), rng.choice([2, place() + 1, 1 << 55, (1 << 64) - 1])])]
        features.append((malformed.BITMAP_MAGIC, 0, malformed.bitmap(
            size=rng.choice([sectors, sectors, sectors, 7]), granularity=rng.choice([128, 1024, 1024, 1024, 0, 3]), l1=l1)))
    return malformed.extension(features, step=cluster * 512)


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


def store(path, data, holes):
    """With `holes` every block of zeros is one, unless the file system has larger blocks."""
    block = 4096
    with open(path, "wb") as file:
        for at in range(0, len(data), block):
            piece = data[at:at + block]
            if not holes or any(piece):
                file.seek(at)
                file.write(piece)
        file.truncate(len(data))


def main(argv):
    out, count, seed = argv[1], int(argv[2]), int(argv[3])
    os.makedirs(out, exist_ok=True)
    for number in range(count):
        rng = random.Random(seed * 1000003 + number)
        data, entries = valid(rng)
        spoil(rng, data, entries)
        store(os.path.join(out, "random-%d.hds" % number), data, rng.randrange(2))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
