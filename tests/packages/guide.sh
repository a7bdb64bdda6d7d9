#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The guide from its first line on: built from source and installed as its first page says.
#
#   guide.sh BUILD_DIRECTORY
set -euo pipefail
GUIDE_FROM_SOURCE=1 exec "$(dirname "$0")/../install/guide.sh" "$1"
