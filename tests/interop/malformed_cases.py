#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Holds the library and ploopctl against the table of malformed images, and prints it: case, expected, actual.

  malformed_cases.py BUILD_DIRECTORY CASES      CASES as malformed.py wrote them

The library is called through its shared object, as a binding would. A column's cell is right where it equals the table's; the
repair's is right where all judges that can judge the image find it clean afterwards and the guest's data is still there.
Stacks are not among the cases run: this version opens one delta.
"""
import ctypes
import errno
import json
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "oracle"))
import ploop_oracle  # noqa: E402

# What this version does not do yet, and refuses: case, column, what it does instead.
NOT_YET = {}

FILE_READ_ONLY, FILE_READ_WRITE, DEV_READ_ONLY = 1, 2, 1
LOG = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_char_p)


class DevConfig(ctypes.Structure):
    """The beginning of struct ploop_dev_config, and more bytes than it will ever have."""
    _fields_ = [("size", ctypes.c_size_t), ("flags", ctypes.c_uint32), ("counts", ctypes.c_uint32 * 5),
                ("times", ctypes.c_uint64 * 5), ("clock", ctypes.c_void_p), ("log", LOG), ("rest", ctypes.c_uint64 * 40)]


def find(build, name):
    for folder, _, files in os.walk(build):
        if name in files:
            return os.path.join(folder, name)
    sys.exit("no %s below %s" % (name, build))


class Library:
    def __init__(self, build):
        self.so = ctypes.CDLL(find(build, "libploop.so.2"))
        self.so.ploop_dev_pread.restype = ctypes.c_int64
        self.so.ploop_dev_pread.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint64, ctypes.c_uint64]
        for name in ("ploop_dev_close", "ploop_file_close"):
            getattr(self.so, name).argtypes = [ctypes.c_void_p]

    def open(self, path, read_only):
        """(error, log lines, device, file)"""
        lines, file, dev = [], ctypes.c_void_p(), ctypes.c_void_p()
        log = LOG(lambda _data, _level, _id, text: lines.append(text.decode()))
        err = self.so.ploop_file_open_posix(path.encode(), FILE_READ_ONLY if read_only else FILE_READ_WRITE, ctypes.byref(file))
        if err:
            sys.exit("%s: ploop_file_open_posix: %s" % (path, os.strerror(-err)))
        config = DevConfig()
        self.so.ploop_dev_config_init(ctypes.byref(config), ctypes.sizeof(config))
        config.flags, config.log = DEV_READ_ONLY if read_only else 0, log
        err = self.so.ploop_dev_open(ctypes.byref(file), 1, ctypes.byref(config), ctypes.byref(dev))
        self.keep = log
        return err, lines, dev, file

    def close(self, dev, file):
        err = self.so.ploop_dev_close(dev) if dev else 0
        self.so.ploop_file_close(file)
        return err

    def read(self, dev, offset, length):
        buffer = ctypes.create_string_buffer(length)
        got = self.so.ploop_dev_pread(dev, buffer, length, offset)
        return buffer.raw if got == length else got


def content(path):
    """What a guest may see of each cluster: bytes, None for zeros, or -EIO."""
    try:
        image = ploop_oracle.Image(path)
    except (ploop_oracle.Corrupt, ploop_oracle.NotAnImage):
        return None, []
    clusters = []
    for index in range(-(-image.disk_sectors // image.cluster_sectors)):
        try:
            clusters.append(image.read_cluster(index))
        except ploop_oracle.Corrupt:
            clusters.append(-errno.EIO)
    return image, clusters


def seen_wrong(library, dev, image, clusters):
    """The first guest cluster that does not read as it must, or None."""
    for index, expected in enumerate(clusters):
        length = min(image.cluster, image.disk_sectors * 512 - index * image.cluster)
        actual = library.read(dev, index * image.cluster, length)
        if actual != (bytes(length) if expected is None else expected if isinstance(expected, int) else expected[:length]):
            return index
    return None


def read(path):
    with open(path, "rb") as file:
        return file.read()


def expected_error(check, why):
    return -errno.EINVAL if check == "1" else -errno.ENOTSUP if "may be read, must not" in why else -errno.EUCLEAN


def opened(library, path, read_only, check, why):
    """What opening does, as the table says it, or what is wrong with it."""
    before = read(path)
    image, clusters = content(path)
    err, lines, dev, file = library.open(path, read_only)
    if err:
        library.close(None, file)
        if read(path) != before:
            return "rejected, and changed"
        if not lines or any("\n" in line for line in lines):
            return "rejected without one clear line: %r" % lines
        if err != expected_error(check, why):
            return "rejected with %s" % errno.errorcode[-err]
        return "reject"
    wrong = seen_wrong(library, dev, image, clusters)
    err = library.close(dev, file)
    if wrong is not None:
        return "guest cluster %d reads wrong" % wrong
    if err:
        return "close: %s" % errno.errorcode[-err]
    if read_only and read(path) != before:
        return "changed by reading"
    bad = ["eio:%d" % index for index, cluster in enumerate(clusters) if isinstance(cluster, int)]
    if not read_only and not bad and content(path)[1] != clusters:
        return "other data after the close"
    return ",".join(bad) or "ok"


def checked(ploopctl, path, check):
    before = read(path)
    plain = subprocess.run([ploopctl, "check", path], capture_output=True, text=True, timeout=60, check=False)
    if read(path) != before:
        return "changed"
    if plain.returncode == 1:
        return "1" if plain.stderr.count("\n") == 1 else "1 without one line: %r" % plain.stderr
    found = json.loads(subprocess.run([ploopctl, "check", "--json", path], capture_output=True, text=True, timeout=60,
                                      check=False).stdout)
    if plain.returncode == 2 and not found["errors"] or plain.returncode == 3 and (found["errors"] or not found["leaks"]):
        return "%d, and the JSON says otherwise" % plain.returncode
    return str(plain.returncode)


def judges(path, image):
    """The judges that know this kind of image, with how they are called."""
    yield [sys.executable, ploop_oracle.__file__, "check", path]
    if image.ext_off:
        return                    # QEMU 7.2 calls a bitmap's clusters leaks and opens no unknown feature; OpenVZ's tool knows none
    yield ["qemu-img", "check", "-q", "-f", "parallels", path]
    size = image.cluster
    image.file.seek(64 + 4 * image.bat_entries)
    # OpenVZ's tool knows clusters of powers of two from 32 KiB to 32 MiB, a data area on a cluster border, and takes the words
    # behind the last entry for entries
    if (size & (size - 1) == 0 and 32768 <= size <= 1 << 25 and image.data_start % size == 0
            and not any(image.file.read(image.data_start - image.file.tell()))):
        full = path + ".full"
        subprocess.run(["cp", "--sparse=never", path, full], check=True)
        yield ["ploop", "check", "-f", "-c", "-r", full]


def repaired(ploopctl, path):
    """After --repair all: "clean", "beyond repair" (and unchanged), or what is wrong."""
    before, (_, clusters) = read(path), content(path)
    done = subprocess.run([ploopctl, "check", "--repair", "all", path], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        return "beyond repair" if read(path) == before else "not repaired, and changed"
    again = read(path)
    image, after = content(path)
    environment = dict(os.environ, PADDING="x" * 4096)      # OpenVZ's tool crashes in a small environment
    for judge in judges(path, image):
        told = subprocess.run(judge, capture_output=True, text=True, timeout=60, env=environment, check=False)
        if told.returncode:
            return "%s: %d %s" % (os.path.basename(judge[0]), told.returncode, (told.stdout + told.stderr).strip()[-200:])
    for index, cluster in enumerate(clusters):
        if not isinstance(cluster, int) and after[index] != cluster:
            return "guest cluster %d changed" % index
    subprocess.run([ploopctl, "check", "--repair", "all", path], capture_output=True, timeout=60, check=True)
    return "clean" if read(path) == again else "the second repair changed something"


def main(argv):
    library, ploopctl, folder = Library(argv[1]), find(argv[1], "ploopctl"), argv[2]
    rows = wrong = 0
    print("%-24s %-22s %-22s %-10s %s" % ("case", "read-only", "for writing", "check", "after --repair all"))
    for line in open(os.path.join(folder, "cases.tsv"), encoding="utf-8"):
        name, read_only, read_write, check, why = line.rstrip("\n").split("\t")
        path, work = os.path.join(folder, name + ".hds"), os.path.join(folder, "work.hds")
        if not os.path.exists(path):
            continue
        cells, right = [], True
        beyond = check == "1" or read_only == "reject"
        for expected, act in ((read_only, lambda: opened(library, work, True, check, why)),
                              (read_write, lambda: opened(library, work, False, check, why)),
                              (check, lambda: checked(ploopctl, work, check)),
                              ("beyond repair" if beyond else "clean", lambda: repaired(ploopctl, work))):
            shutil.copyfile(path, work)
            actual = act()
            not_yet = NOT_YET.get((name, len(cells)))
            cells.append("%s = %s" % (expected, actual) if actual == expected else "%s, NOT %s" % (expected, actual))
            right = right and actual == (not_yet or expected)
            if not_yet:
                cells[-1] += " (not yet)"
        rows, wrong = rows + 1, wrong + (not right)
        print("%-24s %-22s %-22s %-10s %s%s" % (name, *cells, "" if right else "   <-- WRONG"), flush=True)
    print("%d cases, %d wrong" % (rows, wrong))
    return 1 if wrong or rows < 72 else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
