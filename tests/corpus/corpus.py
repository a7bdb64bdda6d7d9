#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes images as other software is known to write them, and a table of what each must get, as oracle/malformed.py does.

  corpus.py OUTDIR    writes OUTDIR/<name>.hds and OUTDIR/cases.tsv; the last column names the source of the facts

Facts only: geometry, the in-use field, data_off, entries and sizes. Sources, all public:
  QEMU     block/parallels.c: create (version 2, 16 heads, data_off in whole clusters, in_use 0, flags 0), open for writing (the mark),
           close (0, and the file cut behind the last cluster that was allocated), space allocated ahead of need
  interop  QEMU's docs/interop/parallels.txt: clusters of 63 sectors, 252 and 256 KiB and 1 MiB; the values of in_use; data_off 0 or
           aligned to a sector in version 1, and recommended to be aligned to the cluster
  ploop1   OpenVZ's ploop1_image.h: a file that is no multiple of the cluster ends in an extension that was cut off
  vbox     VirtualBox's ParallelsHDDCore.cpp: version 1 whose header is zeros behind the disk's size
  libphdi  libphdi's documentation of the format: "pd17" and "pd22" in the field that others use for the mark
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "oracle"))
from malformed import CLOSED, IN_USE, MAGIC_V1, MAGIC_V2, image  # noqa: E402

PD17, PD22 = 0x37316470, 0x32326470


def build(magic, cluster, entries, mapped, **more):
    return image(magic=magic, cluster=cluster, entries=entries, real_entries=entries, mapped=mapped, host_clusters=len(mapped), **more)


def qemu():
    """Fresh; written and closed; killed while open for writing, with 4 clusters of space ahead."""
    for cluster in (8, 128, 504, 512, 1024, 2048):
        for entries, cut in ((1, 0), (40, 0), (1100, 3)):
            sectors = entries * cluster - cut
            name = "qemu_%d_%d" % (cluster, entries)
            mapped = {0: 1} if entries == 1 else {3: 1, 0: 2, entries - 1: 3}
            yield name + "_closed", build(MAGIC_V2, cluster, entries, mapped, sectors=sectors), "ok", "ok", 0, "QEMU: close"
            if 64 + 4 * entries > cluster * 512:
                continue        # of an empty image QEMU 7.2 takes all but the BAT's first cluster for leaked
            yield name + "_fresh", build(MAGIC_V2, cluster, entries, {}, sectors=sectors), "ok", "ok", 0, "QEMU: create"
        killed = build(MAGIC_V2, cluster, 40, {3: 1, 0: 2}, in_use=IN_USE) + bytes(4 * cluster * 512)
        yield "qemu_%d_killed" % cluster, killed, "ok", "reject", 2, "QEMU: open, space ahead"


def interop():
    for cluster in (63, 504, 512, 2048):
        for word, value, write, check in (("0", 0, "ok", 0), ("closed", CLOSED, "ok", 0), ("mark", IN_USE, "reject", 2)):
            name = "interop_v1_%d_%s" % (cluster, word)
            yield name, build(MAGIC_V1, cluster, 50, {0: 2, 7: 1, 49: 3}, in_use=value), "ok", write, check, "interop: in_use"
            yield name + "_computed", build(MAGIC_V1, cluster, 50, {0: 2, 7: 1, 49: 3}, in_use=value, data_off=0), \
                "ok", write, check, "interop: data_off 0"
        aligned = build(MAGIC_V1, cluster, 50, {0: 1, 9: 2}, real_data=cluster)
        yield "interop_v1_%d_aligned" % cluster, aligned, "ok", "ok", 0, "interop: data_off on a cluster border"


def others():
    for magic, version in ((MAGIC_V1, 1), (MAGIC_V2, 2)):
        for word, value in (("pd17", PD17), ("pd22", PD22)):
            yield "libphdi_v%d_%s" % (version, word), build(magic, 2048, 20, {0: 1, 5: 2}, in_use=value), "ok", "ok", 0, "libphdi"
        whole = build(magic, 2048, 20, {0: 1, 5: 2})
        yield "ploop1_v%d_tail" % version, whole + b"\xA5" * 70000, "ok", "ok", 3, "ploop1: an extension cut off"
        yield "ploop1_v%d_mark_tail" % version, build(magic, 2048, 20, {0: 1, 5: 2}, in_use=IN_USE) + b"\xA5" * 70000, \
            "ok", "reject", 2, "ploop1: the same, in use"
    for cluster in (63, 504):
        yield "vbox_%d" % cluster, build(MAGIC_V1, cluster, 33, {0: 1, 32: 2}, data_off=0), "ok", "ok", 0, "vbox"


def main(argv):
    if len(argv) != 2:
        print(__doc__)
        return 1
    os.makedirs(argv[1], exist_ok=True)
    with open(os.path.join(argv[1], "cases.tsv"), "w", encoding="utf-8") as table:
        for group in (qemu, interop, others):
            for name, data, read_only, read_write, check, source in group():
                with open(os.path.join(argv[1], name + ".hds"), "wb") as out:
                    out.write(data)
                table.write("\t".join([name, read_only, read_write, str(check), source]) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
