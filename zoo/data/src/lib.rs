//! Data sets for LAPS: captions, token ids and images, from files to the inputs of the encoders.
//!
//! * **Captions.** [`Split::open`] reads the captions of a split and the images that they belong to.
//! * **Sources.** [`sources`] reads the layouts of other projects: Karpathy's and COCO's JSON, Parquet, WebDataset and others.
//! * **Tokens.** [`Tokenizer`] turns captions into token ids.
//! * **Images.** [`image`] decodes, resizes and normalises images, bit for bit as in Pillow. [`Loader`] does so on several
//!   threads and returns batches in order.
//! * **Checks.** [`hash_data`] hashes the data of a split, and [`check_images`] decodes all its images. [`survey`](survey()) checks a whole data set
//!   and lists every fault.
//! * **Training.** [`Augment`] crops images and masks captions at random.
//! * **Drawn scenes.** [`scenes`] draws a small data set that needs no download.
//!
//! # Example
//!
//! Draw a data set, tokenize its captions and load its images:
//!
//! ```
//! use laps_data::{Loader, LoaderOptions, Split, Tokenizer, image::Preprocessing, scenes};
//!
//! # let folder = tempfile::tempdir()?;
//! let root = folder.path().join("shapes");
//! let config = scenes::DrawnConfig { seed: 7, train: 0, dev: 0, test: 4 };
//! scenes::write(&root, &config, &[scenes::DrawnSplit::Test])?;
//!
//! let split = Split::open(&root.join("captions"), "test")?;
//! assert_eq!((split.images().len(), split.captions().len()), (4, 20));
//!
//! let tokenizer = Tokenizer::open(&root.join("vocab.txt"))?;
//! let input_ids = tokenizer.encode_all(split.captions(), 64)?;
//! assert_eq!(input_ids[0][0], tokenizer.special().first);
//!
//! let options = LoaderOptions { batch_size: 4, threads: 2, prefetch: 1 };
//! let files = split.image_files(&root.join("images"));
//! let mut loader = Loader::start(files, Preprocessing::imagenet(224), options)?;
//! let batch = loader.next().ok_or("no batch")??;
//! assert_eq!(batch.pixels.dims(), [4, 3, 224, 224]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod augment;
mod captions;
mod checks;
mod error;
mod faults;
pub mod image;
mod loader;
mod orientation;
pub mod scenes;
pub mod sources;
mod split_size;
mod survey;
mod tokenizer;

pub use augment::{Augment, Crop};
pub use captions::{ImageFile, Split, SplitImage, rows, splits};
pub use checks::{Damage, DataHash, check_images, hash_data};
pub use error::{DataError, Error, MappingFault, Result};
pub use faults::{CaptionError, CaptionFault, FileLine, ImageFault, UnusableData};
pub use loader::{ImageBatch, Loader, LoaderOptions, LoaderStats, OnFault};
pub use orientation::{ExifOrientation, orient};
pub use split_size::SplitSize;
pub use survey::{CaptionLimit, SplitSurvey, Survey, SurveyedImage, survey};
pub use tokenizer::{LongCaptions, SpecialTokens, TOKENIZER_CONFIG, Tokenizer, TokenizerConfig, Vocabulary};
