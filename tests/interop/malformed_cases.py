#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Holds the library and ploopctl against the table of malformed images, and prints it: case, expected = actual.

  malformed_cases.py BUILD_DIRECTORY CASES [LEAST]      CASES as malformed.py wrote them; fewer than LEAST of them are a failure

Columns: opening read-only and for writing, through the shared object as a binding would; `ploopctl check`, and what its --json says;
and `ploopctl check --repair all` of a copy, with the judges that call it clean afterwards. A cell is right where both sides are equal.
What the JSON must say of recovery is the oracle's word, and opening with RECOVER must do as it says. Of a stack the top alone is
checked and repaired, as the table has it; the JSON is of all of it.
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

FILE_READ_ONLY, FILE_READ_WRITE = 1, 2
DEV_READ_ONLY, DEV_RECOVER, DEV_RAW_BASE = 1, 2, 16
LOG = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_char_p)
STATUS = {"0": "clean", "1": "-", "2": "corrupt", "3": "leaks"}
NOT_ASKED = {
    "a": "neither: QEMU 7.2 calls a dirty bitmap's clusters leaks and opens no unknown feature; ploop 1.15 knows no extension, and takes "
         "the closing mark of an image that has one for that of one in use",
    "b": "not ploop: it knows clusters of powers of two from 32 KiB to 32 MiB only",
    "c": "not ploop: it wants the data area on a cluster border, in version 1 too",
    "d": "not ploop: it takes the words behind the last entry for entries",
}


class Case:
    """A line of the table, and its files: base first."""

    def __init__(self, folder, line):
        self.folder = folder
        self.name, self.read_only, self.read_write, self.check, self.why = line.rstrip("\n").split("\t")
        names = [self.name + end for end in (".base.raw", ".base.hds", ".top.hds", ".hds")]
        self.names = [name for name in names if os.path.exists(os.path.join(folder, name))]
        self.beyond_repair = self.check == "1" or (self.check == "2" and self.read_only == "reject")

    def copy(self):
        """Paths of a fresh copy, base first."""
        work = os.path.join(self.folder, "work")
        shutil.rmtree(work, ignore_errors=True)
        os.mkdir(work)
        return [shutil.copy(os.path.join(self.folder, name), work) for name in self.names]

    def expected_error(self):
        no_image, unknown = self.check == "1", "may be read, must not be written" in self.why
        return -errno.EINVAL if no_image else -errno.ENOTSUP if unknown else -errno.EUCLEAN


def is_raw(path):
    return path.endswith(".raw")


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

    def open(self, paths, flags):
        """(error, log lines, device, files); base first."""
        lines, dev, files = [], ctypes.c_void_p(), (ctypes.c_void_p * len(paths))()
        log = LOG(lambda _data, _level, _id, text: lines.append(text.decode()))
        writable = FILE_READ_ONLY if flags & DEV_READ_ONLY else FILE_READ_WRITE
        for i, path in enumerate(paths):
            err = self.so.ploop_file_open_posix(path.encode(), writable, ctypes.byref(files, i * ctypes.sizeof(ctypes.c_void_p)))
            if err:
                sys.exit("%s: ploop_file_open_posix: %s" % (path, os.strerror(-err)))
        config = DevConfig()
        self.so.ploop_dev_config_init(ctypes.byref(config), ctypes.sizeof(config))
        config.flags, config.log = flags | (DEV_RAW_BASE if is_raw(paths[0]) else 0), log
        err = self.so.ploop_dev_open(files, len(paths), ctypes.byref(config), ctypes.byref(dev))
        self.keep = log
        return err, lines, dev, files

    def close(self, dev, files):
        err = self.so.ploop_dev_close(dev) if dev else 0
        for file in files:
            self.so.ploop_file_close(file)
        return err

    def read(self, dev, offset, length):
        buffer = ctypes.create_string_buffer(length)
        got = self.so.ploop_dev_pread(dev, buffer, length, offset)
        return buffer.raw if got == length else got


def read(paths):
    content = []
    for path in paths:
        with open(path, "rb") as file:
            content.append(file.read())
    return content


def content(paths):
    """The top, and what a guest may see of each cluster: bytes, None for zeros, -EIO, or of one that is cut off the length and bytes."""
    try:
        stack = ploop_oracle.Stack([("raw:" if is_raw(path) else "") + path for path in reversed(paths)])
    except (ploop_oracle.Corrupt, ploop_oracle.NotAnImage):
        return None, []
    clusters = []
    for index in range(-(-stack.top.disk_sectors // stack.top.cluster_sectors)):
        cut = stack.top.cut_bytes(index)
        if cut is not None:
            clusters.append((len(cut), cut))
            continue
        try:
            found = [data for data in (delta.read_cluster(index) for delta in stack.deltas) if data is not None]
            clusters.append(found[0] if found else None)
        except ploop_oracle.Corrupt:
            clusters.append(-errno.EIO)
    return stack.top, clusters


def seen_wrong(library, dev, image, clusters):
    """The first guest cluster that does not read as it must, or None."""
    for index, expected in enumerate(clusters):
        length = min(image.cluster, image.disk_sectors * 512 - index * image.cluster)
        if isinstance(expected, tuple):
            there = min(length, expected[0] // 512 * 512)
            if (library.read(dev, index * image.cluster, there) if there else b"") != expected[1][:there]:
                return index
            expected = -errno.EIO if there < length else expected[1]
        actual = library.read(dev, index * image.cluster, length)
        if actual != (bytes(length) if expected is None else expected if isinstance(expected, int) else expected[:length]):
            return index
    return None


def opened(library, case, flags):
    """What opening does, in the table's words, or what is wrong with it."""
    paths = case.copy()
    before, (image, clusters) = read(paths), content(paths)
    err, lines, dev, files = library.open(paths, flags)
    if err:
        library.close(None, files)
        if read(paths) != before:
            return "rejected, and changed"
        if not lines or any("\n" in line for line in lines):
            return "rejected without one clear line: %r" % lines
        return "reject" if err == case.expected_error() else "rejected with %s" % errno.errorcode[-err]
    wrong = seen_wrong(library, dev, image, clusters)
    err = library.close(dev, files)
    if wrong is not None:
        return "guest cluster %d reads wrong" % wrong
    if err:
        return "close: %s" % errno.errorcode[-err]
    if flags & DEV_READ_ONLY and read(paths) != before:
        return "changed by reading"
    bad = ["eio:%d" % index for index, cluster in enumerate(clusters) if isinstance(cluster, int)]
    bad = ["cut:%d" % index for index, cluster in enumerate(clusters) if isinstance(cluster, tuple)] or bad
    if not flags & DEV_READ_ONLY and not bad and content(paths)[1] != clusters:
        return "other data after the close"
    return ",".join(bad) or "ok"


def run_check(ploopctl, paths, *options):
    bases = [word for path in paths[:-1] for word in ("--raw-base" if is_raw(path) else "--base", path)]
    return subprocess.run([ploopctl, "check", *options, *bases, paths[-1]], capture_output=True, text=True, timeout=60, check=False)


def checked(ploopctl, case):
    paths = case.copy()
    before, done = read(paths), run_check(ploopctl, paths[-1:])
    if read(paths) != before:
        return "changed"
    if done.stderr.count("\n") != (done.returncode == 1):
        return "%d, and says %r" % (done.returncode, done.stderr)
    return str(done.returncode)


def expected_word(case):
    """What the JSON comes down to: the status, and of what is corrupt whether RECOVER would open it."""
    paths = [os.path.join(case.folder, name) for name in case.names]
    try:
        ploop_oracle.Stack([("raw:" if is_raw(path) else "") + path for path in reversed(paths)])
        images = [ploop_oracle.Image(path) for path in paths if not is_raw(path)]
    except ploop_oracle.Corrupt:
        return "corrupt"
    except ploop_oracle.NotAnImage:
        return "-"
    found = [image.check() for image in images]
    if any(errors for errors, _ in found):
        return "corrupt" if any(image.writing() == "refuse" for image in images) else "recoverable"
    return "leaks" if any(leaks for _, leaks in found) else "clean"


def checked_json(library, ploopctl, case):
    paths = case.copy()
    before, done = read(paths), run_check(ploopctl, paths, "--json")
    if read(paths) != before:
        return "changed"
    if done.returncode == 1:
        return "-" if not done.stdout else "fails, and prints %r" % done.stdout
    found = json.loads(done.stdout)
    if found["result"] != STATUS[str(done.returncode)] or (found["errors"] > 0) != (done.returncode == 2) or \
            (done.returncode == 3 and not found["leaks"]):
        return "exit status %d, result %s, %d errors, %d leaks" % (done.returncode, found["result"], found["errors"], found["leaks"])
    err, _, dev, files = library.open(paths, DEV_RECOVER)
    library.close(dev if not err else None, files)
    if found["recoverable"] != (not err):
        return "recoverable: %s, and RECOVER gives %d" % (found["recoverable"], err)
    return "recoverable" if found["recoverable"] and done.returncode == 2 else found["result"]


def not_asked(image):
    """Which judges do not know this kind of image, as NOT_ASKED has it; "" for none."""
    if image.ext_off:
        return "a"
    size = image.cluster
    if size & (size - 1) or not 32768 <= size <= 1 << 25:
        return "b"
    if image.data_start % size:
        return "c"
    image.file.seek(64 + 4 * image.bat_entries)
    return "d" if any(image.file.read(image.data_start - image.file.tell())) else ""


def judges(path, image):
    """Those that know this kind of image, with how they are called."""
    without = not_asked(image)
    yield "oracle", [sys.executable, ploop_oracle.__file__, "check", path]
    if without != "a":
        yield "qemu-img", ["qemu-img", "check", "-q", "-f", "parallels", path]
    if not without:
        full = path + ".full"       # ploop calls an image sparse if a cluster of it has holes
        subprocess.run(["cp", "--sparse=never", path, full], check=True)
        yield "ploop", ["ploop", "check", "-f", "-c", "-r", full]


def repaired(ploopctl, case):
    """After --repair all: "clean" and who says so, "beyond repair" (and unchanged), or what is wrong."""
    paths = case.copy()
    top, before, (_, clusters) = paths[-1:], read(paths), content(paths[-1:])
    if run_check(ploopctl, top, "--repair", "all").returncode:
        return "beyond repair" if read(paths) == before else "not repaired, and changed", ""
    again = read(paths)
    image, after = content(top)
    environment = dict(os.environ, PADDING="x" * 4096)      # OpenVZ's tool crashes in a small environment
    asked = []
    for name, judge in judges(top[0], image):
        told = subprocess.run(judge, capture_output=True, text=True, timeout=60, env=environment, check=False)
        if told.returncode:
            return "%s: %d %s" % (name, told.returncode, (told.stdout + told.stderr).strip()[-200:]), ""
        asked.append(name)
    for index, cluster in enumerate(clusters):
        if isinstance(cluster, tuple):
            cluster = cluster[1].ljust(image.cluster, b"\0")
        if not isinstance(cluster, int) and after[index] != cluster:
            return "guest cluster %d changed" % index, ""
    if run_check(ploopctl, top, "--repair", "all").returncode or read(paths) != again:
        return "the second repair changed something", ""
    without = not_asked(image)
    return "clean", ", ".join(asked) + (" (%s)" % without if without else "")


def row(library, ploopctl, case):
    """The cells, and whether all are right."""
    after, by = repaired(ploopctl, case)
    pairs = ((case.read_only, opened(library, case, DEV_READ_ONLY)), (case.read_write, opened(library, case, 0)),
             (case.check, checked(ploopctl, case)), (expected_word(case), checked_json(library, ploopctl, case)),
             ("beyond repair" if case.beyond_repair else "clean", after))
    cells = ["%s = %s" % pair if pair[0] == pair[1] else "%s, NOT %s" % pair for pair in pairs]
    return cells + [by], all(expected == actual for expected, actual in pairs)


def main(argv):
    library, ploopctl, folder = Library(argv[1]), find(argv[1], "ploopctl"), argv[2]
    layout = "%-24s %-20s %-18s %-7s %-27s %-31s %s"
    with open(os.path.join(folder, "cases.tsv"), encoding="utf-8") as table:
        cases = [Case(folder, line) for line in table]
    wrong = 0
    print("each cell: expected = actual; of a stack, check and repair are of the top alone, the rest of the whole stack")
    print(layout % ("case", "read-only", "for writing", "check", "check --json", "after check --repair all", "judged clean by"))
    for case in cases:
        cells, right = row(library, ploopctl, case)
        wrong += not right
        print((layout % (case.name, *cells)).rstrip() + ("" if right else "   <-- WRONG"), flush=True)
    for letter, why in NOT_ASKED.items():
        print("(%s) %s" % (letter, why))
    print("%d cases, %d wrong" % (len(cases), wrong))
    return 1 if wrong or len(cases) < (int(argv[3]) if len(argv) > 3 else 86) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
