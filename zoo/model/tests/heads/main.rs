//! Heads on the pure-Rust tensor.

#[macro_use]
mod cases;
mod configs;
#[path = "../support/mod.rs"]
mod support;

use laps_model::array::Array;

test_heads!(Array, ());
