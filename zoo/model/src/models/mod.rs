//! The models: ViT, Swin, BERT, and LAPS over them. Each is defined once, for every tensor.

pub mod alignment;
pub mod bert;
pub mod config;
mod dual_encoder;
pub mod swin;
pub mod vit;

pub use dual_encoder::{ImageEncoder, Laps, TextEncoder, parameters};
