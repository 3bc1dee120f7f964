//! Models: ViT, Swin, BERT, CLIP, and LAPS on top of them. Each is defined once, generic over the tensor.

pub mod alignment;
pub mod bert;
pub mod clip;
pub mod config;
mod dual_encoder;
pub mod swin;
pub mod vit;

pub use dual_encoder::{ImageEncoder, Laps, TextEncoder, parameters};
