#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The structures, constants and functions that the Python package names are those of the headers, as tests/abi/layout.py read them.

  layouts.py BASELINE      tests/abi/layout-2.0.txt; PYTHONPATH leads to the package. What is wrong goes to stderr
"""
import ctypes
import pathlib
import re
import sys

from ploop import _native as native

SIMPLE = {"int": ctypes.c_int, "uint32_t": ctypes.c_uint32, "uint64_t": ctypes.c_uint64, "int64_t": ctypes.c_int64,
          "size_t": ctypes.c_size_t, "void": None}


def read(path):
    places, types = {}, {}
    for line in pathlib.Path(path).read_text().splitlines():
        if ": " in line:
            name, its_type = line.split(": ", 1)
            types[name] = its_type
        elif not line.startswith("#"):
            words = line.split()
            places[words[0]] = words[1]  # x86-64, as every 64-bit machine
    return places, types


def structure_faults(structure, places):
    name = structure._ploop_
    if places.get(name) != str(ctypes.sizeof(structure)):
        yield f"struct {name} has {ctypes.sizeof(structure)} bytes, in the headers {places.get(name)}"
    fields = {key.split(".")[1] for key in places if key.startswith(name + ".")}
    ours = {field for field, *_ in structure._fields_}
    if fields != ours:
        yield f"struct {name}: {sorted(fields ^ ours)} are not in both"
    for field in ours & fields:
        place = getattr(structure, field)
        if places[f"{name}.{field}"] != f"{place.offset}+{place.size}":
            yield f"{name}.{field} is at {place.offset}+{place.size}, in the headers {places[f'{name}.{field}']}"


def is_pointer(its_type):
    return its_type in (ctypes.c_void_p, ctypes.c_char_p) or issubclass(its_type, (ctypes._Pointer, ctypes._CFuncPtr))


def type_fault(declared, ours):
    """Whether a C type is passed otherwise than ctypes would pass ours. A type of functions and a pointer are passed alike."""
    declared = re.sub(r"\bconst\b", "", declared).strip()
    if declared.endswith("*"):
        if ours is None or not is_pointer(ours):
            return True
        pointed = declared[:-1].replace("struct ", "").strip()
        structure = getattr(ours, "_type_", None)
        return hasattr(structure, "_ploop_") and structure._ploop_ != pointed
    return declared not in SIMPLE or SIMPLE[declared] is not ours


def function_faults(name, result, arguments, types):
    match = re.fullmatch(r"(.*?)\((.*)\)", types.get(name, ""))
    if not match:
        yield f"{name} is not in the headers"
        return
    declared = [] if match[2] == "void" else re.split(r",\s*", match[2])
    if type_fault(match[1], result) or len(declared) != len(arguments):
        yield f"{name} returns {match[1]} and takes {len(declared)} arguments"
        return
    for number, (one, ours) in enumerate(zip(declared, arguments)):
        if type_fault(one, ours):
            yield f"{name}: argument {number} is {one}, not {ours}"


def main():
    places, types = read(sys.argv[1])
    faults = []
    for structure in native.STRUCTURES:
        faults += structure_faults(structure, places)
    constants = [name for name, value in vars(native).items() if name.isupper() and isinstance(value, int)]
    for name in constants:
        if places.get("PLOOP_" + name) != str(getattr(native, name)):
            faults.append(f"{name} is {getattr(native, name)}, in the headers {places.get('PLOOP_' + name)}")
    functions = {**native.FUNCTIONS, **native.BUNDLE_FUNCTIONS}
    for name, (result, arguments) in functions.items():
        faults += function_faults(name, result, arguments, types)
    print("\n".join(faults), end="\n" if faults else "", file=sys.stderr)
    print(f"{len(native.STRUCTURES)} structures, {len(constants)} constants, {len(functions)} functions")
    return 1 if faults or len(native.STRUCTURES) < 10 or not constants else 0


sys.exit(main())
