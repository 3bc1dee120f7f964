//! Captions, tokens and images: from the files of a data set to what the encoders take.

mod augment;
mod captions;
mod error;
pub mod image;
mod loader;
mod preflight;
pub mod scenes;
mod split_size;
mod survey;
mod tokenizer;

pub use augment::{Augment, Crop};
pub use captions::{ImageFile, Split, SplitImage, rows, splits};
pub use error::{DataError, Error, ImageFault, Result};
pub use loader::{Batch, Loader, LoaderOptions, LoaderStats, OnFault};
pub use preflight::{Damage, Preflight, preflight};
pub use split_size::SplitSize;
pub use survey::{SplitSurvey, Survey, survey};
pub use tokenizer::{SpecialTokens, Tokenizer};
