//! Models: ViT, Swin, BERT, and LAPS on top of them. Each is defined once, generic over the tensor.

pub mod alignment;
pub mod bert;
pub mod config;
mod dual_encoder;
pub mod swin;
pub mod vit;

pub use dual_encoder::{ImageEncoder, Laps, TextEncoder, parameters};
