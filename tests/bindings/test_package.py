#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The Python package, as it is installed: what README.md and the docstrings say of it. Run in an empty directory."""
import errno
import io
import os
import pathlib
import random
import re
import subprocess
import sys
import unittest

import ploop

MIB = 1 << 20
README = pathlib.Path(sys.argv.pop(1))


def fails(number):
    """A context in which a call fails with this errno."""
    class Context:
        def __enter__(self):
            return self

        def __exit__(self, _, error, __):
            assert isinstance(error, OSError) and error.errno == number, error
            self.error = error
            return True
    return Context()


class DiskTest(unittest.TestCase):
    def setUp(self):
        self.path = f"{self.id()}.hds"
        ploop.create(self.path, 16 * MIB, cluster_size=64 << 10)

    def test_any_range_is_written_and_read(self):
        chance = random.Random(1)
        model = bytearray(16 * MIB)
        with ploop.open(self.path, "r+b") as disk:
            for _ in range(200):
                offset = chance.randrange(16 * MIB)
                data = chance.randbytes(min(chance.choice((1, 511, 512, 513, 4096, 70000)), 16 * MIB - offset))
                self.assertEqual(disk.pwrite(data, offset), len(data))
                model[offset:offset + len(data)] = data
                begin = chance.randrange(16 * MIB)
                self.assertEqual(disk.pread(5000, begin), model[begin:begin + 5000])
        with ploop.open(self.path) as disk:
            self.assertEqual(disk.read(), model)
        self.assertTrue(ploop.check(self.path).clean)

    def test_it_is_a_file_of_the_io_module(self):
        with io.BufferedRandom(ploop.open(self.path, "r+b")) as disk:
            disk.write(b"one\ntwo\n")
            disk.seek(0)
            self.assertEqual(disk.readline(), b"one\n")
            self.assertEqual(disk.seek(-4, io.SEEK_END), 16 * MIB - 4)
            self.assertEqual(disk.read(), bytes(4))
        with ploop.open(self.path) as disk:
            self.assertEqual((disk.readable(), disk.writable(), disk.seekable()), (True, False, True))
            self.assertEqual(disk.read(4), b"one\n")
            self.assertEqual(disk.tell(), 4)
        self.assertTrue(disk.closed)
        self.assertRaises(ValueError, disk.pread, 1, 0)
        disk.close()

    def test_the_end_of_the_disk(self):
        with ploop.open(self.path, "r+b") as disk:
            self.assertEqual(disk.pread(10, 16 * MIB - 3), bytes(3))
            self.assertEqual(disk.pread(10, 16 * MIB), b"")
            self.assertEqual(disk.pwrite(b"12345", 16 * MIB - 3), 3)
            with fails(errno.ENOSPC):
                disk.pwrite(b"1", 16 * MIB)
            self.assertEqual(disk.pwrite(b"", 16 * MIB), 0)
            self.assertRaises(ValueError, disk.seek, -1)

    def test_a_disk_for_reading_is_not_written(self):
        with ploop.open(self.path) as disk, fails(errno.EROFS):
            disk.pwrite(bytes(512), 0)
        self.assertRaises(ValueError, ploop.open, self.path, "w")

    def test_a_flush_is_durable(self):
        # A process that ends without a close is what a crash is to the image.
        code = "import os, ploop, sys; d = ploop.open(sys.argv[1], 'r+b'); d.write(b'kept'); d.flush(); os._exit(0)"
        subprocess.run([sys.executable, "-c", code, self.path], check=True)
        self.assertTrue(ploop.info(self.path).in_use)
        with fails(errno.EUCLEAN) as context:
            ploop.open(self.path, "r+b")
        self.assertIn("in_use", context.error.strerror)
        self.assertTrue(ploop.check(self.path).recoverable)
        with ploop.open(self.path, "r+b", recover=True) as disk:
            self.assertEqual(disk.read(4), b"kept")
        self.assertFalse(ploop.info(self.path).in_use)

    def test_zeros_and_extents(self):
        with ploop.open(self.path, "r+b") as disk:
            disk.pwrite(b"x" * (128 << 10), 64 << 10)
            disk.discard(64 << 10, 64 << 10)
            disk.write_zeroes(128 << 10, 512, unmap=False)
            extents = list(disk.extents())
            self.assertEqual([(one.offset, one.length, one.level) for one in extents],
                             [(0, 128 << 10, None), (128 << 10, 64 << 10, 0), (192 << 10, 16 * MIB - (192 << 10), None)])
            self.assertEqual(disk.pread(514, 128 << 10), bytes(512) + b"xx")
            self.assertEqual(disk.info().clusters_mapped, 1)
            stats = {kind: disk.stats(kind) for kind in ("read", "write", "write_zeroes", "discard", "flush")}
            self.assertEqual({kind: (one.requests, one.bytes, one.errors) for kind, one in stats.items()},
                             {"read": (1, 1024, 0), "write": (1, 128 << 10, 0), "write_zeroes": (1, 512, 0),
                              "discard": (1, 64 << 10, 0), "flush": (0, 0, 0)})

    def test_snapshots_and_merges(self):
        top = self.path + ".top"
        calls = []
        with ploop.open(self.path, "r+b") as disk:
            disk.pwrite(b"old", 0)
            disk.snapshot(top, lambda: calls.append(disk.paths))
            self.assertEqual(calls, [[self.path]])
            disk.pwrite(b"new", 0)
            self.assertEqual(disk.paths, [self.path, top])
        with ploop.open(top, "r+b", base=[self.path]) as disk, ploop.open(self.path) as old:
            self.assertEqual((old.pread(3, 0), disk.pread(3, 0)), (b"old", b"new"))
        with ploop.open(top, "r+b", base=[self.path]) as disk:
            self.assertEqual(disk.merge(), self.path)
        with ploop.open(top) as disk:
            self.assertEqual(disk.read(3), b"new")

    def test_a_refused_snapshot_leaves_all_as_it_was(self):
        def refuse():
            raise KeyError("not now")
        with ploop.open(self.path, "r+b") as disk:
            self.assertRaises(KeyError, disk.snapshot, self.path + ".top", refuse)
            self.assertEqual(disk.paths, [self.path])
            self.assertFalse(os.path.exists(self.path + ".top"))
            disk.pwrite(b"goes on", 0)
            with fails(errno.EINVAL):
                disk.merge()
        with ploop.open(self.path) as disk:
            self.assertEqual(disk.read(7), b"goes on")

    def test_grow(self):
        with ploop.open(self.path, "r+b") as disk:
            disk.grow(32 * MIB)
            self.assertEqual(disk.size, 32 * MIB)
        self.assertEqual(ploop.info(self.path).disk_size, 32 * MIB)


class ImageTest(unittest.TestCase):
    def test_a_header_is_read(self):
        ploop.create("image.hds", 4 * MIB, version=1, cluster_size=64 << 10)
        info = ploop.info("image.hds")
        self.assertEqual((info.version, info.disk_size, info.cluster_size, info.in_use), (1, 4 * MIB, 64 << 10, False))
        with fails(errno.EEXIST):
            ploop.create("image.hds", MIB)

    def test_what_is_wrong_is_named(self):
        pathlib.Path("text").write_text("no image" * 100)
        with fails(errno.EINVAL) as context:
            ploop.info("text")
        self.assertEqual(context.error.filename, "text")
        with fails(errno.ENOENT):
            ploop.open("nothing")

    def test_a_check_repairs(self):
        ploop.create("leaky.hds", 4 * MIB, cluster_size=64 << 10)
        with open("leaky.hds", "ab") as file:
            file.write(b"x" * (64 << 10))
        found = ploop.check("leaky.hds")
        self.assertEqual((found.errors, found.leaks, found.clean, found.findings[0].kind), (0, 1, False, 9))
        self.assertEqual(ploop.check("leaky.hds", leaks=True).repaired, 1)
        self.assertTrue(ploop.check("leaky.hds").clean)

    def test_the_version(self):
        self.assertEqual(ploop.version()[0], 2)


class BundleTest(unittest.TestCase):
    def test_snapshots_are_listed_and_read(self):
        ploop.Bundle.create("disk.hdd", 16 * MIB)
        with ploop.open("disk.hdd", "r+b") as disk:
            disk.write_buffer(b"monday")
        with ploop.Bundle("disk.hdd", "r+") as bundle:
            guid = bundle.take_snapshot()
            with bundle.open(mode="r+b") as disk:
                disk.write(b"sunday")
            self.assertEqual(bundle.size, 16 * MIB)
            first, = [one for one in bundle.snapshots if one.guid == guid]
            top, = [one for one in bundle.snapshots if one.is_top]
            self.assertEqual((first.parent, top.parent), (None, guid))
            self.assertTrue(os.path.exists(top.path))
            with bundle.open(guid) as old, bundle.open() as new:
                self.assertEqual(old.read_buffer_at_offset(6, 0), b"monday")
                new.seek_offset(0, os.SEEK_SET)
                self.assertEqual((new.read_buffer(6), new.get_offset(), new.get_media_size()), (b"sunday", 6, 16 * MIB))
            self.assertRaises(ValueError, bundle.open, guid, "r+b")
            bundle.switch(guid)
            with bundle.open() as disk:
                self.assertEqual(disk.read(6), b"monday")
            with fails(errno.ENOENT):
                bundle.delete("{00000000-1111-2222-3333-444444444444}")
            bundle.merge()
            with bundle.open() as disk:
                self.assertEqual(disk.read(6), b"monday")
            self.assertEqual(len(bundle.snapshots), 1)
            with fails(errno.EINVAL):
                bundle.merge(down=True)


class ReadmeTest(unittest.TestCase):
    def test_what_it_shows_runs(self):
        blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
        self.assertEqual(len(blocks), 3)
        for number, block in enumerate(blocks):
            os.mkdir(f"readme{number}")
            done = subprocess.run([sys.executable, "-c", block], cwd=f"readme{number}", stdout=subprocess.PIPE, check=True)
            expected = [line.split("# ")[1] for line in block.splitlines() if "# b'" in line]
            printed = done.stdout.decode().splitlines()
            for line in expected:
                self.assertIn(line, printed)


unittest.main()
