#!/bin/bash
# SPDX-License-Identifier: MIT
#
# No structure of the public headers has padding, on 64 and 32 bit; what layout-2.0.txt says of structures and constants holds. When a
# release freezes more, `layout.py print include` makes that file anew.
#
#   layout.sh BUILD_DIRECTORY
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python3 "$here/layout.py" check "$here/../../include" "$here/layout-2.0.txt"
