//! The models on libtorch against golden tensors of the reference implementation.

#[path = "../../hub/tests/reference/cases.rs"]
mod cases;
#[path = "../../model/tests/support/mod.rs"]
mod support;

use laps_torch::{Torch, TorchDevice};

use cases::{alignment_agrees, encoders_agree};
use support::{swin_tiny, vit_tiny};

#[test]
fn vit_encoders_agree() {
    encoders_agree::<Torch>("vit", &vit_tiny(), TorchDevice::open(support::device()).unwrap());
}

#[test]
fn swin_encoders_agree() {
    encoders_agree::<Torch>("swin", &swin_tiny(), TorchDevice::open(support::device()).unwrap());
}

#[test]
fn alignment_agrees_with_reference() {
    alignment_agrees::<Torch>("vit", vit_tiny(), &TorchDevice::open(support::device()).unwrap());
    alignment_agrees::<Torch>("swin", swin_tiny(), &TorchDevice::open(support::device()).unwrap());
}
