#!/bin/bash
# SPDX-License-Identifier: MIT
# Rust by bindgen, whose tests of the layouts pass, and a thin safe crate over it; no crate but these.
source "$(dirname "$0")/common"
needs rustc bindgen
compile() { rustc --edition 2021 -D warnings -O -L . -L "$build/src" "$@"; }

bindgen --allowlist-function 'ploop_.*' --allowlist-type 'ploop_.*' --allowlist-var 'PLOOP_.*' -o bindings.rs \
    "$top/include/ploop/ploop.h" -- -I "$top/include"
export PLOOP_BINDINGS=$work/bindings.rs
compile --crate-type rlib "$here/rust/ploop_sys.rs" -l ploop
compile --test "$here/rust/ploop_sys.rs" -l ploop -o layouts
./layouts --quiet
compile --crate-type rlib --extern ploop_sys "$here/rust/ploop.rs"
compile --extern ploop "$here/rust/program.rs" -o program
judge ./program
