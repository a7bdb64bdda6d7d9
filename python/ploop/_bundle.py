# SPDX-License-Identifier: MIT
"""Bundles: directories with a DiskDescriptor.xml, and the snapshots that they list."""
import ctypes
import dataclasses
import os

from ploop import _native as native
from ploop import _disk
from ploop._image import must
from ploop._native import sized

NO_PARENT = 0xFFFFFFFF


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A snapshot of a bundle. The top, the disk's present state, is one of them."""

    guid: str
    parent: str | None
    path: str
    is_top: bool


class Bundle:
    """A bundle, open for reading, or with "r+" for changes, which lock it against other programs."""

    def __init__(self, path, mode="r"):
        self.path = path
        self._library = native.bundle_library()
        self._handle = ctypes.c_void_p()
        flags = native.BUNDLE_READ_WRITE if _disk.MODES[mode] else native.BUNDLE_READ_ONLY
        config = sized(native.BundleConfig, flags=flags, log=_disk.LOG)
        must(self._library.ploop_bundle_open(os.fsencode(path), config, self._handle), path)

    @staticmethod
    def create(path, size, *, version=2, cluster_size=0):
        """Make a directory with a new, empty disk."""
        options = sized(native.BundleOptions, version=version, disk_size=size, cluster_size=cluster_size, log=_disk.LOG)
        must(native.bundle_library().ploop_bundle_create(os.fsencode(path), options), path)

    def close(self):
        self._library.ploop_bundle_close(self._handle)
        self._handle = ctypes.c_void_p()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _info(self):
        info = sized(native.BundleInfo)
        must(self._library.ploop_bundle_info(self._handle, info))
        return info

    def _snapshot(self, number):
        snapshot = sized(native.BundleSnapshot)
        must(self._library.ploop_bundle_snapshot(self._handle, number, snapshot))
        return snapshot

    def _image(self, number):
        image = sized(native.BundleImage)
        must(self._library.ploop_bundle_image(self._handle, 0, number, image))
        return image

    def _number(self, guid):
        number = ctypes.c_uint32()
        must(self._library.ploop_bundle_find(self._handle, guid.encode(), number), guid)
        return number.value

    @property
    def size(self):
        return self._info().disk_size

    @property
    def snapshots(self):
        """All snapshots, in the order of the XML; split disks show the files of their first storage."""
        info = self._info()
        guids = [self._snapshot(number).guid.decode() for number in range(info.snapshot_count)]
        result = []
        for number, guid in enumerate(guids):
            parent = self._snapshot(number).parent
            result.append(Snapshot(guid, None if parent == NO_PARENT else guids[parent], os.fsdecode(self._image(number).path),
                                   number == info.top))
        return result

    def open(self, guid=None, mode="rb", *, recover=False, direct=False):
        """The disk as a snapshot has it; None: the present state, the only one that can be written."""
        info = self._info()
        number = info.top if guid is None else self._number(guid)
        writable = _disk.MODES[mode]
        if info.storage_count != 1:
            raise ValueError("a split disk")
        if writable and number != info.top:
            raise ValueError("a snapshot is not written to: others need it")
        chain = (ctypes.c_uint32 * info.snapshot_count)()
        count = must(self._library.ploop_bundle_chain(self._handle, number, chain, len(chain)))
        images = [self._image(one) for one in chain[:count]]
        raw_base = images[0].type == native.BUNDLE_PLAIN
        if raw_base and count == 1:
            raise ValueError("a raw disk")
        return _disk.Disk([os.fsdecode(image.path) for image in images], writable, raw_base=raw_base, recover=recover,
                          direct=direct)

    def take_snapshot(self):
        """Take a snapshot of a disk that no program has open; return its GUID."""
        guid = ctypes.create_string_buffer(native.BUNDLE_GUID_SIZE)
        must(self._library.ploop_bundle_take_snapshot(self._handle, guid), self.path)
        return guid.value.decode()

    def switch(self, guid):
        """Go back to a snapshot: what was written since the last one is removed."""
        must(self._library.ploop_bundle_switch(self._handle, self._number(guid)), guid)

    def delete(self, guid):
        """Delete a snapshot; what is built on it gets what it needs of it."""
        must(self._library.ploop_bundle_delete(self._handle, self._number(guid)), guid)

    def merge(self, guid=None, *, down=False):
        """Merge a snapshot, or the disk's present state, with its parent, which is lost; down: into the parent's image."""
        number = self._info().top if guid is None else self._number(guid)
        direction = native.MERGE_DOWN if down else native.MERGE_UP
        must(self._library.ploop_bundle_merge(self._handle, number, direction), guid or self.path)
