#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes random stacks of two to four deltas that fit together: both versions, disks that grow upwards, raw bases of any size.

  random_stacks.py OUTDIR COUNT SEED      OUTDIR/N/LEVEL.hds, or 0.raw; level 0 is the base
"""
import os
import random
import sys

import malformed

SECTOR = 512


def delta(rng, magic, cluster, sectors):
    """An image of a disk of so many sectors; its BAT may cover more, and map clusters there."""
    entries = -(-sectors // cluster) + rng.choice([0, 0, 1, 70])
    host_clusters = rng.randrange(0, min(entries, 24) + 1)
    guests = rng.sample(range(entries), host_clusters)
    if host_clusters and rng.randrange(2):
        guests[0] = -(-sectors // cluster) - 1                 # the last cluster, that the end of the disk may cut
        guests = list(dict.fromkeys(guests))
    hosts = rng.sample(range(1, host_clusters + 1), len(guests))
    data = bytearray(malformed.image(
        magic=magic, cluster=cluster, entries=entries, real_entries=entries, sectors=sectors, host_clusters=host_clusters,
        mapped=dict(zip(guests, hosts)), in_use=rng.choice([0, malformed.CLOSED])))
    area = host_clusters * cluster * SECTOR
    if area:
        data[-area:] = rng.randbytes(area)
    return data


def write_stack(rng, folder):
    """The names of its files, the base first."""
    os.makedirs(folder)
    magic, cluster = rng.choice([malformed.MAGIC_V1, malformed.MAGIC_V2]), rng.choice([1, 2, 8, 63, 128])
    count = rng.randrange(2, 5)
    sizes = sorted(rng.randrange(1, 40 * cluster + 2000) for _ in range(count))
    if rng.randrange(3) == 0:
        sizes = sizes[-1:] * count
    paths = []
    for level, sectors in enumerate(sizes):
        if level == 0 and rng.randrange(2):
            path, data = "0.raw", rng.randbytes(rng.randrange(0, (sizes[-1] + 3) * SECTOR))
        else:
            path, data = "%d.hds" % level, delta(rng, magic, cluster, sectors)
        paths.append(os.path.join(folder, path))
        with open(paths[-1], "wb") as file:
            file.write(data)
    return paths


def main(argv):
    out, count, seed = argv[1], int(argv[2]), int(argv[3])
    for number in range(count):
        write_stack(random.Random(seed * 1000003 + number), os.path.join(out, str(number)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
