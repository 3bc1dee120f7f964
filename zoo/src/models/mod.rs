//! The models: ViT, Swin, BERT, and LAPS over them. Each is defined once, for every tensor.

pub mod alignment;
pub mod bert;
pub mod config;
pub mod laps;
pub mod swin;
pub mod vit;
