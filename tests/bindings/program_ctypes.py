#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The library through ctypes, and a backend in Python: tests/bindings/common says what it does."""
import ctypes
import errno
import sys
import threading

from ploop import _native as native
from ploop._native import library, sized

MIB = 1 << 20
FOREVER = 2**64 - 1


def pattern(first):
    return bytes((7 * i + first) % 251 for i in range(4096))


class Storage:
    """A backend over memory."""

    def __init__(self):
        self.bytes = bytearray()
        self.lock = threading.Lock()
        self.requests = 0
        self.closed = False
        self.ops = sized(native.IoOps, get_info=native.GetInfoFn(self.get_info), submit=native.SubmitFn(self.submit),
                         close=native.CloseFn(self.close))

    def get_info(self, _, info):
        info[0].file_size = len(self.bytes)
        info[0].capabilities = native.FILE_CAN_GROW
        info[0].request_alignment = 1
        return 0

    def submit(self, _, io):
        with self.lock:
            self.requests += 1
            result = self.carry_out(io[0])
        library.ploop_io_complete(io, result)
        return 0

    def close(self, _):
        self.closed = True

    def carry_out(self, io):
        if io.op == native.IO_TRUNCATE:
            del self.bytes[io.offset:]
            self.bytes.extend(bytes(io.offset - len(self.bytes)))
            return 0
        if io.op == native.IO_SYNC:
            return 0
        if io.op not in (native.IO_READ, native.IO_WRITE):
            return -errno.EOPNOTSUPP
        place = io.offset
        for piece in io.iov[:io.iov_count]:
            if io.op == native.IO_WRITE:
                self.bytes.extend(bytes(max(0, place - len(self.bytes))))
                self.bytes[place:place + piece.iov_len] = ctypes.string_at(piece.iov_base, piece.iov_len)
                place += piece.iov_len
            else:
                data = bytes(self.bytes[place:place + piece.iov_len])
                ctypes.memmove(piece.iov_base, data, len(data))
                place += len(data)
        return place - io.offset


class Requests:
    """One request at a time, in either of the two ways to hear of its end."""

    def __init__(self, device):
        self.queue = library.ploop_dev_queue(device, 0)
        self.pio = library.ploop_pio_get(self.queue)
        self.result = None
        self.callback = native.PioFn(self.done)

    def done(self, pio, result, user_data):
        assert pio == self.pio and user_data == 7
        self.result = result

    def submit(self):
        assert library.ploop_queue_submit(self.queue, (ctypes.c_void_p * 1)(self.pio), 1) == 1

    def by_callback(self):
        self.result = None
        library.ploop_pio_set_callback(self.pio, self.callback, 7)
        self.submit()
        while self.result is None:
            assert library.ploop_queue_wait(self.queue, FOREVER) >= 0
        assert self.result == 0

    def by_array(self):
        completions = (native.Completion * 4)()
        library.ploop_pio_set_callback(self.pio, native.PioFn(), 9)
        self.submit()
        while True:
            count = library.ploop_queue_reap(self.queue, completions, 4)
            if count:
                break
            assert library.ploop_queue_wait(self.queue, FOREVER) == 0
        one = completions[0]
        assert (count, one.pio, one.user_data, one.kind, one.result) == (1, self.pio, 9, native.COMPLETION_PIO, 0)

    def round(self, offset, content, finish):
        memory = ctypes.create_string_buffer(content, len(content))
        piece = native.Iovec(ctypes.cast(memory, ctypes.c_void_p), len(content))
        library.ploop_pio_prep_writev(self.pio, offset, piece, 1, 0)
        finish()
        library.ploop_pio_prep_flush(self.pio)
        finish()
        ctypes.memset(memory, 0, len(content))
        library.ploop_pio_prep_readv(self.pio, offset, piece, 1)
        finish()
        assert memory.raw == content


def use(file):
    options = sized(native.ImageOptions, disk_size=64 * MIB, cluster_size=64 << 10)
    assert library.ploop_image_create(file, options) == 0
    device = ctypes.c_void_p()
    assert library.ploop_dev_open((ctypes.c_void_p * 1)(file.value), 1, None, device) == 0
    requests = Requests(device)
    requests.round(1 * MIB, pattern(1), requests.by_callback)
    requests.round(2 * MIB, pattern(2), requests.by_array)
    library.ploop_pio_put(requests.pio)
    assert library.ploop_dev_close(device) == 0
    result = sized(native.CheckResult)
    assert library.ploop_image_check(file, None, result) == 0
    assert (result.errors, result.leaks) == (0, 0)
    library.ploop_file_close(file)


def main():
    file = ctypes.c_void_p()
    assert library.ploop_file_open_posix(sys.argv[1].encode(), native.FILE_READ_WRITE | native.FILE_CREATE, file) == 0
    use(file)
    storage = Storage()
    assert library.ploop_file_create(storage.ops, None, file) == 0
    use(file)
    assert storage.requests and storage.closed


main()
