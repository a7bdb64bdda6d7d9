#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Imagined successors of the public headers, as the rules of ploop.h let them grow: fields in the place of reserved ones and behind
the last, functions in the tables, constants, functions.

  successors.py make INCLUDE SEED DIRECTORY       one of them, below DIRECTORY
  successors.py try INCLUDE COUNT LIBRARY CONSUMER      COUNT of them: CONSUMER, a C source, is compiled with each and runs with the
                                       library in the folder LIBRARY, which is older than it; a structure with a new field set is refused
"""
import concurrent.futures
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile

TABLES = ("ploop_io_ops", "ploop_clock")
STRUCTURE = re.compile(r"^struct (ploop_\w+) \{\n(.*?)^\};\n", re.MULTILINE | re.DOTALL)
# What refuses a new field: the call, with `given` for the structure.
REFUSES = {
    "ploop_image_options": "ploop_image_create(file, &given)",
    "ploop_check_options": "ploop_image_check(file, &given, &result)",
    "ploop_dev_config": "ploop_dev_open(&file, 1, &given, &dev)",
    "ploop_uring_options": "ploop_uring_create(&given, &group)",
}


def grown(rng, name, body):
    """A structure with new fields, and how many new_ fields it has."""
    fields = 0
    if name in TABLES:
        fields = rng.randrange(4)
        return body + "".join(f"    int (*new_{i})(void *context, uint64_t number);\n" for i in range(fields)), fields
    if name == "ploop_io":
        return body, 0  # the library's, and not for growing but at its end
    reserved = re.search(r"    uint(32|64)_t reserved\[(\d+)\];", body)
    if reserved and rng.random() < 0.7:
        bits, room = int(reserved[1]), int(reserved[2])
        fields = rng.randrange(1, room + 1)
        taken = "".join(f"    uint{bits}_t new_{i};\n" for i in range(fields))
        left = f"    uint{bits}_t reserved[{room - fields}];" if fields < room else ""
        body = body.replace(reserved[0], taken + left)
    more = rng.randrange(5)
    body += "".join(f"    uint64_t new_{fields + i};\n" for i in range(more))
    return body, fields + more


def make(include, seed, directory):
    """Returns {structure: how many new fields}."""
    rng = random.Random(seed)
    new = {}
    folder = pathlib.Path(directory) / "ploop"
    folder.mkdir(parents=True)
    for header in sorted(pathlib.Path(include, "ploop").glob("*.h")):
        text = header.read_text()

        def grow(match):
            body, new[match[1]] = grown(rng, match[1], match[2])
            return f"struct {match[1]} {{\n{body}}};\n"

        text = STRUCTURE.sub(grow, text)
        # a constant behind the last of an enum, and a function nobody has
        text = re.sub(r"^enum \{\n(.*?)^\};", lambda m: m[0] if rng.random() < 0.5 or "VERSION" in m[0] else
                      re.sub(r"(?<=[\w)])((?: /\*\*<.*?\*/)?)\n\};$", rf",\1\n    PLOOP_NEW_{rng.getrandbits(60)} = 1 << 20\n}};", m[0], flags=re.DOTALL),
                      text, flags=re.MULTILINE | re.DOTALL)
        text = re.sub(r"(\n#ifdef __cplusplus\n\})", rf"\nint ploop_new_{rng.getrandbits(60)}(uint64_t number);\n\1", text)
        (folder / header.name).write_text(text)
    return new


def refusals(new):
    """A program: each structure with one new field set is refused, whichever it is."""
    lines = ["#include <ploop/ploop.h>", "#include <errno.h>", "#include <string.h>", "#include <stdio.h>", "int main(void) {",
             "ploop_file *file; ploop_dev *dev; ploop_uring *group; struct ploop_check_result result = {.size = sizeof(result)};",
             "struct ploop_image_options options = {.size = sizeof(options), .disk_size = 1 << 20};",
             "(void)dev; (void)group;",
             "if (ploop_file_create_memory(0, &file) || ploop_image_create(file, &options)) return 1;"]
    count = 0
    for name, call in REFUSES.items():
        for i in range(new.get(name, 0)):
            count += 1
            fill = "ploop_dev_config_init(&given, sizeof(given));" if name == "ploop_dev_config" else (
                "given.size = sizeof(given);" + ("given.disk_size = 1 << 20;" if name == "ploop_image_options" else ""))
            lines.append(f"{{ struct {name} given; memset(&given, 0, sizeof(given)); {fill} given.new_{i} = 1; int error = {call};"
                         f" if (error != -E2BIG) {{ fprintf(stderr, \"{name}.new_{i}: %d\\n\", error); return 1; }} }}")
    lines.append("ploop_file_close(file); return 0; }")
    return "\n".join(lines), count


def try_one(include, seed, library, consumer):
    with tempfile.TemporaryDirectory() as directory:
        new = make(include, seed, directory)
        source, count = refusals(new)
        pathlib.Path(directory, "refusals.c").write_text(source)
        for program, path in (("consumer", consumer), ("refusals", f"{directory}/refusals.c")):
            command = ["gcc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-I", directory, "-o", f"{directory}/{program}", path, "-L", library,
                       "-lploop", f"-Wl,-rpath,{library}"]
            for step in (command, [f"{directory}/{program}"]):
                done = subprocess.run(step, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, text=True)
                if done.returncode:
                    return f"seed {seed}: {' '.join(step)}:\n{done.stdout}", 0
        return "", count


def main():
    if sys.argv[1] == "make":
        make(sys.argv[2], int(sys.argv[3]), sys.argv[4])
        return 0
    include, count, library, consumer = sys.argv[2], int(sys.argv[3]), os.path.abspath(sys.argv[4]), sys.argv[5]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(lambda seed: try_one(include, seed, library, consumer), range(count)))
    failed = [text for text, _ in results if text]
    print("\n".join(failed[:3]))
    refused = sum(number for _, number in results)
    print(f"{count} successors, {refused} new fields refused, {len(failed)} failed")
    return 1 if failed or not refused else 0


sys.exit(main())
