#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Link-time optimization: as distributions build every package, and as CMake switches it on. Library, archive and tool link and work,
# and the archive defines the library's own names only, in the intermediate code as well: a program may have functions of the same
# names as the library's internal ones.
#
#   lto.sh BUILD_DIRECTORY
source "$(dirname "$0")/common"

cat >clash.c <<'END'
#include <ploop/ploop.h>
int image_open(const char *name);
int image_open(const char *name) { return name[0] == 0; }
int bitmap_set(const int *bits);
int bitmap_set(const int *bits) { return bits[0]; }
int main(void)
{
    ploop_file *file;
    struct ploop_image_options options = {.size = sizeof(options), .disk_size = 1 << 30};
    struct ploop_check_result result = {.size = sizeof(result)};
    const int nothing = 0;
    if (ploop_file_create_memory(0, &file) || ploop_image_create(file, &options) || ploop_image_check(file, 0, &result)) {
        return 1;
    }
    ploop_file_close(file);
    return image_open("x") + bitmap_set(&nothing);
}
END

# try NAME COMPILER CMAKE_OPTION...
try() {
    local name=$1 compiler=$2
    configure "$name" "-DCMAKE_C_COMPILER=$compiler" -DPLOOP_BUILD_TESTS=OFF "${@:3}"
    build "$name" ploop ploop_static ploopctl
    only_public "$name/src/libploop.a"
    "$name/tools/ploopctl" create --size 10M "$name.hds"
    "$name/tools/ploopctl" check "$name.hds"
    "$compiler" -I "$top/include" -o clash clash.c "$name/src/libploop.a" -pthread -luring
    ./clash || fail "$name: the program that has names of its own"
}

try distribution gcc -DCMAKE_BUILD_TYPE=None "-DCMAKE_C_FLAGS=-g -O2 -flto=auto -ffat-lto-objects -fstack-protector-strong" \
    "-DCMAKE_SHARED_LINKER_FLAGS=-flto=auto -ffat-lto-objects -Wl,-Bsymbolic-functions -Wl,-z,relro -Wl,-z,now" \
    "-DCMAKE_EXE_LINKER_FLAGS=-flto=auto -ffat-lto-objects -Wl,-Bsymbolic-functions -Wl,-z,relro -Wl,-z,now"
try ipo gcc -DCMAKE_BUILD_TYPE=Release -DCMAKE_INTERPROCEDURAL_OPTIMIZATION=ON
if command -v ld.lld >/dev/null; then
    try clang clang -DCMAKE_BUILD_TYPE=Release "-DCMAKE_C_FLAGS=-flto" \
        -DCMAKE_SHARED_LINKER_FLAGS=-fuse-ld=lld -DCMAKE_EXE_LINKER_FLAGS=-fuse-ld=lld
fi
