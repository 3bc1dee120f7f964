//! Passes that rewrite a whole graph: fusion, lowering to an opset, reduced precision.

mod fuse;
mod half;
mod int8;
mod lower;
mod probe;
mod prune;
mod smooth;

pub use fuse::fuse;
pub use half::half;
pub use int8::int8;
pub use lower::lower;
pub use probe::{Rounding, probe};
pub use prune::prune;
pub use smooth::{channels, smooth};
