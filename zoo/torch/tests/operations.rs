//! Tensor operations on libtorch: the cases of `laps-model`.

#[macro_use]
#[path = "../../model/tests/operations/cases.rs"]
mod cases;
#[path = "../../model/tests/support/mod.rs"]
mod support;

use laps_torch::{Torch, TorchDevice};

test_operations!(Torch, TorchDevice::open(support::device()).unwrap());
