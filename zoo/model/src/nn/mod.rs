//! Layers. Their parameters have the names that checkpoints use.

mod attention;
mod batch_norm;
mod dropout;
mod feed_forward;
mod layer_norm;
mod linear;

pub use attention::{Attention, AttentionNames, PROJECTIONS};
pub use batch_norm::BatchNorm;
pub use dropout::{DropPath, Dropout};
pub use feed_forward::FeedForward;
pub use layer_norm::LayerNorm;
pub use linear::Linear;
