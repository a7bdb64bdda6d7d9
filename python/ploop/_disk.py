# SPDX-License-Identifier: MIT
"""A disk: an image, or a stack of images, as a file of the io module."""
import ctypes
import dataclasses
import errno
import io
import logging
import os
import threading

from ploop import _native as native
from ploop._image import File, must, probe, write_empty
from ploop._native import library, sized

SECTOR = 512
TEXT_SIZE = 256
LEVELS = {1: logging.ERROR, 2: logging.WARNING, 3: logging.INFO}
MODES = {"r": False, "rb": False, "r+": True, "r+b": True, "rb+": True}
KINDS = {"read": native.KIND_READ, "write": native.KIND_WRITE, "write_zeroes": native.KIND_WRITE_ZEROES,
         "discard": native.KIND_DISCARD, "flush": native.KIND_FLUSH, "bat_write": native.KIND_BAT_WRITE}
logger = logging.getLogger("ploop")


def log(_, level, message_id, text):
    logger.log(LEVELS.get(level, logging.INFO), "%s", text.decode(errors="replace"), extra={"ploop_message": message_id})


LOG = native.LogFn(log)


@dataclasses.dataclass(frozen=True)
class Extent:
    """A range of the disk: `level` says which file holds it, 0 is the base; None: it reads as zeros."""

    offset: int
    length: int
    level: int | None = None
    host_offset: int | None = None


class Disk(io.RawIOBase):
    """A disk that is open. Reads and writes may begin and end anywhere; inside a sector of 512 bytes a write reads it first.

    As every raw file it may write or read less than asked for only at the disk's end, which does not move. flush() makes durable
    what was written. close() does so too, and raises where something did not reach the disk. Several threads may use pread(),
    pwrite() and the like at the same time; two that write the same sector at odd places need an order of their own.
    """

    def __init__(self, paths, writable=False, *, raw_base=False, recover=False, direct=False):
        super().__init__()
        self._device = ctypes.c_void_p()
        self._files = []
        self._writable = writable
        self._position = 0
        self._lock = threading.RLock()
        try:
            for number, path in enumerate(paths, 1):
                ours = writable and (number == len(paths) or recover)
                flags = native.FILE_READ_WRITE if ours else native.FILE_READ_ONLY
                self._files.append(File(path, flags | direct * native.FILE_DIRECT))
            self._open(raw_base, recover)
        except BaseException:
            self._close_files()
            raise

    def _open(self, raw_base, recover):
        config = native.DevConfig()
        library.ploop_dev_config_init(config, ctypes.sizeof(config))
        config.flags = ((not self._writable) * native.DEV_READ_ONLY | recover * native.DEV_RECOVER |
                        raw_base * native.DEV_RAW_BASE)
        config.log = LOG
        text = ctypes.create_string_buffer(TEXT_SIZE)
        config.error_text, config.error_text_size = ctypes.addressof(text), TEXT_SIZE
        handles = (ctypes.c_void_p * len(self._files))(*[file.handle.value for file in self._files])
        error = library.ploop_dev_open(handles, len(handles), config, self._device)
        if error:
            raise OSError(-error, text.value.decode(errors="replace") or os.strerror(-error), self._files[-1].path)

    def _close_files(self):
        for file in reversed(self._files):
            file.close()
        self._files = []

    # ---- The file of the io module ----

    def readable(self):
        return True

    def writable(self):
        return self._writable

    def seekable(self):
        return True

    def tell(self):
        self._checkClosed()
        return self._position

    def seek(self, offset, whence=io.SEEK_SET):
        self._checkClosed()
        position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        if position < 0:
            raise ValueError("a negative position")
        self._position = position
        return position

    def readinto(self, buffer):
        count = self.pread_into(buffer, self._position)
        self._position += count
        return count

    def write(self, data):
        count = self.pwrite(data, self._position)
        self._position += count
        return count

    def flush(self):
        """Return when all that was written is durable."""
        if self._device and self._writable:
            must(library.ploop_dev_flush(self._device))
        super().flush()

    def close(self):
        if self.closed:
            return
        device, self._device = self._device, ctypes.c_void_p()
        error = library.ploop_dev_close(device)
        self._close_files()
        super().close()
        must(error)

    # ---- At a place ----

    def _range(self, length, offset):
        self._checkClosed()
        if offset < 0:
            raise ValueError("a negative offset")
        return max(0, min(length, self.size - offset))

    def _read(self, address, length, offset):
        must(library.ploop_dev_pread(self._device, address, length, offset))

    def pread_into(self, buffer, offset):
        """Read into memory that can be written; how many bytes, fewer only at the end of the disk."""
        view = memoryview(buffer).cast("B")
        length = self._range(len(view), offset)
        if not length:
            return 0
        begin, end = offset // SECTOR * SECTOR, -(-(offset + length) // SECTOR) * SECTOR
        if (begin, end) == (offset, offset + length):
            self._read((ctypes.c_char * length).from_buffer(view), length, offset)
        else:
            whole = bytearray(end - begin)
            self._read((ctypes.c_char * len(whole)).from_buffer(whole), len(whole), begin)
            view[:length] = whole[offset - begin:offset - begin + length]
        return length

    def pread(self, length, offset):
        data = bytearray(self._range(length, offset))
        self.pread_into(data, offset)
        return bytes(data)

    def pwrite(self, data, offset):
        """Write bytes; how many, fewer only at the end of the disk. The next flush() makes them durable."""
        view = memoryview(data).cast("B")
        length = self._range(len(view), offset)
        if len(view) and not length:
            raise OSError(errno.ENOSPC, "beyond the end of the disk")
        begin, end = offset // SECTOR * SECTOR, -(-(offset + length) // SECTOR) * SECTOR
        with self._lock:
            whole = bytearray(end - begin)
            for place in {begin, end - SECTOR} if length else ():
                if place < offset or place + SECTOR > offset + length:
                    whole[place - begin:place - begin + SECTOR] = self.pread(SECTOR, place)
            whole[offset - begin:offset - begin + length] = view[:length]
            if whole:
                memory = (ctypes.c_char * len(whole)).from_buffer(whole)
                must(library.ploop_dev_pwrite(self._device, memory, len(whole), begin))
        return length

    def _execute(self, prepare, *arguments):
        self._checkClosed()
        request = library.ploop_pio_get(library.ploop_dev_queue(self._device, 0))
        if not request:
            raise OSError(errno.EAGAIN, "more than 128 requests at a time")
        try:
            prepare(request, *arguments)
            must(library.ploop_pio_execute(request))
        finally:
            library.ploop_pio_put(request)

    def discard(self, offset, length):
        """Give whole clusters back: a hint."""
        self._execute(library.ploop_pio_prep_discard, offset, length)

    def write_zeroes(self, offset, length, *, unmap=True):
        self._execute(library.ploop_pio_prep_write_zeroes, offset, length, 0 if unmap else native.PIO_NO_UNMAP)

    # ---- The disk as a whole ----

    @property
    def size(self):
        return self.info().disk_size

    def info(self):
        """The structure ploop_dev_info of ploop/dev.h: size, limits, state and counters."""
        self._checkClosed()
        info = sized(native.DevInfo)
        must(library.ploop_dev_info(self._device, info))
        return info

    def stats(self, kind):
        """Requests, bytes and errors of one kind, "read", "write", "write_zeroes", "discard" or "flush", since the disk was opened:
        the structure ploop_stats of ploop/dev.h."""
        self._checkClosed()
        total = sized(native.Stats)
        for queue in (0, 1):  # the disk's only queue, and the functions that block
            stats = sized(native.Stats)
            must(library.ploop_dev_stats(self._device, queue, KINDS[kind], stats))
            for field in ("requests", "requests_fast", "bytes", "errors"):
                setattr(total, field, getattr(total, field) + getattr(stats, field))
        return total

    def extents(self, offset=0, length=None):
        """The extents of the disk, or of a part of it, in order."""
        end = self.size if length is None else offset + length
        while offset < end:
            found = sized(native.Extent)
            must(library.ploop_bat_lookup(self._device, offset, end - offset, found))
            mapped = found.state == native.EXTENT_MAPPED
            yield Extent(found.offset, found.length, *((found.level, found.host_offset) if mapped else ()))
            offset += found.length

    @property
    def paths(self):
        """The files of the stack, base first."""
        return [file.path for file in self._files]

    # ---- Jobs: they return when they have ended ----

    def _finish(self, job, commit):
        """Wait for a job. Where the new stack is to be recorded call `commit`; if that raises, the stack stays as it is."""
        refusal = None
        info = sized(native.JobInfo)
        result = library.ploop_job_wait(job)
        if result == -errno.EAGAIN and not library.ploop_job_info(job, info) and info.state == native.JOB_COMMIT:
            try:
                if commit:
                    commit()
            except BaseException as error:  # pylint: disable=broad-except
                refusal = error
            must(library.ploop_job_committed(job, -errno.ECANCELED if refusal else 0))
            result = library.ploop_job_wait(job)
        must(library.ploop_job_free(job))
        if refusal:
            raise refusal
        must(result)

    def snapshot(self, path, commit=None):
        """Go on in a new file; the old top keeps the disk as it is now. `commit` records the new stack durably, and may raise."""
        top = probe(self._files[-1])
        file = File(path, native.FILE_READ_WRITE | native.FILE_CREATE)
        try:
            write_empty(file, self.size, top.version, top.cluster_size)
            job = ctypes.c_void_p()
            must(library.ploop_dev_snapshot(self._device, file.handle, native.JobCommitFn(), native.JobFn(), None, job))
            self._finish(job, commit)
        except BaseException:
            file.close()
            os.unlink(path)
            raise
        self._files.append(file)

    def merge(self, commit=None):
        """Merge the file below the top up into the top. Return its path: nothing needs that file any more."""
        job = ctypes.c_void_p()
        level = len(self._files) - 2
        must(library.ploop_dev_merge(self._device, max(level, 0), native.MERGE_UP, native.JobCommitFn(), native.JobFn(), None, job))
        self._finish(job, commit)
        lower = self._files.pop(level)
        lower.close()
        return lower.path

    def grow(self, size):
        """Make the disk larger."""
        job = ctypes.c_void_p()
        must(library.ploop_dev_grow(self._device, size, native.JobFn(), None, job))
        self._finish(job, None)

    # ---- The names that readers of other disk formats have (pyphdi) ----

    def get_media_size(self):
        return self.size

    def get_offset(self):
        return self.tell()

    def seek_offset(self, offset, whence):
        self.seek(offset, whence)

    def read_buffer(self, size):
        return self.read(size)

    def read_buffer_at_offset(self, size, offset):
        self.seek(offset)
        return self.read(size)

    def write_buffer(self, data):
        return self.write(data)


def open(path, mode="rb", *, base=(), raw_base=False, recover=False, direct=False):  # pylint: disable=redefined-builtin
    """Open an image as a disk. `mode` is "rb" or "r+b".

    `base` are the files below it, the lowest one first; `raw_base` says that the lowest is a raw disk. `recover` opens an image
    that was not closed cleanly: check it first. `path` may be a bundle's directory: then it is the bundle's present state.
    """
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}, not one of {sorted(MODES)}")
    if os.path.isdir(path):
        from ploop._bundle import Bundle  # pylint: disable=import-outside-toplevel
        with Bundle(path) as bundle:
            return bundle.open(mode=mode, recover=recover, direct=direct)
    return Disk([*base, path], MODES[mode], raw_base=raw_base, recover=recover, direct=direct)
