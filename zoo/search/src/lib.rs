//! Use without a data set: embeddings as files, and search in an index of images or of captions.
//!
//! An [`Index`] is one file with the embeddings of every image (or caption) of a folder (or file), and of each a single
//! vector, see [`pool()`]. A [`Searcher`] takes the items whose vectors are nearest to that of the query and computes the
//! exact similarity of those, or of all; [`evaluate()`] says what the short cut loses. Nothing but the rows that are asked
//! for is read of an index, whatever its size.

mod build;
mod description;
mod embed;
mod encoding;
mod error;
mod evaluate;
mod folder;
mod growing;
mod index;
mod pool;
mod precision;
mod searcher;
#[cfg(test)]
mod tests;
mod write;

pub use build::{Skipped, Summary, index_captions, index_images};
pub use description::{Description, Item, Kind, ModelUsed};
pub use embed::{Content, Embedded, Format, embed_captions, embed_images};
pub use encoding::Encoding;
pub use error::{Error, Result, SearchError};
pub use evaluate::{Evaluation, ShortCut, evaluate};
pub use folder::{captions_beside, images_in};
pub use index::Index;
pub use pool::{FirstRow, pool};
pub use precision::Precision;
pub use searcher::{CANDIDATES, Hit, Reach, Searcher};
pub use write::IndexWriter;
