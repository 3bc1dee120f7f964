//! Heads on libtorch: similarities, and the loss with its gradients.
#![allow(clippy::unwrap_used, clippy::panic)] // tests

#[macro_use]
#[path = "../../model/tests/heads/cases.rs"]
mod cases;
#[path = "../../model/tests/support/mod.rs"]
mod support;

use laps_torch::{Torch, TorchDevice};

test_heads!(Torch, TorchDevice::open(support::device()).unwrap());
