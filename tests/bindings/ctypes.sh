#!/bin/bash
# SPDX-License-Identifier: MIT
# Python by ctypes, with the declarations of the package in python/, which are held to the headers.
source "$(dirname "$0")/common"
export PYTHONPATH=$top/python PYTHONDONTWRITEBYTECODE=1
python3 "$here/layouts.py" "$top/tests/abi/layout-2.0.txt"
judge python3 "$here/program_ctypes.py"
