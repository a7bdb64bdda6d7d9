#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Reads the public headers as clang does (its syntax tree), prints the functions they declare, one a line, and refuses what a
binding generator or a later version would stumble over. What is wrong goes to stderr, exit status 1.

  headers.py INCLUDE_DIRECTORY [HEADER]      HEADER: ploop/ploop.h, or ploop/bundle.h
"""
import json
import re
import subprocess
import sys

# Types whose size or meaning depends on the user's compiler options.
UNSTABLE_TYPES = re.compile(r"\b(off_t|time_t|off64_t|loff_t|long|wchar_t|_Bool|bool|enum)\b")


# What never grows and so has no size.
FIXED = ("ploop_completion",)


def declarations(node, file=""):
    """Each declaration at the top, with the file it stands in. clang names a file only where it differs from the one before."""
    for declaration in node["inner"]:
        location = declaration.get("loc", {})
        location = location.get("expansionLoc", location)
        file = location.get("file", file)
        yield file, declaration
        for part in ("begin", "end"):
            place = declaration.get("range", {}).get(part, {})
            file = place.get("expansionLoc", place).get("file", file)
        file = last_file(declaration.get("inner", []), file)


def last_file(nodes, file):
    for node in nodes:
        for place in (node.get("loc", {}), node.get("range", {}).get("begin", {}), node.get("range", {}).get("end", {})):
            file = place.get("expansionLoc", place).get("file", file)
        file = last_file(node.get("inner", []), file)
    return file


def written_type(node):
    return node["type"]["qualType"]


def function_faults(function):
    if not function["name"].startswith("ploop_"):
        yield "its name does not begin with ploop_"
    if function.get("inline") or any(child["kind"] == "CompoundStmt" for child in function.get("inner", [])):
        yield "is inline or has a body"
    if not any(child["kind"] == "FullComment" and "2." in json.dumps(child) for child in function.get("inner", [])):
        yield "has no comment that says since when it is there"
    if function.get("variadic"):
        yield "has variable arguments"
    if UNSTABLE_TYPES.search(written_type(function)):
        yield f"uses a type that is not the same everywhere: {written_type(function)}"


def record_faults(record):
    fields = [child for child in record.get("inner", []) if child["kind"] == "FieldDecl"]
    if record.get("tagUsed") != "struct":
        yield "is a union"
    if not record.get("name", "").startswith("ploop_"):
        yield "its name does not begin with ploop_"
    if (not fields or fields[0].get("name") != "size") and record["name"] not in FIXED:
        yield "does not begin with its size"
    for child in record.get("inner", []):
        if child["kind"] == "RecordDecl":
            yield "holds another structure or union by value"
    for field in fields:
        name, kind = field.get("name", "(anonymous)"), written_type(field)
        if field.get("isBitfield"):
            yield f"{name} is a bit-field"
        if kind.endswith("[]") or kind.endswith("[0]"):
            yield f"{name} is a flexible array"
        if "*" not in kind and re.search(r"\b(struct|union)\b", kind):
            yield f"{name} is a structure by value"
        if UNSTABLE_TYPES.search(kind):
            yield f"{name} has a type that is not the same everywhere: {kind}"


def main():
    include = sys.argv[1]
    header = sys.argv[2] if len(sys.argv) > 2 else "ploop/ploop.h"
    command = ["clang", "-std=c99", "-fsyntax-only", "-fparse-all-comments", "-Xclang", "-ast-dump=json", "-I", include, "-x", "c", "-"]
    tree = json.loads(subprocess.run(command, input=f"#include <{header}>\n".encode(), stdout=subprocess.PIPE, check=True).stdout)
    faults = []
    functions = set()
    for file, node in declarations(tree):
        if "/ploop/" not in file:
            continue
        found = []
        if node["kind"] == "FunctionDecl":
            functions.add(node["name"])
            found = function_faults(node)
        elif node["kind"] == "RecordDecl" and node.get("completeDefinition"):
            found = record_faults(node)
        elif node["kind"] == "EnumDecl" and node.get("name"):
            found = ["is a named enum"]
        elif node["kind"] == "VarDecl":
            found = ["is a variable"]
        faults += [f"{file}: {node.get('name', '(anonymous)')}: {fault}" for fault in found]
    print("\n".join(sorted(functions)))
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults or not functions else 0


sys.exit(main())
