//! CLIP's encoders on the pure-Rust tensor.

mod cases;
#[path = "../support/mod.rs"]
mod support;

use laps_model::array::Array;

#[test]
fn image_encoder_agrees_with_the_reference() {
    cases::image_encoder_agrees::<Array>(&());
}

#[test]
fn text_encoder_agrees_with_the_reference() {
    cases::text_encoder_agrees::<Array>(&());
}

#[test]
fn cosine_agrees_with_the_reference() {
    cases::cosine_agrees::<Array>(&());
}
