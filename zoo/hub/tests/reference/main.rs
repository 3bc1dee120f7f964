//! The model definitions on the pure-Rust tensor against tensors of the reference implementation.

mod cases;
#[path = "../../../model/tests/support/mod.rs"]
mod support;

use laps_model::array::Array;

use cases::{alignment_agrees, encoders_agree};
use support::{swin_tiny, vit_tiny};

#[test]
fn vit_encoders_agree() {
    encoders_agree::<Array>("vit", &vit_tiny(), ());
}

#[test]
fn swin_encoders_agree() {
    encoders_agree::<Array>("swin", &swin_tiny(), ());
}

#[test]
fn alignment_agrees_with_reference() {
    alignment_agrees::<Array>("vit", vit_tiny(), &());
    alignment_agrees::<Array>("swin", swin_tiny(), &());
}
