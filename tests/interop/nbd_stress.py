#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Attacks an image through nbdkit and the plugin: many requests at once, the server killed at a random moment, then every sector judged.

  nbd_stress.py BUILD [--rounds N] [--seconds S] [--seed SEED] [--image FILE]

Each 512-byte sector that is written carries its own number and the version of the write, so that a foreign, stale or torn
sector is known as such. What a sector may hold is kept as a history: what was durable last (a FLUSH or FUA that succeeded after it
completed), and everything submitted since. Some rounds end cleanly, with requests in flight or without: then the image must be clean, and
hold what completed last or was in flight.

A round prints a line; the first wrong sector ends the run with exit status 1 and leaves the image. The seed chooses the requests,
not their timing, so it replays the shape of a failure, not its moment.
"""
import argparse
import errno
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time

import nbd

SECTOR = 512
ZERO = bytes(SECTOR)


def pattern(sector, version):
    return struct.pack("<QQ", sector, version) * (SECTOR // 16)


def describe(sector, data):
    """What a sector's bytes are, for a message."""
    if data == ZERO:
        return "zeros"
    number, version = struct.unpack_from("<QQ", data)
    if data == pattern(number, version):
        return f"version {version}" if number == sector else f"sector {number}, version {version}"
    parts = sorted({struct.unpack_from("<QQ", data, at) for at in range(0, SECTOR, 16)})
    return f"a mix: {parts[:6]}"


class Wrong(Exception):
    """The image or the server did what it must not."""


class Write:
    """One change of a sector, as the model sees it: to a pattern, to zeros, or (a discard) perhaps to zeros."""

    __slots__ = ("version", "kind", "done_at")

    def __init__(self, version, kind):
        self.version = version
        self.kind = kind  # "data", "zero", "maybe"
        self.done_at = None

    def content(self, sector):
        return pattern(sector, self.version) if self.kind == "data" else ZERO


class Model:
    """What each sector may hold: `durable`, or what `later` says was submitted since, in order."""

    def __init__(self, sectors, cluster_sectors):
        self.lock = threading.Lock()
        self.sectors = sectors
        self.cluster_sectors = cluster_sectors
        self.durable = {}
        self.later = {}
        self.busy = set()
        self.version = 0
        self.clock = 0

    def begin(self, first, count, kind):
        """A change is submitted; None where it would overlap one in flight, which has no order to it."""
        with self.lock:
            span = range(first, first + count)
            if not self.busy.isdisjoint(span):
                return None
            self.version += 1
            change = Write(self.version, kind)
            self.busy.update(span)
            for sector in span:
                self.later.setdefault(sector, []).append(change)
            return change

    def done(self, first, count, change, fua):
        with self.lock:
            self.clock += 1
            change.done_at = self.clock
            self.busy.difference_update(range(first, first + count))
            if fua:
                for sector in range(first, first + count):
                    self._settle(sector, self.clock)

    def flush_begin(self):
        with self.lock:
            return self.clock

    def flush_done(self, begun_at):
        with self.lock:
            for sector in list(self.later):
                self._settle(sector, begun_at)

    def _settle(self, sector, until):
        changes = self.later.get(sector, [])
        for at in range(len(changes) - 1, -1, -1):
            change = changes[at]
            if change.kind != "maybe" and change.done_at is not None and change.done_at <= until:
                self.durable[sector] = change
                del changes[: at + 1]
                break
        if not changes:
            self.later.pop(sector, None)

    def _current(self, sector):
        """From the last completed change on: what a read that begins now may see."""
        changes = self.later.get(sector, [])
        start = 0
        for at, change in enumerate(changes):
            if change.kind != "maybe" and change.done_at is not None:
                start = at + 1
        last = changes[start - 1] if start else self.durable.get(sector)
        return [last] + changes[start:]

    def read_begin(self, first, count):
        with self.lock:
            return self.version, [(self._current(sector), sector in self.busy) for sector in range(first, first + count)]

    def read_done(self, first, data, begun):
        version, allowed = begun
        with self.lock:
            for at, (changes, busy) in enumerate(allowed):
                sector = first + at
                got = bytes(data[at * SECTOR : (at + 1) * SECTOR])
                now = [c for c in self.later.get(sector, []) + [self.durable.get(sector)] if c and c.version > version]
                in_flight = busy or now
                if not (in_flight and self._is_mix(sector, got, changes + now)):
                    self._judge(sector, got, changes + now, "read")

    @staticmethod
    def _is_mix(sector, got, changes):
        """
        Parts of contents that a read may see when a write of the same sector is in flight with it: the kernel copies from its page
        cache without a lock against writers, in words.
        """
        contents = [change.content(sector) if change else ZERO for change in changes]
        return all(any(got[at : at + 8] == content[at : at + 8] for content in contents) for at in range(0, SECTOR, 8))

    @staticmethod
    def _judge(sector, got, changes, when):
        for change in changes:
            if got == (change.content(sector) if change else ZERO):
                return change
        may = ", ".join(f"{c.kind} {c.version}" if c else "never written" for c in changes)
        raise Wrong(f"{when}: sector {sector} holds {describe(sector, got)}; it may hold: {may}")

    def judge_disk(self, read, end):
        """Every sector; what was found is durable from now on."""
        self.busy.clear()
        step = 2048
        for first in range(0, self.sectors, step):
            count = min(step, self.sectors - first)
            data = read(count * SECTOR, first * SECTOR)
            for at in range(count):
                sector = first + at
                got = bytes(data[at * SECTOR : (at + 1) * SECTOR])
                changes = [self.durable.get(sector)] + self.later.get(sector, []) if end == "killed" else self._current(sector)
                found = self._judge(sector, got, changes, end)
                if found is not None:
                    self.durable[sector] = found if got != ZERO or found.kind != "maybe" else Write(found.version, "zero")
                else:
                    self.durable.pop(sector, None)
        self.later.clear()


class Server:
    def __init__(self, build, work, image, parameters):
        self.socket = os.path.join(work, "socket")
        self.log = os.path.join(work, "server.log")
        self.parameters = parameters
        pidfile = os.path.join(work, "pid")
        for path in (self.socket, pidfile):
            if os.path.exists(path):
                os.remove(path)
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                ["nbdkit", "--foreground", "--unix", self.socket, "--pidfile", pidfile,
                 os.path.join(build, "tools/nbdkit-ploop-plugin.so"), f"image={image}", *parameters],
                stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while not (os.path.exists(pidfile) and os.path.getsize(pidfile)):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise Wrong(f"the server did not start: {self.message()}")
            time.sleep(0.01)

    def message(self):
        with open(self.log, encoding="utf-8", errors="replace") as log:
            lines = [line for line in log if "not closed cleanly: recovering" not in line]
            return "".join(lines).strip()

    def connect(self):
        handle = nbd.NBD()
        handle.connect_unix(self.socket)
        return handle

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.terminate()
        self.ended()

    def ended(self, expected="nothing"):
        """It ends well, and says nothing but lines like `expected`."""
        try:
            status = self.process.wait(60)
        except subprocess.TimeoutExpired:
            raise Wrong("the server does not end") from None
        said = [line for line in self.message().splitlines() if not re.search(expected, line)]
        if status or said:
            raise Wrong(f"the server ended with {status}: {said}")


class Client(threading.Thread):
    """One connection that keeps requests in flight until told to stop or until the server is gone."""

    def __init__(self, server, model, seed, stop, depth, flushes):
        super().__init__(daemon=True)
        self.random = random.Random(seed)
        self.model = model
        self.stop = stop
        self.depth = depth
        self.weights = (50, 4, 26, 8, 5, flushes)
        self.handle = server.connect()
        self.in_flight = 0
        self.count = 0
        self.wrong = None

    def run(self):
        try:
            while not self.stop.is_set() and self.wrong is None:
                while self.in_flight < self.depth and not self.stop.is_set():
                    self.submit()
                self.handle.poll(100)
            while self.in_flight and self.wrong is None:
                self.handle.poll(1000)
            self.handle.shutdown()  # nbdkit waits for connections that are idle
        except nbd.Error:
            pass  # the server is gone, or will be found dead
        except Wrong as wrong:
            self.wrong = wrong

    def span(self):
        """Sectors of a request: short ones, ones that cross clusters, many of them in a few hot places."""
        count = self.random.choice((1, 1, 2, 7, 8, 8, 16, 63, 128))
        if self.random.random() < 0.5:
            first = self.random.randrange(self.model.sectors // 16)
        else:
            first = self.random.randrange(self.model.sectors)
        return first, min(count, self.model.sectors - first)

    def clusters(self):
        """Sectors of some whole clusters, or of what span() says: a discard works by clusters."""
        first, count = self.span()
        if self.random.random() < 0.6:
            size = self.model.cluster_sectors
            first -= first % size
            count = size * self.random.choice((1, 1, 1, 2, 5))
        return first, min(count, self.model.sectors - first)

    def submit(self):
        kind = self.random.choices(("write", "fua", "read", "zero", "trim", "flush"), self.weights)[0]
        getattr(self, kind)()

    def sent(self):
        self.in_flight += 1
        self.count += 1

    def finish(self, error, then):
        """The end of a request: a dead connection says nothing, any other error is wrong."""
        self.in_flight -= 1
        value = error.value
        if value:
            if value not in (errno.ENOTCONN, errno.ESHUTDOWN, errno.ECONNRESET, errno.EPIPE):
                self.wrong = self.wrong or Wrong(f"a request failed: {os.strerror(value)}")
            return 1
        try:
            then()
        except Wrong as wrong:
            self.wrong = self.wrong or wrong
        return 1

    def write(self, fua=False):
        first, count = self.span()
        change = self.model.begin(first, count, "data")
        if change is None:
            return
        data = b"".join(pattern(sector, change.version) for sector in range(first, first + count))
        self.sent()
        self.handle.aio_pwrite(
            nbd.Buffer.from_bytearray(bytearray(data)), first * SECTOR,
            lambda error: self.finish(error, lambda: self.model.done(first, count, change, fua)),
            nbd.CMD_FLAG_FUA if fua else 0)

    def fua(self):
        self.write(fua=True)

    def read(self):
        first, count = self.span()
        buffer = nbd.Buffer(count * SECTOR)
        begun = self.model.read_begin(first, count)
        self.sent()
        self.handle.aio_pread(
            buffer, first * SECTOR,
            lambda error: self.finish(error, lambda: self.model.read_done(first, buffer.to_bytearray(), begun)))

    def zero(self):
        first, count = self.clusters()
        flags = self.random.choice((0, nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_FUA))
        change = self.model.begin(first, count, "zero")
        if change is None:
            return
        self.sent()
        self.handle.aio_zero(
            count * SECTOR, first * SECTOR,
            lambda error: self.finish(error, lambda: self.model.done(first, count, change, flags == nbd.CMD_FLAG_FUA)), flags)

    def trim(self):
        first, count = self.clusters()
        change = self.model.begin(first, count, "maybe")
        if change is None:
            return
        self.sent()
        self.handle.aio_trim(
            count * SECTOR, first * SECTOR,
            lambda error: self.finish(error, lambda: self.model.done(first, count, change, False)),
            self.random.choice((0, 0, nbd.CMD_FLAG_FUA)))

    def flush(self):
        begun_at = self.model.flush_begin()
        self.sent()
        self.handle.aio_flush(lambda error: self.finish(error, lambda: self.model.flush_done(begun_at)))


def shape(chooser):
    """A new image's size, cluster and options: small clusters, so that the map has many pages; an odd size now and then."""
    cluster, megabytes = chooser.choice(((4096, 12), (4096, 64), (65536, 32), (1048576, 48), (4194304, 64)))
    size = megabytes << 20
    if chooser.random() < 0.5:
        size -= SECTOR * chooser.randrange(1, 2 * cluster // SECTOR)
    return size, cluster, ["--size", str(size), "--cluster", str(cluster)] + (["--v1"] if chooser.random() < 0.3 else [])


def run(arguments, message, good=(0,)):
    result = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if result.returncode not in good:
        raise Wrong(f"{message}: {result.stdout.strip()}")


def can_bypass_the_page_cache(image):
    """A tmpfs cannot."""
    try:
        os.close(os.open(image, os.O_RDONLY | os.O_DIRECT))
    except OSError:
        return False
    return True


def attack(options, work, image, model, chooser, number, dirty):
    """One round: serve, attack, end (by force or not), serve again and judge. Returns whether the image was left unclean."""
    delay = chooser.choice((0, 1, 20, 500))
    parameters = [f"delay={delay}", f"max-age={delay * 4}"] + (["recover=1"] if dirty else [])
    if chooser.random() < 0.3 and can_bypass_the_page_cache(image):
        parameters.append("direct=1")
    server = Server(options.build, work, image, parameters)
    stop = threading.Event()
    connections, depth, flushes = chooser.choice((1, 4, 4)), chooser.choice((1, 4, 12)), chooser.choice((0, 0.1, 2, 10))
    clients = []
    try:
        clients = [Client(server, model, chooser.random(), stop, depth, flushes) for _ in range(connections)]
        for client in clients:
            client.start()
        time.sleep(chooser.uniform(0.05, 2 * options.seconds))
        end = chooser.choices(("killed", "terminated", "closed"), (60, 15, 25))[0]
        if end == "killed":
            server.kill()
        elif end == "terminated":
            server.process.terminate()
        stop.set()
        for client in clients:
            client.join(60)
            if client.is_alive():
                raise Wrong(f"a request never completed: {server.message()}")
            if client.wrong:
                raise client.wrong
        count = sum(client.count for client in clients)
        clients.clear()
        if end == "closed":
            server.stop()
        elif end == "terminated":
            server.ended("read data|write data|reply")
        elif server.message():
            raise Wrong(f"the server complained: {server.message()}")
        if end != "killed":
            # Space inside the file that a discard or an earlier kill left counts as leaked.
            run(["python3", options.oracle, "check", image], "a closed image is not clean", (0, 3))
    finally:
        stop.set()
        if server.process.poll() is None:
            server.kill()

    # Whether the server was killed while opening or not, recover=1 must succeed.
    server = Server(options.build, work, image, ["recover=1"] if end == "killed" else [])
    try:
        handle = server.connect()
        model.judge_disk(handle.pread, end)
        handle.shutdown()
        again = chooser.random() < 0.3
        if again:
            server.kill()
        else:
            server.stop()
    finally:
        if server.process.poll() is None:
            server.kill()
    print(f"round {number}: {count} requests, {connections} x {depth} at once, {' '.join(parameters)}, {end}: right", flush=True)
    return again


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=0.5, help="of a round, on average")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    options.oracle = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../oracle/ploop_oracle.py")
    chooser = random.Random(options.seed)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    work = tempfile.mkdtemp(prefix="nbd-stress.")
    image = os.path.join(work, "disk.hds")
    print(f"seed {options.seed}", flush=True)
    keep = False
    try:
        model, dirty = None, False
        for number in range(options.rounds):
            if number % 4 == 0:
                size, cluster, arguments = shape(chooser)
                if os.path.exists(image):
                    os.remove(image)
                run([os.path.join(options.build, "tools/ploopctl"), "create", *arguments, image], "create")
                model, dirty = Model(size // SECTOR, cluster // SECTOR), False
                print(f"image: {' '.join(arguments)}", flush=True)
            dirty = attack(options, work, image, model, chooser, number, dirty)
    except Wrong as wrong:
        keep = True
        print(f"WRONG in round {number}, seed {options.seed}, {work} is kept: {wrong}")
        return 1
    finally:
        if not keep:
            shutil.rmtree(work, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
