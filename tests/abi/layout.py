#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The layout of every structure of the public headers, as a compiler for each kind of machine has it: 64 bit; 32 bit that aligns 64-bit
numbers to 4 bytes (i386) and to 8 (armhf); big-endian. Clang knows them all and needs no headers of theirs.

  layout.py check INCLUDE BASELINE     no structure has padding; what BASELINE has is where it was: a field keeps its place and its size,
                                       a structure does not shrink, a constant keeps its value, a function its type. What is wrong goes
                                       to stderr
  layout.py print INCLUDE              a new BASELINE
"""
import json
import pathlib
import re
import subprocess
import sys
import tempfile

TARGETS = ["x86_64-linux-gnu", "i386-linux-gnu", "armv7-linux-gnueabihf", "s390x-linux-gnu"]
SOURCE = "#include <ploop/ploop.h>\n#include <ploop/bundle.h>\n"
# All that the headers take from the C library.
UIO = "#pragma once\n#include <stddef.h>\nstruct iovec { void *iov_base; size_t iov_len; };\n"


def clang(directory, include, *arguments, source=SOURCE, target=TARGETS[0]):
    command = ["clang", f"--target={target}", "-std=c99", "-ffreestanding", "-nostdlibinc", "-I", include, "-I", directory, "-x", "c"]
    done = subprocess.run([*command, *arguments, "-"], input=source.encode(), stdout=subprocess.PIPE, check=True)
    return done.stdout.decode()


def declarations(directory, include):
    """Structures as {name: [field]}, the names of all constants, functions and types of functions as {name: type}."""
    tree = json.loads(clang(directory, include, "-fsyntax-only", "-Xclang", "-ast-dump=json"))
    structures, constants, functions = {}, [], {}
    for node in tree["inner"]:
        inner = node.get("inner", [])
        name = node.get("name", "")
        if node["kind"] == "RecordDecl" and node.get("completeDefinition") and name.startswith("ploop_"):
            structures[name] = [child["name"] for child in inner if child["kind"] == "FieldDecl"]
        elif node["kind"] == "EnumDecl":
            constants += [child["name"] for child in inner if child.get("name", "").startswith("PLOOP_")]
        elif node["kind"] in ("FunctionDecl", "TypedefDecl") and name.startswith("ploop_"):
            functions[name] = node["type"]["qualType"]
    return structures, constants, functions


def measure(directory, include, target, structures, constants):
    """{"ploop_x": size, "ploop_x.field": (offset, size), "PLOOP_X": value}"""
    source = SOURCE + "#include <stddef.h>\n"
    numbers = {}

    def ask(expression):
        nonlocal source
        variable = f"answer_{len(numbers)}"
        source += f"long long {variable} = (long long)({expression});\n"
        numbers[variable] = None
        return variable

    questions = {}
    for name, fields in structures.items():
        questions[name] = ask(f"sizeof(struct {name})")
        for field in fields:
            questions[f"{name}.{field}"] = (
                ask(f"offsetof(struct {name}, {field})"), ask(f"sizeof(((struct {name} *)0)->{field})"))
    for name in constants:
        questions[name] = ask(name)
    code = clang(directory, include, "-S", "-emit-llvm", "-o", "-", source=source, target=target)
    for variable, value in re.findall(r"^@(answer_\d+) = .*global i64 (-?\d+)", code, re.MULTILINE):
        numbers[variable] = int(value)
    return {key: tuple(numbers[v] for v in value) if isinstance(value, tuple) else numbers[value]
            for key, value in questions.items()}


def padding(structures, layout):
    for name, fields in structures.items():
        end = 0
        for field in fields:
            offset, size = layout[f"{name}.{field}"]
            if offset != end:
                yield f"struct {name} has {offset - end} bytes of padding before {field}"
            end = offset + size
        if layout[name] != end:
            yield f"struct {name} has {layout[name] - end} bytes of padding at its end"


def changes(was, now):
    for key, value in was.items():
        if key not in now:
            yield f"{key} is gone"
        elif re.search(r"\.reserved\d*$", key):
            continue  # a field may take its place
        elif "." not in key and key.startswith("ploop_"):
            if now[key] < int(value):
                yield f"struct {key} shrank from {value} to {now[key]} bytes"
        elif written(now[key]) != value:
            yield f"{key} was {value} and is {written(now[key])}"


def written(value):
    return f"{value[0]}+{value[1]}" if isinstance(value, tuple) else str(value)


def read_baseline(path):
    lines = [line for line in pathlib.Path(path).read_text().splitlines() if not line.startswith("#")]
    rows = [line.split() for line in lines if ": " not in line]
    layouts = {target: {row[0]: row[1 + i] for row in rows} for i, target in enumerate(TARGETS)}
    return layouts, dict(line.split(": ", 1) for line in lines if ": " in line)


def main():
    mode, include = sys.argv[1], sys.argv[2]
    with tempfile.TemporaryDirectory() as directory:
        (pathlib.Path(directory) / "sys").mkdir()
        (pathlib.Path(directory) / "sys/uio.h").write_text(UIO)
        structures, constants, functions = declarations(directory, include)
        layouts = {target: measure(directory, include, target, structures, constants) for target in TARGETS}
    if mode == "print":
        print("# Sizes, places (offset+size) and values on", *TARGETS)
        for key in layouts[TARGETS[0]]:
            print(key, *(written(layouts[target][key]) for target in TARGETS))
        for name, its_type in sorted(functions.items()):
            print(f"{name}: {its_type}")
        return 0
    baseline, old_functions = read_baseline(sys.argv[3])
    faults = [f"{name} was {was} and is {functions.get(name, 'gone')}"
              for name, was in old_functions.items() if functions.get(name) != was]
    for target in TARGETS:
        faults += [f"{target}: {fault}" for fault in padding(structures, layouts[target])]
        faults += [f"{target}: {fault}" for fault in changes(baseline[target], layouts[target])]
    print("\n".join(faults), end="\n" if faults else "", file=sys.stderr)
    print(f"{len(structures)} structures, {len(constants)} constants, {len(functions)} functions, {len(TARGETS)} kinds of machine")
    return 1 if faults or not structures or not constants else 0


sys.exit(main())
