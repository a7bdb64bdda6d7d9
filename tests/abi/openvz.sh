#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Debian's libploop1, the library of OpenVZ's tool, has the same name. One process can hold both, because they share no exported symbol
# and no soname.
#
#   openvz.sh BUILD_DIRECTORY
set -euo pipefail
export LC_ALL=C

theirs=$(dpkg -L libploop1 | grep 'libploop\.so\.1$')
ours=$1/src/libploop.so
exported() { nm -D --defined-only "$1" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort -u; }

common=$(comm -12 <(exported "$theirs") <(exported "$ours"))
[[ ! $common ]] || { echo "exported by both: $common"; exit 1; }
[[ $(exported "$theirs" | wc -l) -gt 50 ]] || { echo "$theirs exports hardly anything: is this test looking at the right file?"; exit 1; }

# Both at once, each with its own functions.
python3 - "$theirs" "$ours" <<'END'
import ctypes, sys
theirs, ours = (ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL) for path in sys.argv[1:])
assert ours.ploop_version() >> 16 == 2
assert hasattr(theirs, "ploop_open_dd") or hasattr(theirs, "ploop_alloc_diskdescriptor") or hasattr(theirs, "ploop_init_image")
END
