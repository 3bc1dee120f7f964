//! Embedding files, and search in an index of images or captions.
//!
//! An [`Index`] is one file of safetensors segments, or a folder of shards. It stores the embeddings of every image of a
//! folder (or of every caption of a file) and one pooled vector for each of them. A search has two stages:
//!
//! 1. **Candidates.** A dot product of the pooled vectors ranks all items, and the nearest ones become candidates.
//! 2. **Re-ranking.** The similarity engine computes the exact similarity of the query with each candidate.
//!
//! If the model's head pools, its vectors are stored and nothing else, and one scan of them is an exact search.
//!
//! [`SearchScope::All`] skips the first stage. [`evaluate()`] measures how many of the best items the first stage finds.
//! Only the rows that a search needs are read from the file, so an index may be larger than the memory.
//!
//! | Task | Item |
//! |---|---|
//! | Create or update an index | [`index_images`], [`index_captions`] |
//! | Let several processes create an index | [`ShardedIndex`] |
//! | List the images of a folder, without those that cannot be used | [`ImageFolder`] |
//! | Search | [`Searcher`] |
//! | Write embeddings for other programs (safetensors, NumPy) | [`embed_images`], [`embed_captions`] |
//! | Run an encoder over images and captions | [`EmbeddingPipeline`] |
//!
//! The ten best images for a caption:
//!
//! ```
//! use std::{path::Path, sync::atomic::AtomicBool};
//!
//! use laps_align::similarity::SimilarityEngine;
//! use laps_model::array::Array;
//! use laps_search::{DEFAULT_CANDIDATES, Index, IndexKind, SearchScope, Searcher};
//!
//! /// `words` are the embeddings `(words, dim)` of the caption.
//! fn print_best(path: &Path, engine: &dyn SimilarityEngine, words: &Array) -> laps_search::Result<()> {
//!     let index = Index::open(path)?;
//!     index.description().check_kind(path, IndexKind::Images)?;
//!     let searcher = Searcher { index: &index, filter: None, engine, stop: &AtomicBool::new(false) };
//!     for hit in searcher.search(words, SearchScope::Candidates(DEFAULT_CANDIDATES), 10)? {
//!         println!("{:.4} {}", hit.similarity, index.item(hit.item)?.name);
//!     }
//!     Ok(())
//! }
//!
//! // A file that does not exist is an error that names it.
//! let error = Index::open(Path::new("missing.index")).unwrap_err();
//! assert!(error.to_string().contains("missing.index"));
//! ```

mod build;
mod description;
mod embed;
mod error;
mod evaluate;
mod files;
mod filter;
mod half_dot;
mod index;
mod index_shards;
mod index_writer;
mod pipeline;
mod pool;
mod precision;
mod searcher;
mod segment;
mod segment_file;
mod segmented_file;
mod shards;
mod spool;
mod staged_file;
mod store;
mod stored_item;
#[cfg(test)]
mod tests;

pub use build::{IndexSummary, absolute, index_captions, index_images};
pub use description::{FileStamp, IndexDescription, IndexItem, IndexKind, ModelUsed};
pub use embed::{EmbeddingFile, EmbeddingFormat, EmbeddingGranularity, ImageInput, embed_captions, embed_images};
pub use error::{Error, Result, SearchError};
pub use evaluate::{CandidateRecall, SearchEvaluation, evaluate};
pub use files::{CaptionLine, DamagedImage, Exclusions, ImageFolder, SkippedItem, caption_lines};
pub use filter::{Comparison, Condition, Filter};
pub use index::Index;
pub use index_shards::ShardedIndex;
pub use index_writer::IndexWriter;
pub use pipeline::{EmbeddingPipeline, EncodedImage, UsableCaptions};
pub use precision::IndexPrecision;
pub use searcher::{DEFAULT_CANDIDATES, Hit, Neighbor, SearchScope, Searcher, dot};
pub use shards::{ShardCounts, ShardInput, ShardSummary, ShardWriter};
pub use store::{Store, StoreError};
pub use stored_item::StoredItem;
