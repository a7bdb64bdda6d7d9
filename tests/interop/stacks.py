#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Holds ploopctl and the nbdkit plugin against the oracle and a model, over random stacks.

  stacks.py BUILD_DIRECTORY WORK COUNT SEED

Each stack is flattened, then served and written: requests in flight together, many to one cluster, none overlapping. Every third
server is killed after a flush, and its stack recovered. The files below the top never change.
"""
import hashlib
import os
import random
import signal
import subprocess
import sys
import time

import nbd

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "oracle"))
import ploop_oracle  # noqa: E402
import random_stacks  # noqa: E402

SECTOR = 512


def names(paths, option, raw_option):
    return [word for path in paths[:-1] for word in ((raw_option if path.endswith(".raw") else option) % path).split(" ")]


def oracle(paths):
    return ploop_oracle.Stack([("raw:" if path.endswith(".raw") else "") + path for path in reversed(paths)])


def content(path):
    with open(path, "rb") as file:
        return file.read()


def flattened(ploopctl, paths):
    flat = paths[-1] + ".flat"
    subprocess.run([ploopctl, "convert", "--from", "ploop", *names(paths, "--base %s", "--raw-base %s"), paths[-1], flat], check=True)
    data = content(flat)
    os.unlink(flat)
    return data


def checked(ploopctl, paths):
    """Clean, or leaks: the generator makes some, and so does a discard."""
    command = [ploopctl, "check", *names(paths, "--base %s", "--raw-base %s"), paths[-1]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 3), done.stdout + done.stderr


class Server:
    started = []

    def __init__(self, plugin, paths, *parameters):
        socket = paths[-1] + ".sock"
        self.process = subprocess.Popen(["nbdkit", "-f", "-U", socket, plugin, *names(paths, "base=%s", "raw-base=%s"),
                                         "image=" + paths[-1], *parameters])
        Server.started.append(self.process)
        self.nbd = nbd.NBD()
        while not os.path.exists(socket) and self.process.poll() is None:
            time.sleep(0.02)
        for _ in range(500):                     # once bound, the socket exists before it listens
            try:
                self.nbd.connect_unix(socket)
                return
            except nbd.Error:
                if self.process.poll() is not None:
                    raise
                self.nbd = nbd.NBD()
                time.sleep(0.02)
        raise AssertionError("the server does not answer")

    def stop(self, how):
        if how == signal.SIGKILL:
            self.process.kill()
        else:
            self.nbd.shutdown()
            self.process.send_signal(how)
        assert self.process.wait(60) == (0 if how == signal.SIGTERM else -how)
        os.unlink([word for word in self.process.args if word.endswith(".sock")][0])

    def read(self, size):
        return b"".join(self.nbd.pread(min(size - at, 1 << 20), at) for at in range(0, size, 1 << 20))


def batch(rng, server, model, cluster):
    """Requests in flight together; afterwards the model is what the disk must hold."""
    size, taken, done, trims = len(model), [], [], []

    def finished(error):
        done.append(error.value)
        return 1

    for _ in range(rng.randrange(1, 12)):
        begin = rng.randrange(size // SECTOR) * SECTOR
        if rng.randrange(3) == 0:
            begin = begin // cluster * cluster
        length = rng.choice([SECTOR, SECTOR, 3 * SECTOR, cluster, 3 * cluster])
        end = min(begin + length, size)
        if any(begin < other_end and other_begin < end for other_begin, other_end in taken):
            continue
        taken.append((begin, end))
        kind, flags = rng.randrange(6), rng.choice([0, 0, nbd.CMD_FLAG_FUA])
        if kind == 0:
            trims.append((begin, end))
            server.nbd.aio_trim(end - begin, begin, finished, flags)
        elif kind == 1:
            model[begin:end] = bytes(end - begin)
            server.nbd.aio_zero(end - begin, begin, finished, flags | rng.choice([0, nbd.CMD_FLAG_NO_HOLE]))
        else:
            model[begin:end] = rng.randbytes(end - begin)
            server.nbd.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(model[begin:end])), begin, finished, flags)
    while len(done) < len(taken):
        server.nbd.poll(-1)
    assert not any(done), done
    for begin, end in trims:                     # each sector is unchanged or zero: never the content of a file below
        now = server.nbd.pread(end - begin, begin)
        for at in range(0, end - begin, SECTOR):
            assert now[at:at + SECTOR] in (model[begin + at:begin + at + SECTOR], bytes(SECTOR)), "trimmed sector at %d" % (begin + at)
        model[begin:end] = now


def written(rng, plugin, paths, model, cluster, kill):
    server = Server(plugin, paths, "delay=%d" % rng.choice([0, 5, 500]))
    assert server.read(len(model)) == model, "served, it differs"
    for _ in range(rng.randrange(3, 25)):
        batch(rng, server, model, cluster)
        if rng.randrange(4) == 0:
            begin = rng.randrange(len(model) // SECTOR) * SECTOR
            end = min(begin + rng.choice([SECTOR, 5 * cluster]), len(model))
            assert server.nbd.pread(end - begin, begin) == model[begin:end], "%d bytes at %d" % (end - begin, begin)
    assert server.read(len(model)) == model, "what was written is not what is read"
    server.nbd.flush()
    server.stop(signal.SIGKILL if kill else signal.SIGTERM)
    if kill:
        server = Server(plugin, paths, "recover=1")
        assert server.read(len(model)) == model, "what was flushed is not what was recovered"
        server.stop(signal.SIGTERM)


def run(rng, ploopctl, plugin, folder, kill):
    paths = random_stacks.write_stack(rng, folder)
    below = [hashlib.sha256(content(path)).digest() for path in paths[:-1]]
    stack = oracle(paths)
    model, cluster = bytearray(stack.read(0, stack.size)), stack.top.cluster
    assert hashlib.sha256(model).hexdigest() == stack.sha256()
    checked(ploopctl, paths)
    assert flattened(ploopctl, paths) == model, "flattened, it differs"
    written(rng, plugin, paths, model, cluster, kill)
    assert oracle(paths).sha256() == hashlib.sha256(model).hexdigest(), "the oracle reads something else"
    assert flattened(ploopctl, paths) == model, "flattened afterwards, it differs"
    checked(ploopctl, paths)
    assert below == [hashlib.sha256(content(path)).digest() for path in paths[:-1]], "a file below was changed"


def main(argv):
    build, work, count, seed = argv[1], argv[2], int(argv[3]), int(argv[4])
    ploopctl, plugin = (os.path.join(build, "tools", name) for name in ("ploopctl", "nbdkit-ploop-plugin.so"))
    failed = 0
    for number in range(count):
        own = seed * 1000003 + number
        try:
            run(random.Random(own), ploopctl, plugin, os.path.join(work, str(number)), number % 3 == 0)
        except (AssertionError, nbd.Error, subprocess.SubprocessError) as why:
            print("seed %d, stack %d: %s" % (seed, number, why), flush=True)
            failed += 1
        while Server.started:
            Server.started.pop().kill()          # it has ended, unless something went wrong
    print("%d stacks, %d failed" % (count, failed))
    return 1 if failed or not count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
