// SPDX-License-Identifier: MIT
//! What bindgen makes of ploop/ploop.h: the crate ploop-sys.
#![allow(non_upper_case_globals, non_camel_case_types, non_snake_case, dead_code, clippy::all)]
include!(env!("PLOOP_BINDINGS"));
