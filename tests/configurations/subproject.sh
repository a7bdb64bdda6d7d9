#!/bin/bash
# SPDX-License-Identifier: MIT
#
# A project takes the library in with add_subdirectory(). Its settings stay its own: BUILD_TESTING gets its default after us, `install`
# installs what is the project's, `all` builds none of our tests and tools, and a target of the name `installed` or `docs` is free.
# BUILD_SHARED_LIBS decides what ploop::ploop is. PLOOP_INSTALL=ON installs the library with the project.
#
#   subproject.sh BUILD_DIRECTORY
source "$(dirname "$0")/common"

mkdir project
cat >project/CMakeLists.txt <<END
cmake_minimum_required(VERSION 3.22)
project(vmm C)
add_subdirectory($top ploop)
include(CTest)
message(STATUS "parent: BUILD_TESTING is \${BUILD_TESTING}, build type '\${CMAKE_BUILD_TYPE}'")
add_custom_target(installed)
add_custom_target(docs)
add_executable(vmm main.c)
target_link_libraries(vmm ploop::ploop)
install(TARGETS vmm)
END
cp "$top/tests/install/consumer.c" project/main.c

# try NAME CMAKE_OPTION...: vmm is built and runs.
try() {
    local name=$1
    cmake -S project -B "$name" -G Ninja "${@:2}" >"$name.log" 2>&1 || { cat "$name.log"; fail "$name: not configured"; }
    grep -q "parent: BUILD_TESTING is ON, build type ''" "$name.log" || fail "$name: $(grep 'parent: ' "$name.log")"
    cmake --build "$name" >"$name.log" 2>&1 || { cat "$name.log"; fail "$name: not built"; }
    [[ $("$name/vmm") == 2.* ]] || fail "$name: the program does not run"
    [[ ! -e $name/ploop/tests && ! -e $name/ploop/tools/ploopctl ]] || fail "$name: builds tests or tools"
    DESTDIR=$work/dest-$name cmake --install "$name" --prefix /usr >"$name.log"
    find "dest-$name" ! -type d ! -path '*/bin/vmm' >"$name.files"
}

try shared
readelf -d shared/vmm | grep -q 'NEEDED.*libploop\.so\.2' || fail "ploop::ploop is not the shared library"
[[ ! -s shared.files ]] || fail "installed with the parent: $(head -n 3 shared.files)"

try static -DBUILD_SHARED_LIBS=OFF -DPLOOP_INSTALL=ON
! readelf -d static/vmm | grep 'NEEDED.*libploop' || fail "ploop::ploop is not the archive"
grep -q '/libploop\.a$' static.files || fail "PLOOP_INSTALL=ON installs no library"
! grep 'libploop\.so' static.files || fail "a shared library was built"
