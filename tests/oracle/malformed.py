#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes one small image for each malformed (or unusual but valid) case, and what each must get.

  malformed.py OUTDIR    writes OUTDIR/<name>.hds and OUTDIR/cases.tsv

cases.tsv has a line a case: name, read_only, read_write, check, why.
  read_only, read_write  what opening it so must do:
      ok      it opens
      reject  the open fails with a clear error, and the file is left byte for byte as it was
      eio:N   it opens; reading guest cluster N fails with EIO, every other cluster reads as the valid image does
      cut:N   it opens; of guest cluster N what is in the file can be read, the rest fails with EIO
  check                  the exit status of a check: 0 clean, 1 not an image, 2 corrupt, 3 leaks only
Stacks are named name.top.hds over name.base.hds (or the raw file name.base.raw).
In no case may anything crash, hang, allocate by an unchecked count, or change the file.

The valid image behind the cases: 64 MiB disk, 64 KiB clusters, 1024 BAT entries (two BAT pages),
guest clusters 0, 1, 2 and 1015 mapped to host clusters 1..4, each filled with the byte 0xA0 + host cluster.
"""
import hashlib
import os
import struct
import sys

MAGIC_V1, MAGIC_V2 = b"WithoutFreeSpace", b"WithouFreSpacExt"
IN_USE, CLOSED = 0x746F6E59, 0x312E3276
CLUSTER_SECTORS, ENTRIES = 128, 1024
MAPPED = {0: 1, 1: 2, 2: 3, 1015: 4}
EXT_MAGIC, BITMAP_MAGIC = 0xAB234CEF23DCEA87, 0x20385FAE252CB34A


def image(*, magic=MAGIC_V2, version=2, cluster=CLUSTER_SECTORS, entries=ENTRIES, sectors=None,
          in_use=0, data_off=None, flags=0, ext_off=0, mapped=None, host_clusters=4,
          real_cluster=None, real_entries=None, real_data=None, junk=0, size=None, ext=None):
    """The bytes of an image. real_* lay the file out where the header is made to lie."""
    real_cluster = real_cluster or cluster
    real_entries = ENTRIES if real_entries is None else real_entries
    mapped = MAPPED if mapped is None else mapped
    step = real_cluster * 512
    header_end = 64 + 4 * real_entries
    if real_data is None:
        real_data = -(-header_end // (512 if magic == MAGIC_V1 else step))
        real_data = real_data * (1 if magic == MAGIC_V1 else real_cluster)
    if sectors is None:
        sectors = real_entries * real_cluster
    if data_off is None:
        data_off = real_data
    bat = [0] * real_entries
    for guest, host in mapped.items():
        if magic == MAGIC_V1 and isinstance(host, int):
            host = real_data + (host - 1) * real_cluster
        elif isinstance(host, tuple):
            host = host[0]                     # an entry to be used unchanged
        elif magic == MAGIC_V2:
            host = host - 1 + real_data // real_cluster
        bat[guest] = host
    head = struct.pack("<16sIIIIIQIIIQ", magic, version, 16, 32, cluster, entries, sectors,
                       in_use, data_off, flags, ext_off)
    body = bytearray(head + struct.pack("<%dI" % real_entries, *bat))
    if junk:
        body += struct.pack("<%dI" % junk, *([0xDEADBEEF] * junk))
    body = body.ljust(real_data * 512, b"\0")
    for host in range(1, host_clusters + 1):
        body += bytes([0xA0 + host]) * step
    if ext is not None:
        body += ext.ljust(step, b"\0")
    if size is not None:
        body = body[:size].ljust(size, b"\0")
    return bytes(body)


def extension(features, *, magic=EXT_MAGIC, checksum=None, step=CLUSTER_SECTORS * 512, end=True,
              claim=None):
    body = b"".join(struct.pack("<QQII", m, f, claim or len(d), 0) + d + b"\0" * (-len(d) % 8)
                    for m, f, d in features)
    if end:
        body += bytes(24)
        body = body.ljust(step - 24, b"\0")
    else:
        body = body.ljust(step - 24, b"\xff")
    digest = hashlib.md5(body).digest() if checksum is None else checksum
    return struct.pack("<Q", magic) + digest + body


def bitmap(*, size=ENTRIES * CLUSTER_SECTORS, granularity=128, l1=(1,)):
    return struct.pack("<Q16sII", size, b"0123456789abcdef", granularity, len(l1)) + \
        struct.pack("<%dQ" % len(l1), *l1)


EXT_AT = CLUSTER_SECTORS * 5      # the extension cluster follows four data clusters


def with_ext(ext, **kw):
    return image(ext=ext, ext_off=EXT_AT, in_use=CLOSED, **kw)


def cases():
    good = image()
    step = CLUSTER_SECTORS * 512

    def patched(offset, data, base=good):
        return base[:offset] + data + base[offset + len(data):]

    def entry1(value):             # guest cluster 1 mapped to a bad place
        return patched(64 + 4, struct.pack("<I", value))

    # name, bytes, read_only, read_write, check, why
    yield "valid", good, "ok", "ok", 0, "the image behind the cases"
    yield "empty_file", b"", "reject", "reject", 1, "no header"
    yield "short_header", good[:63], "reject", "reject", 1, "one byte short of a header"
    yield "header_only", good[:64], "reject", "reject", 2, "the BAT is not there"
    yield "magic", patched(0, b"X"), "reject", "reject", 1, "another magic"
    yield "magic_qcow2", b"QFI\xfb" + good[4:], "reject", "reject", 1, "another format"
    yield "version_1", image(version=1), "reject", "reject", 2, "version must be 2"
    yield "version_3", image(version=3), "reject", "reject", 2, "version must be 2"
    yield "tracks_0", patched(28, struct.pack("<I", 0)), "reject", "reject", 2, "division by zero (CVE-2014-0142)"
    yield "tracks_huge", patched(28, struct.pack("<I", 0x80000000)), "reject", "reject", 2, "cluster size overflows"
    yield "tracks_131073", patched(28, struct.pack("<I", 131073)), "reject", "reject", 2, "clusters end at 64 MiB"
    yield "tracks_63", image(cluster=63, sectors=ENTRIES * 63), "ok", "ok", 0, "the legacy 63-sector cluster"
    yield "tracks_504", image(cluster=504, sectors=ENTRIES * 504), "ok", "ok", 0, "the legacy 252 KiB cluster"
    yield "tracks_1", image(cluster=1, sectors=ENTRIES), "ok", "ok", 0, "one-sector clusters"
    yield "bat_ffffffff", patched(32, struct.pack("<I", 0xFFFFFFFF)), "reject", "reject", 2, "size of the BAT overflows (CVE-2014-0143)"
    yield "bat_40000001", patched(32, struct.pack("<I", 0x40000001)), "reject", "reject", 2, "size of the BAT times 4 wraps"
    yield "bat_past_file", patched(32, struct.pack("<I", 200000)), "reject", "reject", 2, "the BAT is larger than the file"
    yield "bat_truncated", good[:2000], "reject", "reject", 2, "the file ends within the BAT"
    yield "disk_larger_than_bat", image(sectors=ENTRIES * CLUSTER_SECTORS + 1), "reject", "reject", 2, "the BAT cannot cover the disk"
    yield "disk_smaller_than_bat", image(sectors=512 * CLUSTER_SECTORS), "ok", "ok", 3, "BAT[1015] lies beyond the disk's end"
    yield "disk_unaligned", image(sectors=ENTRIES * CLUSTER_SECTORS - 5), "ok", "ok", 0, "the last cluster is partly beyond the disk's end"
    yield "disk_overflow", image(sectors=1 << 62), "reject", "reject", 2, "bytes overflow"
    yield "disk_max64", image(sectors=(1 << 64) - 1), "reject", "reject", 2, "bytes overflow"
    yield "disk_0", image(sectors=0, entries=0, real_entries=0, mapped={}, host_clusters=0, real_data=128), "ok", "ok", 0, "a disk of no sectors; every transfer is out of range"
    yield "v1_valid", image(magic=MAGIC_V1), "ok", "ok", 0, "BAT entries count sectors"
    yield "v1_high_size", image(magic=MAGIC_V1, sectors=ENTRIES * CLUSTER_SECTORS | 7 << 32), "ok", "ok", 0, "only the low 32 bits of the size count"
    yield "v1_data_off_0", image(magic=MAGIC_V1, data_off=0), "ok", "ok", 0, "computed: the end of the BAT, up to a sector"
    yield "v1_entry_unaligned", image(magic=MAGIC_V1, mapped={**MAPPED, 1: (9 + 128 + 1,)}), "eio:1", "reject", 2, "off the cluster grid"
    yield "v1_entry_overlap", image(magic=MAGIC_V1, mapped={**MAPPED, 1: (9 + 64,)}), "eio:1", "reject", 2, "half over another cluster"
    yield "data_off_0", image(data_off=0), "reject", "reject", 2, "must be given in this format version"
    yield "data_off_unaligned", image(data_off=129), "reject", "reject", 2, "must be a multiple of the cluster"
    yield "data_off_in_bat", image(cluster=1, sectors=ENTRIES, data_off=2), "reject", "reject", 2, "inside the BAT"
    yield "data_off_max", image(data_off=0xFFFFFFFF), "reject", "reject", 2, "past the end of the file"
    yield "data_off_large", image(real_data=128 * 4), "ok", "ok", 0, "larger than it need be, and allowed"
    yield "in_use", image(in_use=IN_USE), "ok", "reject", 2, "not closed cleanly: needs recovery first"
    yield "in_use_closed", image(in_use=CLOSED), "ok", "ok", 0, "closed by software that knows the format extension"
    yield "in_use_other", image(in_use=0x12345678), "ok", "ok", 0, "only the mark means open for writing: closed by other software"
    last = image(mapped={0: 1, 1: 4})
    yield "cut_off", last[:-3000], "cut:1", "reject", 2, "the last cluster's end is missing: what is there can be read, RECOVER and repair keep it"
    yield "cut_off_in_use", image(in_use=IN_USE, mapped={0: 1, 1: 4})[:-65000], "cut:1", "reject", 2, "the same, not closed cleanly"
    yield "cut_off_duplicate", image(mapped={0: 1, 1: 4, 9: 4})[:-3000], "cut:1", "reject", 2, "the same, and another entry names the cluster: RECOVER refuses it"
    yield "cut_off_beyond", image(sectors=512 * CLUSTER_SECTORS)[:-3000], "ok", "reject", 2, "the same, beyond the disk's end"
    yield "cut_off_v1", image(magic=MAGIC_V1, mapped={0: 1, 1: 4})[:-1], "cut:1", "reject", 2, "one byte is missing"
    yield "in_use_pd22", image(in_use=0x32326470), "ok", "ok", 0, "as Parallels Desktop leaves it"
    yield "flag_empty", image(flags=1), "ok", "ok", 2, "the BAT counts, the flag is wrong: no data may be lost"
    yield "flag_converting", image(flags=2), "reject", "reject", 2, "a version conversion was cut off"
    yield "entry_past_eof", entry1(1000), "eio:1", "reject", 2, "past the end of the file"
    yield "entry_at_eof", entry1(5), "eio:1", "reject", 2, "exactly at the end of the file"
    yield "entry_ffffffff", entry1(0xFFFFFFFF), "eio:1", "reject", 2, "must not be taken for 'not mapped'"
    yield "entry_fffffffe", entry1(0xFFFFFFFE), "eio:1", "reject", 2, "offset arithmetic in 32 bits wraps"
    yield "entry_last_cut", patched(64 + 4, struct.pack("<I", 5), good + b"\xA5" * 4096), "cut:1", "reject", 2, "the cluster is cut by the end of the file"
    yield "entry_in_bat", image(real_data=256, data_off=256, mapped={**MAPPED, 1: (1,)}), "eio:1", "reject", 2, "inside the header and BAT area"
    yield "entry_before_data", image(real_data=128 * 8, mapped={**MAPPED, 1: (7,)}), "eio:1", "reject", 2, "just before the data area"
    yield "entry_duplicate", entry1(1), "eio:1", "reject", 2, "two guest clusters share a host cluster"
    yield "entry_duplicate_pages", patched(64 + 4 * 1015, struct.pack("<I", 1)), "eio:1015", "reject", 2, "the same, across BAT pages; the first in the BAT's order is the owner"
    yield "bat_tail_junk", image(junk=8), "ok", "ok", 0, "words after the last BAT entry mean nothing"
    yield "leak_tail", image(host_clusters=6), "ok", "ok", 3, "two clusters at the end belong to nobody"
    yield "leak_inside", image(mapped={0: 1, 2: 3, 1015: 4}), "ok", "ok", 3, "one inside belongs to nobody"
    yield "file_unaligned", good + b"\xA5" * 1000, "ok", "ok", 3, "an extension of the file was cut off: new clusters start at the size rounded down"
    ok_ext = extension([(BITMAP_MAGIC, 0, bitmap())])
    yield "ext_bitmap", with_ext(ok_ext), "ok", "ok", 0, "a dirty bitmap, all ones"
    yield "ext_past_eof", image(ext_off=0x7FFFFFFFFFFF, in_use=CLOSED), "ok", "reject", 2, "the extension is not there"
    yield "ext_overflow", image(ext_off=(1 << 63) + 1, in_use=CLOSED), "ok", "reject", 2, "bytes overflow"
    yield "ext_in_bat", image(ext_off=1, in_use=CLOSED), "ok", "reject", 2, "inside the header and BAT area"
    yield "ext_void", image(ext=ok_ext, ext_off=EXT_AT), "ok", "ok", 0, "in_use 0: void, perhaps stored by software that does not mark it: a note, no leak, kept until the first change"
    yield "ext_void_pd22", image(ext=ok_ext, ext_off=EXT_AT, in_use=0x32326470), "ok", "ok", 0, "the same"
    yield "ext_void_in_use", image(ext=ok_ext, ext_off=EXT_AT, in_use=IN_USE), "ok", "reject", 2, "the same, not closed cleanly: RECOVER drops it"
    yield "ext_void_checksum", image(ext=extension([(BITMAP_MAGIC, 0, bitmap())], checksum=b"\0" * 16), ext_off=EXT_AT), "ok", "ok", 3, "void, and nothing that anybody misses: its cluster is a leak"
    yield "ext_void_in_guest_cluster", patched(CLUSTER_SECTORS * 512 * 4, ok_ext, image(ext_off=CLUSTER_SECTORS * 4)), "ok", "ok", 0, "void, in guest cluster 1015's own cluster: worth nothing"
    yield "ext_void_bitmap_shared", image(ext=extension([(BITMAP_MAGIC, 0, bitmap(l1=(128,)))]), ext_off=EXT_AT), "ok", "ok", 3, "void, and its bitmap lies in a guest's cluster: worth nothing"
    yield "ext_void_garbage", image(ext_off=0x7FFFFFFFFFFF), "ok", "ok", 0, "void as well: not followed"
    yield "ext_magic", with_ext(extension([], magic=1)), "ok", "reject", 2, "not an extension"
    yield "ext_checksum", with_ext(extension([(BITMAP_MAGIC, 0, bitmap())], checksum=b"\0" * 16)), "ok", "reject", 2, "the MD5 does not match"
    yield "ext_no_end", with_ext(extension([], end=False)), "ok", "reject", 2, "features run over the cluster's end"
    yield "ext_feature_long", with_ext(extension([(BITMAP_MAGIC, 0, bitmap())], claim=step)), "ok", "reject", 2, "a feature longer than what is left of its cluster"
    shared = image(in_use=CLOSED, ext_off=CLUSTER_SECTORS * 4)
    yield "ext_in_guest_cluster", patched(step * 4, ok_ext, shared), "ok", "reject", 2, "a valid extension, in guest cluster 1015's own cluster"
    yield "ext_off_grid", image(in_use=CLOSED, ext_off=EXT_AT + 8, ext=(b"\0" * 4096 + ok_ext), size=step * 7), "ok", "reject", 2, "a valid extension, between two clusters"
    yield "ext_unknown_necessary", with_ext(extension([(0x1122334455667788, 1, b"abcd")])), "ok", "reject", 0, "may be read, must not be written"
    yield "ext_unknown_transit", with_ext(extension([(0x1122334455667788, 2, b"abcd")])), "ok", "ok", 0, "must be left as it is"
    yield "ext_unknown_plain", with_ext(extension([(0x1122334455667788, 0, b"abcd")])), "ok", "ok", 0, "is dropped at the first write"
    yield "bitmap_granularity_0", with_ext(extension([(BITMAP_MAGIC, 0, bitmap(granularity=0))])), "ok", "ok", 2, "the bitmap is dropped"
    yield "bitmap_granularity_3", with_ext(extension([(BITMAP_MAGIC, 0, bitmap(granularity=3))])), "ok", "ok", 2, "must be a power of two"
    yield "bitmap_l1_short", with_ext(extension([(BITMAP_MAGIC, 0, bitmap(granularity=1, l1=()))])), "ok", "ok", 2, "the table does not cover the disk"
    yield "bitmap_l1_shared", with_ext(extension([(BITMAP_MAGIC, 0, bitmap(l1=(128,)))])), "ok", "reject", 2, "the bitmap lies in a guest's cluster"
    yield "bitmap_size", with_ext(extension([(BITMAP_MAGIC, 0, bitmap(size=7))])), "ok", "ok", 2, "not the disk's size"
    # stacks: (top, base)
    upper = image(mapped={2: 1}, host_clusters=1)
    yield "stack_valid", (upper, good), "ok", "ok", 0, "guest cluster 2 from the top, the rest from the base"
    yield "stack_raw_base", (upper, ("raw", bytes([7]) * step * 3)), "ok", "ok", 0, "a raw base, shorter than the disk: zeros past it"
    yield "stack_cluster_size", (upper, image(cluster=256, sectors=512 * 256, real_entries=512, entries=512, mapped={0: 1}, host_clusters=1)), "reject", "reject", 0, "cluster sizes differ"
    yield "stack_version", (upper, image(magic=MAGIC_V1)), "reject", "reject", 0, "format versions differ"
    yield "stack_base_larger", (image(entries=512, real_entries=512, mapped={2: 1}, host_clusters=1), good), "reject", "reject", 0, "the base is larger than the top"
    yield "stack_base_smaller", (upper, image(entries=512, real_entries=512, mapped={0: 1}, host_clusters=1)), "ok", "ok", 0, "zeros past the base"
    yield "stack_base_in_use", (upper, image(in_use=IN_USE)), "ok", "reject", 0, "the base was not closed cleanly: may be read, needs RECOVER to be written over"
    yield "stack_raw_base_longer", (upper, ("raw", bytes([7]) * step * 1030)), "ok", "ok", 0, "a raw base longer than the disk: what lies beyond is not seen"
    yield "stack_base_smaller_odd", (upper, image(entries=512, real_entries=512, sectors=128 + 3, mapped={0: 1, 1: 2}, host_clusters=2)), "ok", "ok", 0, "the base ends inside guest cluster 1: zeros from there, whatever its cluster holds"


def main(argv):
    if len(argv) != 2:
        print(__doc__)
        return 1
    os.makedirs(argv[1], exist_ok=True)
    with open(os.path.join(argv[1], "cases.tsv"), "w") as table:
        for name, data, read_only, read_write, check, why in cases():
            parts = {name + ".hds": data}
            if isinstance(data, tuple):
                top, base = data
                parts = {name + ".top.hds": top}
                parts[name + (".base.raw" if base[0] == "raw" else ".base.hds")] = \
                    base[1] if base[0] == "raw" else base
            for file_name, content in parts.items():
                with open(os.path.join(argv[1], file_name), "wb") as out:
                    out.write(content)
            table.write("\t".join([name, read_only, read_write, str(check), why]) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
