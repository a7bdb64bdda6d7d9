# SPDX-License-Identifier: MIT
"""ploop images as disks: read, write, check, snapshots.

    import ploop

    ploop.create("disk.hds", 1 << 30)
    with ploop.open("disk.hds", "r+b") as disk:
        disk.write(b"hello")
        disk.flush()                        # durable from here on
        disk.seek(0)
        print(disk.read(5))
    print(ploop.check("disk.hds"))

A Disk is a file of the io module, of bytes, without a buffer. Every failure is an OSError with the library's errno. What a disk
logs goes to the logger "ploop" of the module logging.
"""
from ploop._bundle import Bundle, Snapshot
from ploop._disk import Disk, Extent, open
from ploop._image import CheckResult, Finding, ImageInfo, check, create, info
from ploop._native import library as _library

__all__ = ["Bundle", "CheckResult", "Disk", "Extent", "Finding", "ImageInfo", "Snapshot", "check", "create", "info", "open", "version"]


def version():
    """The version of the library that is loaded, as (major, minor, patch)."""
    number = _library.ploop_version()
    return number >> 16, number >> 8 & 255, number & 255
