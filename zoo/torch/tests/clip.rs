//! CLIP's encoders on libtorch.
#![allow(clippy::unwrap_used, clippy::panic)] // tests

#[path = "../../model/tests/clip/cases.rs"]
mod cases;
#[path = "../../model/tests/support/mod.rs"]
mod support;

use laps_torch::{Torch, TorchDevice};

#[test]
fn image_encoder_agrees_with_the_reference() {
    cases::image_encoder_agrees::<Torch>(&TorchDevice::open(support::device()).unwrap());
}

#[test]
fn text_encoder_agrees_with_the_reference() {
    cases::text_encoder_agrees::<Torch>(&TorchDevice::open(support::device()).unwrap());
}

#[test]
fn cosine_agrees_with_the_reference() {
    cases::cosine_agrees::<Torch>(&TorchDevice::open(support::device()).unwrap());
}
