#!/bin/bash
# SPDX-License-Identifier: MIT
#
# What a request costs a server over NBD: nbd.py says how it is measured and how it is called.
exec /usr/bin/python3 "$(dirname "$0")/nbd.py" "$@"
