#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes bundles as other software is known to write them, and a table of what each must get.

  bundles.py OUTDIR   writes OUTDIR/<name>/ and OUTDIR/bundles.tsv: the name, whether it opens (ok, or the errno's name), how many
                      snapshots and storages it has, and the source of the facts

Facts only: which elements there are, in which order, with which kinds of values; names of files. Sources, all public:
  prl-xml   QEMU's docs/interop/prl-xml: the elements that there must be; Padding is 0, and 1 in disks of Parallels Desktop and Parallels
            Cloud Server that nobody else should open; the root may be plain; without TopGUID the top has the usual GUID
  ploop     OpenVZ's ploop, lib/xml.c: Max_delta_size and Sectors are computed, TopGUID and Temporary; since OpenVZ 7 an Encryption
            that has a KeyId only; the snapshot's file is the root's name with the GUID behind it
  coreos    CoreOS's and EVE's image scripts for Parallels Desktop: an Encryption whose Engine is zero, UID, Name, Miscellaneous with
            CompatLevel, Bootable and SuspendState; PhysicalSectorSize 512
  desktop   scripts that make disks for Parallels Desktop 17 and later: LogicSectorSize, PhysicalSectorSize 4096, a Salt, an empty file
            with the bundle's name; version 1
  libphdi   libphdi's documentation and dissect.hypervisor: disks that are split; storages in any order
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "oracle"))
from malformed import MAGIC_V1, MAGIC_V2, image  # noqa: E402

TOP = "{5fbaabe3-6958-40ff-92a7-860e329aab41}"
ROOT, MIDDLE = "{3a2dca6b-0d5c-4a4f-b3d0-4f9b6a9c1b11}", "{9f5f3a1c-7d55-44f5-93ad-30bd2c6c9a22}"
ZERO = "{00000000-0000-0000-0000-000000000000}"
CLUSTER = 128
NO_ENGINE = "<Encryption><Engine>%s</Engine><Data></Data>%%s</Encryption>" % ZERO


def hds(sectors, magic=MAGIC_V2, mapped=None):
    entries = -(-sectors // CLUSTER)
    mapped = mapped or {}
    return image(magic=magic, cluster=CLUSTER, entries=entries, real_entries=entries, mapped=mapped, host_clusters=len(mapped),
                 sectors=sectors)


def xml(sectors, storages, shots, more="", head="", top=""):
    def one(start, end, images):
        listed = "".join("<Image><GUID>%s</GUID><Type>%s</Type><File>%s</File></Image>" % each for each in images)
        return "<Storage><Start>%d</Start><End>%d</End><Blocksize>%d</Blocksize>%s</Storage>" % (start, end, CLUSTER, listed)

    return ("<?xml version='1.0' encoding='UTF-8'?>\n<Parallels_disk_image Version=\"1.0\">\n<Disk_Parameters><Disk_size>%d</Disk_size>"
            "<Cylinders>%d</Cylinders>%s<Heads>16</Heads><Sectors>32</Sectors><Padding>0</Padding>%s</Disk_Parameters>\n"
            "<StorageData>%s</StorageData>\n<Snapshots>%s%s</Snapshots></Parallels_disk_image>\n") % (
                sectors, sectors // 512, head, more, "".join(one(*each) for each in storages), top,
                "".join("<Shot><GUID>%s</GUID><ParentGUID>%s</ParentGUID>%s</Shot>" % each for each in shots))


def single(name, text="", **more):
    files = {"root.hds": hds(4096, mapped={0: 1})}
    return name, xml(4096, [(0, 4096, [(TOP, "Compressed", "root.hds")])], [(TOP, ZERO, text)], **more), files


def openvz():
    yield single("openvz_init", top="<TopGUID>%s</TopGUID>" % TOP) + ("ok", 1, 1, "ploop: what ploop init writes")
    yield single("openvz_no_top") + ("ok", 1, 1, "prl-xml: TopGUID may be missing")
    yield single("openvz7_encrypted", more="<Encryption><KeyId>0123-4567</KeyId></Encryption>") + (
        "ENOTSUP", 0, 0, "ploop: a KeyId: what is in the image is encrypted by the device mapper")
    names = {ROOT: "root.hds", MIDDLE: "root.hds." + MIDDLE, TOP: "root.hds." + TOP}
    text = xml(4096, [(0, 4096, [(guid, "Compressed", name) for guid, name in names.items()])],
               [(ROOT, ZERO, ""), (MIDDLE, ROOT, "<Temporary/>"), (TOP, MIDDLE, "")], top="<TopGUID>%s</TopGUID>" % TOP)
    yield "openvz_snapshots", text, {name: hds(4096) for name in names.values()}, "ok", 3, 1, "ploop: a temporary snapshot"
    odd = "{c0ffee00-0000-4000-8000-000000000001}"
    text = xml(4096, [(0, 4096, [(ROOT, "Compressed", "root.hds"), (odd, "Compressed", "delta")])], [(ROOT, ZERO, ""), (odd, ROOT, "")],
               top="<TopGUID>%s</TopGUID>" % odd)
    yield "openvz_other_top", text, {"root.hds": hds(4096), "delta": hds(4096)}, "ok", 2, 1, "ploop: TopGUID names the top"


def desktop():
    own = "disk.hdd.0.%s.hds" % TOP
    misc = NO_ENGINE % "" + "<UID>%s</UID><Name>eve</Name><Miscellaneous><CompatLevel>level2</CompatLevel><Bootable>1</Bootable>" \
        "<SuspendState>0</SuspendState></Miscellaneous>" % ROOT
    text = xml(4096, [(0, 4096, [(TOP, "Compressed", own)])], [(TOP, ZERO, "")], misc, "<PhysicalSectorSize>512</PhysicalSectorSize>")
    files = {own: hds(4096, MAGIC_V1, {3: 1}), "disk.hdd": b""}
    yield "desktop_level2", text, files, "ok", 1, 1, "coreos"
    text = xml(4096, [(0, 4096, [(TOP, "Compressed", own)])], [(TOP, ZERO, "")], NO_ENGINE % "<Salt></Salt>",
               "<PhysicalSectorSize>4096</PhysicalSectorSize><LogicSectorSize>512</LogicSectorSize>")
    yield "desktop_4k", text, files, "ok", 1, 1, "desktop: sectors of 4096 bytes, which the guest is told"
    plain = xml(4096, [(0, 4096, [(TOP, "Plain", own)])], [(TOP, ZERO, "")], NO_ENGINE % "")
    yield "desktop_plain", plain, {own: bytes(4096 * 512)}, "ok", 1, 1, "prl-xml: a plain root"
    yield "desktop_padding", text.replace("<Padding>0", "<Padding>1"), files, "ENOTSUP", 0, 0, "prl-xml: Padding 1"
    locked = text.replace("<Engine>" + ZERO, "<Engine>" + MIDDLE)
    yield "desktop_encrypted", locked, files, "ENOTSUP", 0, 0, "coreos: an Engine that is not zero"
    names = ["disk.hdd.%d.%s.hds" % (number, TOP) for number in range(3)]
    parts = [(0, 1500, [(TOP, "Compressed", names[0])]), (1500, 3000, [(TOP, "Plain", names[1])]),
             (3000, 4096, [(TOP, "Compressed", names[2])])]
    files = {names[0]: hds(1500, MAGIC_V1, {0: 1}), names[1]: bytes(1500 * 512), names[2]: hds(1096, MAGIC_V1)}
    yield "desktop_split", xml(4096, parts, [(TOP, ZERO, "")], NO_ENGINE % ""), files, "ok", 1, 3, "libphdi: a split disk"
    yield "desktop_split_unsorted", xml(4096, parts[::-1], [(TOP, ZERO, "")], NO_ENGINE % ""), files, "ok", 1, 3, \
        "libphdi: storages in any order"


def main(argv):
    if len(argv) != 2:
        print(__doc__)
        return 1
    os.makedirs(argv[1], exist_ok=True)
    with open(os.path.join(argv[1], "bundles.tsv"), "w", encoding="utf-8") as table:
        for group in (openvz, desktop):
            for name, text, files, result, snapshots, storages, source in group():
                directory = os.path.join(argv[1], name)
                os.makedirs(directory)
                with open(os.path.join(directory, "DiskDescriptor.xml"), "w", encoding="utf-8") as out:
                    out.write(text)
                for file_name, data in files.items():
                    with open(os.path.join(directory, file_name), "wb") as out:
                        out.write(data)
                table.write("\t".join([name, result, str(snapshots), str(storages), source]) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
