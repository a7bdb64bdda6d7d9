#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes the seeds of the fuzz targets, as input.h describes them: the images of malformed.py, and small random ones.

  seeds.py OUTDIR
"""
import os
import random
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "oracle"))
import malformed  # noqa: E402
import random_images  # noqa: E402

BYTES, FILL, REQUEST = range(3)
SECTOR = 512
REPAIR_ALL, SEAL, BREAK_MODE, STACK = 7, 8, 16, 4096
BYTES_MAX = 4096
CLUSTER_SECTORS = 16
UNKNOWN_MAGIC = 0x1122334455667788
RANDOM_IMAGES = 40
# kind, sector, sectors: see fuzz_device.c
REQUESTS = [(0, 0, 3), (0, 15, 2), (5, 0, 0), (1, 18, 1), (2, 0, 16), (4, 32, 32), (0, 40, 8), (6, 30, 32)]


def record(kind, offset, data=b"", value=0, length=0):
    return struct.pack("<BBHQ", kind, value, length or len(data), offset) + data


def records(image):
    """Sectors that hold one byte throughout as runs, others as they are; zeros not at all."""
    at = 0
    while at < len(image):
        sector = image[at:at + SECTOR]
        if sector == sector[:1] * SECTOR:
            end = at
            while image[end:end + SECTOR] == sector and end - at < SECTOR * 0xFFFF:
                end += SECTOR
            if sector[0]:
                yield record(FILL, at, value=sector[0], length=(end - at) // SECTOR)
        else:
            end = at
            while end < len(image) and end - at < BYTES_MAX and image[end:end + SECTOR] != image[end:end + 1] * SECTOR:
                end += SECTOR
            data = image[at:end].rstrip(b"\0")
            if data:
                yield record(BYTES, at, data)
        at = end


def encode(image, options, break_at):
    requests = [record(REQUEST, sector, value=kind, length=sectors) for kind, sector, sectors in REQUESTS]
    return struct.pack("<QII", len(image), options, break_at) + b"".join(records(image)) + b"".join(requests)


def shrink_clusters():
    """The cases with clusters of 8 KiB, as they would be had malformed.py been written so: less to digest for each input."""
    malformed.CLUSTER_SECTORS = CLUSTER_SECTORS
    malformed.EXT_AT = CLUSTER_SECTORS * 5
    malformed.image.__kwdefaults__["cluster"] = CLUSTER_SECTORS
    malformed.extension.__kwdefaults__["step"] = CLUSTER_SECTORS * SECTOR
    malformed.bitmap.__kwdefaults__["size"] = malformed.ENTRIES * CLUSTER_SECTORS


def combined():
    """What takes long to come by through mutations: clusters of a bitmap behind holes, features to be kept beside others, and so on."""
    holes = {0: 4, 1: 2, 1015: 3}
    bitmap = (malformed.BITMAP_MAGIC, 0, malformed.bitmap(l1=(malformed.EXT_AT + CLUSTER_SECTORS,)))
    transit, plain = (UNKNOWN_MAGIC, 2, b"abcd"), (UNKNOWN_MAGIC, 0, b"plain")
    cluster = bytes([0x55]) * (CLUSTER_SECTORS * SECTOR)
    yield "bitmap_cluster", malformed.with_ext(malformed.extension([bitmap]), mapped=holes) + cluster
    yield "bitmap_cluster_transit", malformed.with_ext(malformed.extension([transit, bitmap, plain]), mapped=holes) + cluster
    yield "ext_mixed", malformed.with_ext(malformed.extension([plain, transit, transit]))
    yield "duplicates", malformed.image(mapped={0: 1, 1: 1, 2: 3, 3: 3, 1015: 4, 1016: 4})


def images():
    shrink_clusters()
    yield from combined()
    for name, data, *_ in malformed.cases():
        if isinstance(data, bytes):
            yield name, data
    rng = random.Random(1)
    for number in range(RANDOM_IMAGES):
        data, entries = random_images.valid(rng)
        if number % 2:
            random_images.spoil(rng, data, entries)
        yield "random-%d" % number, bytes(data)


def main(argv):
    os.makedirs(argv[1], exist_ok=True)
    for number, (name, image) in enumerate(images()):
        sealed = name.startswith(("bitmap_", "ext_")) and name not in ("ext_checksum", "ext_past_eof", "ext_overflow")
        with open(os.path.join(argv[1], name), "wb") as out:
            options = REPAIR_ALL | (SEAL if sealed else 0) | number % 4 * BREAK_MODE | (STACK if number % 7 == 6 else 0)
            out.write(encode(image, options, number // 4 % 3 * (number * 0x10003 + 5)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
