# SPDX-License-Identifier: MIT
"""Images that no disk has open: create, info, check."""
import ctypes
import dataclasses
import os

from ploop import _native as native
from ploop._native import library, sized


def must(result, *names):
    """What a call returned, if that is no error."""
    if result < 0:
        raise OSError(-result, os.strerror(-result), *names)
    return result


class File:
    """An image file: what the library's file functions take. Closed with the `with` that it is opened in, or by close()."""

    def __init__(self, path, flags):
        self.path = path
        self.handle = ctypes.c_void_p()
        must(library.ploop_file_open_posix(os.fsencode(path), flags, self.handle), path)

    def close(self):
        library.ploop_file_close(self.handle)
        self.handle = ctypes.c_void_p()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


@dataclasses.dataclass(frozen=True)
class ImageInfo:
    """What the header of an image says."""

    version: int
    disk_size: int
    cluster_size: int
    data_offset: int
    file_size: int
    in_use: bool


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that a check found: its kind is a PLOOP_CHECK_ number of ploop/image.h."""

    kind: int
    text: str


@dataclasses.dataclass(frozen=True)
class CheckResult:
    """The result of a check. `errors` and `leaks` are counted before the repair, if there was one."""

    errors: int
    leaks: int
    repaired: int
    mapped: int
    recoverable: bool
    findings: tuple

    @property
    def clean(self):
        return not self.errors and not self.leaks


def probe(file):
    header = sized(native.ImageInfo)
    error = library.ploop_image_probe(file.handle, header)
    if error:
        raise OSError(-error, header.message.decode() or os.strerror(-error), file.path)
    return ImageInfo(header.version, header.disk_size, header.cluster_size, header.data_offset, header.file_size,
                     bool(header.in_use))


def write_empty(file, size, version, cluster_size):
    options = sized(native.ImageOptions, version=version, disk_size=size, cluster_size=cluster_size)
    must(library.ploop_image_create(file.handle, options), file.path)


def create(path, size, *, version=2, cluster_size=1 << 20):
    """Make an empty image of a disk of `size` bytes in a new file."""
    with File(path, native.FILE_READ_WRITE | native.FILE_CREATE) as file:
        write_empty(file, size, version, cluster_size)


def info(path):
    """Read an image's header; takes no lock."""
    with File(path, native.FILE_READ_ONLY | native.FILE_UNLOCKED) as file:
        return probe(file)


def check(path, *, leaks=False, unclean=False, entries=False):
    """Check an image. `leaks`, `unclean` and `entries` say what is repaired: PLOOP_REPAIR_ of ploop/image.h."""
    repair = leaks * native.REPAIR_LEAKS | unclean * native.REPAIR_UNCLEAN | entries * native.REPAIR_ENTRIES
    findings = []

    def record(_, finding, text):
        findings.append(Finding(finding.contents.kind, text.decode()))

    options = sized(native.CheckOptions, repair=repair, record=native.RecordFn(record))
    result = sized(native.CheckResult)
    with File(path, native.FILE_READ_WRITE if repair else native.FILE_READ_ONLY) as file:
        must(library.ploop_image_check(file.handle, options, result), path)
    return CheckResult(result.errors, result.leaks, result.repaired, result.mapped, bool(result.recoverable), tuple(findings))
