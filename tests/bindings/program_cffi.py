#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The library through cffi, which reads the headers themselves, and a backend in Python: tests/bindings/common says what it does.

  program_cffi.py HEADERS IMAGE      HEADERS: the public headers as the preprocessor leaves them
"""
import pathlib
import sys
import threading

import cffi

MIB = 1 << 20
FOREVER = 2**64 - 1
ffi = cffi.FFI()
ffi.cdef("struct iovec { void *iov_base; size_t iov_len; };\n" + pathlib.Path(sys.argv[1]).read_text())
library = ffi.dlopen("libploop.so.2")


def pattern(first):
    return bytes((7 * i + first) % 251 for i in range(4096))


def sized(name, **fields):
    return ffi.new(f"struct {name} *", {"size": ffi.sizeof(f"struct {name}"), **fields})


class Storage:
    """A backend over memory."""

    def __init__(self):
        self.bytes = bytearray()
        self.lock = threading.Lock()
        self.requests = 0
        self.closed = False
        self.functions = [ffi.callback("int(void *, struct ploop_file_info *)", self.get_info),
                          ffi.callback("int(void *, struct ploop_io *)", self.submit),
                          ffi.callback("void(void *)", self.close)]
        get_info, submit, close = self.functions
        self.ops = sized("ploop_io_ops", get_info=get_info, submit=submit, close=close)

    def get_info(self, _, info):
        info.file_size = len(self.bytes)
        info.capabilities = library.PLOOP_FILE_CAN_GROW
        info.request_alignment = 1
        return 0

    def submit(self, _, io):
        with self.lock:
            self.requests += 1
            result = self.carry_out(io)
        library.ploop_io_complete(io, result)
        return 0

    def close(self, _):
        self.closed = True

    def carry_out(self, io):
        if io.op == library.PLOOP_IO_TRUNCATE:
            del self.bytes[io.offset:]
            self.bytes.extend(bytes(io.offset - len(self.bytes)))
        if io.op not in (library.PLOOP_IO_READ, library.PLOOP_IO_WRITE):
            return 0
        place = io.offset
        for piece in (io.iov[i] for i in range(io.iov_count)):
            memory = ffi.buffer(piece.iov_base, piece.iov_len)
            if io.op == library.PLOOP_IO_WRITE:
                self.bytes.extend(bytes(max(0, place - len(self.bytes))))
                self.bytes[place:place + piece.iov_len] = memory[:]
                place += piece.iov_len
            else:
                data = self.bytes[place:place + piece.iov_len]
                memory[:len(data)] = bytes(data)
                place += len(data)
        return place - io.offset


class Requests:
    """One request at a time, in either of the two ways to hear of its end."""

    def __init__(self, device):
        self.queue = library.ploop_dev_queue(device, 0)
        self.pio = library.ploop_pio_get(self.queue)
        self.handle = ffi.new_handle(self)
        self.result = None

    def submit(self):
        assert library.ploop_queue_submit(self.queue, [self.pio], 1) == 1

    def by_callback(self):
        self.result = None
        library.ploop_pio_set_callback(self.pio, done, self.handle)
        self.submit()
        while self.result is None:
            assert library.ploop_queue_wait(self.queue, FOREVER) >= 0
        assert self.result == 0

    def by_array(self):
        completions = ffi.new("struct ploop_completion[4]")
        library.ploop_pio_set_callback(self.pio, ffi.NULL, self.handle)
        self.submit()
        while True:
            count = library.ploop_queue_reap(self.queue, completions, 4)
            if count:
                break
            assert library.ploop_queue_wait(self.queue, FOREVER) == 0
        one = completions[0]
        assert (count, one.pio, one.kind, one.result) == (1, self.pio, library.PLOOP_COMPLETION_PIO, 0)
        assert ffi.from_handle(one.user_data) is self

    def round(self, offset, content, finish):
        memory = ffi.new("char[]", len(content))
        ffi.memmove(memory, content, len(content))
        piece = ffi.new("struct iovec *", {"iov_base": memory, "iov_len": len(content)})
        library.ploop_pio_prep_writev(self.pio, offset, piece, 1, 0)
        finish()
        library.ploop_pio_prep_flush(self.pio)
        finish()
        ffi.memmove(memory, bytes(len(content)), len(content))
        library.ploop_pio_prep_readv(self.pio, offset, piece, 1)
        finish()
        assert ffi.buffer(memory)[:] == content


@ffi.callback("ploop_pio_fn")
def done(pio, result, user_data):
    requests = ffi.from_handle(user_data)
    assert pio == requests.pio
    requests.result = result


def use(file):
    options = sized("ploop_image_options", disk_size=64 * MIB, cluster_size=64 << 10)
    assert library.ploop_image_create(file, options) == 0
    device = ffi.new("ploop_dev **")
    assert library.ploop_dev_open([file], 1, ffi.NULL, device) == 0
    requests = Requests(device[0])
    requests.round(1 * MIB, pattern(1), requests.by_callback)
    requests.round(2 * MIB, pattern(2), requests.by_array)
    library.ploop_pio_put(requests.pio)
    assert library.ploop_dev_close(device[0]) == 0
    result = sized("ploop_check_result")
    assert library.ploop_image_check(file, ffi.NULL, result) == 0
    assert (result.errors, result.leaks) == (0, 0)
    library.ploop_file_close(file)


def main():
    file = ffi.new("ploop_file **")
    flags = library.PLOOP_FILE_READ_WRITE | library.PLOOP_FILE_CREATE
    assert library.ploop_file_open_posix(sys.argv[2].encode(), flags, file) == 0
    use(file[0])
    storage = Storage()
    assert library.ploop_file_create(storage.ops, ffi.NULL, file) == 0
    use(file[0])
    assert storage.requests and storage.closed


main()
