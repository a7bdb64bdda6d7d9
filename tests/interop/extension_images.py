#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Images with a format extension, and what an image's extension holds.

  extension_images.py write IMAGE LETTERS    a good image whose extension has these features, in this order
  extension_images.py list IMAGE             in_use as none, mark or closed, and the letters that ext_off leads to

b is a dirty bitmap with a cluster of bits, p an unknown plain feature, t an unknown TRANSIT one.
"""
import hashlib
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "oracle"))
import malformed  # noqa: E402

FEATURES = {
    "b": (malformed.BITMAP_MAGIC, 0, malformed.bitmap(l1=(malformed.EXT_AT + malformed.CLUSTER_SECTORS,))),
    "p": (0x1122334455667788, 0, b"plain"),
    "t": (0x1122334455667799, 2, b"kept as it is"),
}
MARKS = {0: "none", malformed.IN_USE: "mark", malformed.CLOSED: "closed"}


def write(path, letters):
    with open(path, "wb") as file:
        file.write(malformed.with_ext(malformed.extension([FEATURES[letter] for letter in letters])))
        if "b" in letters:
            file.write(bytes([0x0F]) * malformed.CLUSTER_SECTORS * 512)


def features(path):
    with open(path, "rb") as file:
        header = file.read(64)
        in_use, tracks, sector = (struct.unpack_from(form, header, at)[0] for form, at in (("<I", 44), ("<I", 28), ("<Q", 56)))
        yield MARKS[in_use] + " "
        if not sector:
            return
        file.seek(sector * 512)
        area = file.read(tracks * 512)
    magic, digest = struct.unpack_from("<Q16s", area)
    if magic != malformed.EXT_MAGIC or digest != hashlib.md5(area[24:]).digest():
        sys.exit("%s: ext_off leads to something else" % path)
    at = 24
    while True:
        magic, flags, size, _ = struct.unpack_from("<QQII", area, at)
        if magic == 0:
            return
        found = (magic, flags, area[at + 24:at + 24 + size])
        yield next((letter for letter, feature in FEATURES.items() if feature == found), "?")
        at += 24 + -(-size // 8) * 8


def main(argv):
    if len(argv) == 4 and argv[1] == "write":
        write(argv[2], argv[3])
    elif len(argv) == 3 and argv[1] == "list":
        print("".join(features(argv[2])).rstrip())
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv)
