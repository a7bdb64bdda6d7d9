#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes the seeds of fuzz_bundle, and its dictionary: texts of DiskDescriptor.xml in the forms that programs write.

  bundle_seeds.py OUTDIR DICTIONARY

What the forms are made from: QEMU's docs/interop/prl-xml (elements, GUIDs, TopGUID), libphdi's documentation of the format (what Parallels
Desktop adds, split disks), and what OpenVZ's ploop 1.15 was seen to write (no Version, TopGUID always).
"""
import os
import sys

TOP = "{5fbaabe3-6958-40ff-92a7-860e329aab41}"
BACKUP = "{704718e1-2314-44c8-9087-d78ed36b0f4e}"
NONE = "{00000000-0000-0000-0000-000000000000}"
A, B = "{aaaaaaaa-0000-4000-8000-000000000001}", "{BBBBBBBB-0000-4000-8000-000000000002}"
DESKTOP = (f"<PhysicalSectorSize>4096</PhysicalSectorSize><LogicSectorSize>512</LogicSectorSize><Encryption><Engine>{NONE}</Engine>"
           f"<Data></Data><Salt></Salt></Encryption><UID>{A}</UID><Name>disk &amp; more</Name><Miscellaneous><CompatLevel>level2"
           "</CompatLevel><Bootable>1</Bootable></Miscellaneous>")


def image(guid, file, kind="Compressed"):
    return f"<Image><GUID>{guid}</GUID><Type>{kind}</Type><File>{file}</File></Image>"


def storage(start, end, *images, block=128):
    return f"<Storage><Start>{start}</Start><End>{end}</End><Blocksize>{block}</Blocksize>{''.join(images)}</Storage>"


def bundle(size, storages, shots, top="", more="", head="<?xml version='1.0' encoding='UTF-8'?>\n", version=' Version="1.0"'):
    shots = "".join(f"<Shot><GUID>{guid}</GUID><ParentGUID>{parent}</ParentGUID></Shot>" for guid, parent in shots)
    top = f"<TopGUID>{top}</TopGUID>" if top else ""
    return (f"{head}<Parallels_disk_image{version}><Disk_Parameters><Disk_size>{size}</Disk_size><Cylinders>2</Cylinders><Heads>16</Heads>"
            f"<Sectors>32</Sectors><Padding>0</Padding>{more}</Disk_Parameters><StorageData>{''.join(storages)}</StorageData>"
            f"<Snapshots>{top}{shots}</Snapshots></Parallels_disk_image>\n")


ONE = [storage(0, 1024, image(TOP, "root.hds"))]
TREE = [storage(0, 1024, image(A, "a"), image(TOP, "top"), image(B, "b"))]
TREE_SHOTS = [(A, NONE), (B, A), (TOP, A)]
SPLIT = [storage(512, 1024, image(TOP, "d.1.hds")), storage(0, 512, image(TOP, "d.0.hds"), block=63)]

SEEDS = {
    "openvz": bundle(1024, ONE, [(TOP, NONE)], TOP, version="", head="<?xml version=\"1.0\"?>\n"),
    "desktop": bundle(1024, ONE, [(TOP, NONE)], more=DESKTOP),
    "tree": bundle(1024, TREE, TREE_SHOTS),
    "named_top": bundle(1024, TREE, [(A, NONE), (TOP, A), (B, TOP)], B),
    "backup": bundle(1024, [storage(0, 1024, image(BACKUP, "k"), image(TOP, "t"))], [(BACKUP, NONE), (TOP, BACKUP)]),
    "split": bundle(1024, SPLIT, [(TOP, NONE)]),
    "plain": bundle(1024, [storage(0, 1024, image(A, "raw", "Plain"), image(TOP, "t"))], [(A, NONE), (TOP, A)]),
    "lone": bundle(1024, [storage(0, 1024, image(A, "raw", "Plain"))], [(A, NONE)]),
    "cycle": bundle(1024, TREE, [(A, NONE), (B, B), (TOP, A)]),
    "two_roots": bundle(1024, TREE, [(A, NONE), (B, NONE), (TOP, A)]),
    "outside": bundle(1024, [storage(0, 1024, image(TOP, "../x"))], [(TOP, NONE)]),
    "gap": bundle(1024, [storage(0, 500, image(TOP, "x")), storage(501, 1024, image(TOP, "y"))], [(TOP, NONE)]),
    "encrypted": bundle(1024, ONE, [(TOP, NONE)], more=DESKTOP.replace(NONE, A)),
    "entities": bundle(1024, ONE, [(TOP, NONE)], head='<!DOCTYPE x [<!ENTITY e "v"><!ENTITY f SYSTEM "file:///dev/null">]>\n'),
    "comments": bundle(1024, ONE, [(TOP, NONE)], more="<!-- c --><?p i?><![CDATA[ <x> ]]>"),
    "latin1": bundle(1024, [storage(0, 1024, image(TOP, "\xe9.hds"))], [(TOP, NONE)], head='<?xml version="1.0" encoding="ISO-8859-1"?>\n'),
}
WORDS = ["Parallels_disk_image", "Disk_Parameters", "Disk_size", "Padding", "Encryption", "Engine", "StorageData", "Storage", "Start", "End",
         "Blocksize", "Image", "GUID", "Type", "File", "Snapshots", "TopGUID", "Shot", "ParentGUID", "Compressed", "Plain", "<!DOCTYPE ",
         "<!--", "-->", "<![CDATA[", "]]>", "&#10;", "&amp;", "..", "</", "/>", TOP, NONE, A, B]


def main(argv):
    os.makedirs(argv[1], exist_ok=True)
    for name, text in SEEDS.items():
        with open(os.path.join(argv[1], name), "wb") as out:
            out.write(text.encode("latin-1"))
    with open(argv[2], "w", encoding="ascii") as out:
        out.writelines(f'"{word}"\n' for word in WORDS)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
