#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""An independent reader and checker of ploop images, to hold the library against.

It shares no code with the library and is written to be obviously right rather
than fast: the whole BAT is read, every entry is judged alone, reads go through
the stack of deltas one cluster at a time.

  ploop_oracle.py info   IMAGE
  ploop_oracle.py check  IMAGE            exit 0 clean, 1 not an image, 2 corrupt, 3 leaks only
  ploop_oracle.py open   IMAGE            for writing: "ok", "recover" (RECOVER would do) or "refuse"
  ploop_oracle.py map    IMAGE            "guest_cluster host_byte_offset" a line
  ploop_oracle.py sha256 TOP [LOWER ...]  hash of what the guest would read
  ploop_oracle.py read   OFFSET LENGTH TOP [LOWER ...]   raw bytes on stdout

Deltas are named from the top down; a lower one may be "raw:PATH".
Offsets and lengths are in bytes.
"""
import hashlib
import json
import os
import stat
import struct
import sys

SECTOR = 512
HEADER = struct.Struct("<16sIIIIIQIIIQ")       # 64 bytes
MAGIC_V1 = b"WithoutFreeSpace"                  # BAT entries count sectors
MAGIC_V2 = b"WithouFreSpacExt"                  # BAT entries count clusters
IN_USE, CLOSED = 0x746F6E59, 0x312E3276
FLAG_EMPTY, FLAG_CONVERTING = 1, 2
FEATURE_NECESSARY, BITMAP = 1, 0x20385FAE252CB34A
MAX_CLUSTER_SECTORS = 131072                    # 64 MiB


class NotAnImage(Exception):
    """The file is too short or carries another magic."""


class Corrupt(Exception):
    """The magic is right and the header cannot be trusted."""


class Image:
    def __init__(self, path):
        self.path = path
        self.file = open(path, "rb")
        self.device = stat.S_ISBLK(os.fstat(self.file.fileno()).st_mode)
        self.file_size = self.file.seek(0, os.SEEK_END)
        self.file.seek(0)
        raw = self.file.read(HEADER.size)
        if len(raw) < HEADER.size:
            raise NotAnImage("shorter than a header")
        (self.magic, self.version, self.heads, self.cylinders, self.cluster_sectors,
         self.bat_entries, self.disk_sectors, self.in_use, self.data_off,
         self.flags, self.ext_off) = HEADER.unpack(raw)
        if self.magic not in (MAGIC_V1, MAGIC_V2):
            raise NotAnImage("bad magic")
        self.v1 = self.magic == MAGIC_V1
        if self.v1:
            self.disk_sectors &= 0xFFFFFFFF
        self._validate_header()
        self.cluster = self.cluster_sectors * SECTOR
        self.file.seek(HEADER.size)
        raw = self.file.read(4 * self.bat_entries)
        if len(raw) < 4 * self.bat_entries:
            raise Corrupt("the BAT ends past the end of the file")
        self.bat = struct.unpack("<%dI" % self.bat_entries, raw)

    def _validate_header(self):
        if self.version != 2:
            raise Corrupt("version %d" % self.version)
        if not 1 <= self.cluster_sectors <= MAX_CLUSTER_SECTORS:
            raise Corrupt("cluster of %d sectors" % self.cluster_sectors)
        if self.disk_sectors > self.bat_entries * self.cluster_sectors:
            raise Corrupt("disk larger than its BAT covers")
        if self.flags & FLAG_CONVERTING:
            raise Corrupt("a version conversion was under way")
        bat_end = HEADER.size + 4 * self.bat_entries
        if bat_end > self.file_size:
            raise Corrupt("the BAT ends past the end of the file")
        if self.v1:
            if self.data_off == 0:
                self.data_off = -(-bat_end // SECTOR)
        elif self.data_off == 0 or self.data_off % self.cluster_sectors:
            raise Corrupt("data_off %d is not a multiple of the cluster" % self.data_off)
        if self.data_off * SECTOR < bat_end:
            raise Corrupt("data_off lies inside the BAT")
        if self.data_off * SECTOR > self.file_size:
            raise Corrupt("data_off lies past the end of the file")
        self.data_start = self.data_off * SECTOR

    def host_offset(self, entry):
        return entry * SECTOR if self.v1 else entry * self.cluster

    def entry_error(self, entry):
        """Why a non-zero BAT entry is unusable, or None."""
        offset = self.host_offset(entry)
        if entry == 0xFFFFFFFF:
            return "never an entry"
        if offset < self.data_start:
            return "before the data area"
        if (offset - self.data_start) % self.cluster:
            return "not on the cluster grid"
        if offset >= self.file_size:
            return "past the end of the file"
        if offset + self.cluster > self.file_size:
            return "cut off: %d of %d bytes are in the file" % (self.file_size - offset, self.cluster)
        return None

    @staticmethod
    def is_cut(why):
        return why is not None and why.startswith("cut off")

    def takes_space(self, offset):
        """Whether the host cluster at `offset` holds data in the file, rather than being a hole."""
        if self.device:
            return False                # what nothing refers to on a device is free, not lost
        try:
            data = os.lseek(self.file.fileno(), offset, os.SEEK_DATA)
        except OSError:
            return False                # ENXIO: nothing but a hole up to the end
        return data < offset + self.cluster

    def check(self):
        """(errors, leaks): lists of strings. Notes go to self.notes."""
        errors, leaks, owner = [], [], {}
        self.notes = []
        covered = -(-self.disk_sectors // self.cluster_sectors)
        for index, entry in enumerate(self.bat):
            if not entry:
                continue
            why = self.entry_error(entry)
            if why and not self.is_cut(why):
                errors.append("BAT[%d]=%d: %s" % (index, entry, why))
                continue
            if entry in owner:
                errors.append("BAT[%d]=%d: also BAT[%d]" % (index, entry, owner[entry]))
                continue
            owner[entry] = index
            if why:
                errors.append("BAT[%d]=%d: %s" % (index, entry, why))
            elif index >= covered:
                leaks.append("BAT[%d]=%d: beyond the disk's end" % (index, entry))
        if self.in_use == IN_USE:
            errors.append("in_use: not closed cleanly")
        elif self.in_use not in (0, CLOSED):
            self.notes.append("in_use: 0x%08x, closed by other software" % self.in_use)
        if self.flags & FLAG_EMPTY and owner:
            errors.append("flag Empty with %d mapped clusters" % len(owner))
        extension = set()
        if self.ext_off and self.in_use == CLOSED:      # otherwise it is void: not followed
            extension, why = self._extension_clusters()
            if why:
                errors.append("extension: " + why)
        elif self.ext_off:
            clusters, why = self._extension_clusters()
            if not why:
                extension = clusters
                self.notes.append("void extension, whole: kept until the first change")
        used = {self.host_offset(entry) for entry in owner} | extension
        slots = (self.file_size - self.data_start + self.cluster - 1) // self.cluster
        for slot in range(slots):
            offset = self.data_start + slot * self.cluster
            if offset not in used and self.takes_space(offset):
                leaks.append("host cluster at byte %d is referenced by nothing" % offset)
        return errors, leaks

    def writing(self):
        """Whether it can be opened for writing: "ok", "recover" or "refuse"."""
        entries = [entry for entry in self.bat if entry]
        whys = [why for why in map(self.entry_error, entries) if why]
        if len(set(entries)) < len(entries) or not all(map(self.is_cut, whys)) or (whys and self.device):
            return "refuse"                 # what is cut off is made whole where the file can grow
        if self.ext_off and self.in_use == CLOSED and self._extension_forbids():
            return "refuse"
        return "recover" if self.in_use == IN_USE or whys else "ok"

    def _extension_forbids(self):
        """An extension that cannot be told apart, has an unknown feature that is necessary, or reaches into a guest's cluster. A
        bitmap that is wrong in itself is only dropped."""
        why = self._extension_clusters()[1]
        if why and not why.startswith("bitmap: "):
            return True
        self.file.seek(self.ext_off * SECTOR)
        area, at, guest = self.file.read(self.cluster), 24, {self.host_offset(entry) for entry in self.bat if entry}
        while True:
            if at + 24 > len(area):
                return True
            feature, flags, size, _ = struct.unpack_from("<QQII", area, at)
            at += 24
            if feature == 0:
                return False
            if at + size > len(area):
                return True
            data = area[at:at + size]
            if feature != BITMAP and flags & FEATURE_NECESSARY:
                return True
            if feature == BITMAP and not self._bitmap_field_error(data) and any(
                    entry > 1 and any(abs(entry * SECTOR - offset) < self.cluster for offset in guest)
                    for entry in self._bitmap_table(data)):
                return True
            at += size + (-size % 8)

    def _extension_clusters(self):
        start = self.ext_off * SECTOR
        if start + self.cluster > self.file_size or start < self.data_start:
            return set(), "outside the data area"
        if (start - self.data_start) % self.cluster:
            return set(), "off the cluster grid"
        if any(entry and self.host_offset(entry) == start for entry in self.bat):
            return set(), "in a guest's cluster"
        self.file.seek(start)
        area = self.file.read(self.cluster)
        magic, = struct.unpack_from("<Q", area)
        if magic != 0xAB234CEF23DCEA87:
            return {start}, "bad magic"
        if hashlib.md5(area[24:]).digest() != area[8:24]:
            return {start}, "bad checksum"
        clusters, at = {start}, 24
        while True:
            if at + 24 > len(area):
                return clusters, "no end of features"
            feature, _flags, size, _ = struct.unpack_from("<QQII", area, at)
            at += 24
            if feature == 0:
                return clusters, None
            if at + size > len(area):
                return clusters, "feature longer than its cluster"
            if feature == BITMAP:
                why = self._bitmap_error(area[at:at + size], clusters)
                if why:
                    return clusters, "bitmap: " + why
            at += size + (-size % 8)

    def _bitmap_field_error(self, data):
        if len(data) < 32:
            return "shorter than its fields"
        size, _id, granularity, l1_size = struct.unpack_from("<Q16sII", data)
        if size != self.disk_sectors:
            return "covers %d sectors" % size
        if granularity == 0 or granularity & (granularity - 1):
            return "granularity %d" % granularity
        bits = -(-size // granularity)
        if l1_size != -(-bits // (8 * self.cluster)) or 32 + 8 * l1_size > len(data):
            return "table of %d entries" % l1_size
        return None

    @staticmethod
    def _bitmap_table(data):
        return struct.unpack_from("<%dQ" % struct.unpack_from("<I", data, 28)[0], data, 32)

    def _bitmap_error(self, data, clusters):
        """Why a dirty bitmap is unusable, or None; adds the clusters it holds to `clusters`."""
        why = self._bitmap_field_error(data)
        if why:
            return why
        guest = {self.host_offset(entry) for entry in self.bat if entry}
        for entry in self._bitmap_table(data):
            if entry <= 1:
                continue
            offset = entry * SECTOR
            if (offset < self.data_start or (offset - self.data_start) % self.cluster
                    or offset + self.cluster > self.file_size):
                return "table entry %d outside the cluster grid" % entry
            if offset in guest or offset in clusters:
                return "table entry %d names a cluster in use" % entry
            clusters.add(offset)
        return None

    def cut_bytes(self, index):
        """What the file has of a cluster that its end cuts off; None: it is not cut off."""
        entry = self.bat[index] if index < self.bat_entries else 0
        if not entry or self.bat.index(entry) < index or not self.is_cut(self.entry_error(entry)):
            return None
        self.file.seek(self.host_offset(entry))
        return self.file.read()

    def read_cluster(self, index):
        """The cluster's bytes, or None where this delta does not hold it."""
        if index >= self.bat_entries or not self.bat[index]:
            return None
        entry = self.bat[index]
        why = self.entry_error(entry)
        if (not why or self.is_cut(why)) and self.bat.index(entry) < index:
            why = "another guest cluster's"
        if why:
            raise Corrupt("BAT[%d]=%d: %s" % (index, entry, why))
        self.file.seek(self.host_offset(entry))
        data = self.file.read(self.cluster)
        inside = self.disk_sectors * SECTOR - index * self.cluster
        return data if inside >= self.cluster else data[:max(inside, 0)].ljust(self.cluster, b"\0")


class RawBase:
    """A raw file, seen as far as the delta above it goes."""

    def __init__(self, path, cluster, above):
        self.file, self.cluster = open(path, "rb"), cluster
        self.end = min(os.fstat(self.file.fileno()).st_size, above.disk_sectors * SECTOR)

    def read_cluster(self, index):
        offset = index * self.cluster
        if offset >= self.end:
            return None
        self.file.seek(offset)
        return self.file.read(min(self.cluster, self.end - offset)).ljust(self.cluster, b"\0")


class Stack:
    def __init__(self, paths):
        self.top = Image(paths[0])
        self.size = self.top.disk_sectors * SECTOR
        self.deltas = [self.top]
        for path in paths[1:]:
            lower = (RawBase(path[4:], self.top.cluster, self.deltas[-1]) if path.startswith("raw:")
                     else Image(path))
            if lower.cluster != self.top.cluster:
                raise Corrupt("cluster sizes differ within the stack")
            if isinstance(lower, Image):
                above = self.deltas[-1]
                if lower.v1 != self.top.v1:
                    raise Corrupt("format versions differ within the stack")
                if lower.disk_sectors > above.disk_sectors:
                    raise Corrupt("a lower delta is larger than the one above it")
            self.deltas.append(lower)

    def cluster(self, index):
        for delta in self.deltas:
            data = delta.read_cluster(index)
            if data is not None:
                return data
        return bytes(self.top.cluster)

    def read(self, offset, length):
        out, size = [], self.top.cluster
        while length:
            index, inside = divmod(offset, size)
            part = self.cluster(index)[inside:inside + length]
            out.append(part)
            offset, length = offset + len(part), length - len(part)
        return b"".join(out)

    def sha256(self):
        digest, left, index = hashlib.sha256(), self.size, 0
        while left:
            part = self.cluster(index)[:left]
            digest.update(part)
            left, index = left - len(part), index + 1
        return digest.hexdigest()


def main(argv):
    if len(argv) < 3:
        print(__doc__)
        return 1
    verb = argv[1]
    try:
        if verb == "info":
            image = Image(argv[2])
            print(json.dumps({
                "format": 1 if image.v1 else 2, "cluster": image.cluster,
                "disk": image.disk_sectors * SECTOR, "bat_entries": image.bat_entries,
                "data_start": image.data_start, "in_use": image.in_use,
                "flags": image.flags, "ext_off": image.ext_off,
                "mapped": sum(1 for entry in image.bat if entry)}))
        elif verb == "check":
            image = Image(argv[2])
            errors, leaks = image.check()
            for line in image.notes:
                print("note: " + line)
            for line in errors:
                print("error: " + line)
            for line in leaks:
                print("leak: " + line)
            print("%d errors, %d leaks" % (len(errors), len(leaks)))
            return 2 if errors else 3 if leaks else 0
        elif verb == "open":
            print(Image(argv[2]).writing())
        elif verb == "map":
            image = Image(argv[2])
            for index, entry in enumerate(image.bat):
                if entry:
                    print(index, image.host_offset(entry))
        elif verb == "sha256":
            print(Stack(argv[2:]).sha256())
        elif verb == "read":
            sys.stdout.buffer.write(Stack(argv[4:]).read(int(argv[2]), int(argv[3])))
        else:
            print(__doc__)
            return 1
    except Corrupt as why:
        print("corrupt: %s" % why)
        return 2
    except (NotAnImage, OSError) as why:
        print("not an image: %s" % why)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
