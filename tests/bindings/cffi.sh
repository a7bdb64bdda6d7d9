#!/bin/bash
# SPDX-License-Identifier: MIT
# Python by cffi, which reads the headers as they are once the preprocessor has been over them.
source "$(dirname "$0")/common"
python3 -c 'import cffi' 2>/dev/null || {
    echo "cffi: python3-cffi is missing; scripts/install-deps full installs it"
    exit 77
}
# What the C library's headers say, cffi knows.
mkdir -p empty/sys
touch empty/stddef.h empty/stdint.h empty/sys/uio.h
echo '#include <ploop/ploop.h>' | cpp -P -nostdinc -I empty -I "$top/include" >headers
judge python3 "$here/program_cffi.py" headers
