#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Holds the oracle in C against the one in Python, and both against the table of malformed images where one lies beside an image.

  compare.py ORACLE IMAGE...   exit 1 and the difference if they ever disagree
"""
import contextlib
import hashlib
import io
import os
import subprocess
import sys

import ploop_oracle


def python_says(verb, path):
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        code = ploop_oracle.main(["", verb, path])
    return code, text.getvalue()


def c_says(oracle, verb, path):
    done = subprocess.run([oracle, verb, path], stdout=subprocess.PIPE, check=False)
    return done.returncode, done.stdout


def table_says(path):
    """What the table says of checking and of opening for writing, or None."""
    table = os.path.join(os.path.dirname(path), "cases.tsv")
    if os.path.exists(table):
        with open(table, encoding="utf-8") as lines:
            for name, _, read_write, check, _ in (line.rstrip("\n").split("\t") for line in lines):
                if name + ".hds" == os.path.basename(path):
                    return int(check), read_write
    return None


def against_table(path):
    expected = table_says(path)
    if not expected:
        return 0
    check, (code, text) = python_says("check", path)[0], python_says("open", path)
    actual = check, "ok" if code == 0 and text == "ok\n" else "reject"
    if actual != expected:
        print("%s: the table %r, the oracle %r" % (path, expected, actual))
    return actual != expected


def main(argv):
    wrong = 0
    for path in argv[2:]:
        wrong += against_table(path)
        for verb in ("check", "open", "map"):
            code, text = c_says(argv[1], verb, path)
            if (code, text.decode()) != python_says(verb, path):
                print("%s %s: Python %r, C %r" % (verb, path, python_says(verb, path), (code, text.decode())))
                wrong += 1
        code, data = c_says(argv[1], "dump", path)
        expected = python_says("sha256", path)
        if code != expected[0] or (code == 0 and hashlib.sha256(data).hexdigest() != expected[1].strip()):
            print("dump %s: Python %r, C %d" % (path, expected, code))
            wrong += 1
    print("%d images, %d disagreements" % (len(argv) - 2, wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
