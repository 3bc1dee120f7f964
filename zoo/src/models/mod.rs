//! The models: ViT, Swin, BERT, and LAPS over them.

pub mod config;
