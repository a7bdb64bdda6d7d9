#!/bin/bash
# SPDX-License-Identifier: MIT
# C++, as g++ and clang++ compile it, with the warnings that their users have.
source "$(dirname "$0")/common"
for compiler in g++ clang++; do
    for standard in c++11 c++20; do
        "$compiler" -std=$standard -Wall -Wextra -pedantic -Wconversion -Wsign-conversion -Wold-style-cast -Werror -I "$top/include" \
            -o program "$here/program.cc" -L "$build/src" -lploop
        judge ./program
    done
done
