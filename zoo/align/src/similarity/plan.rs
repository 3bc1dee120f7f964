//! Tiles of a matrix within a memory limit.

use std::ops::Range;

use laps_model::heads::Ablation;

use super::{
    captions::CaptionMatrix, config::AlignmentConfig, images::PreparedImages, simd::SimdLevel, source::ImageSource,
    weights::PackedAggregation, worker::Worker,
};
use crate::{Error, Result};

/// Target number of tokens in the images of a tile: large enough that the padding of the last panel is negligible.
pub(super) const TILE_TOKENS: usize = 3200;

/// Number of words in a block. At the published sizes, the words, their products with the tokens of an image, and the tables
/// of the image fit into a second-level cache of 512 KiB.
pub(super) const BLOCK_WORDS: usize = 120;

/// Maximum number of pairs in a tile: seconds of work, so that an interrupted run loses little.
const MAX_TILE_PAIRS: usize = 1 << 18;

/// A part of the matrix: consecutive images and consecutive captions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Index in the plan.
    pub index: usize,
    /// Rows of the matrix.
    pub images: Range<usize>,
    /// Columns of the matrix.
    pub captions: Range<usize>,
}

impl Tile {
    /// Copies the similarities of the tile into a matrix of `columns` columns.
    pub fn copy_to(&self, similarities: &[f32], columns: usize, matrix: &mut [f32]) {
        for (image, row) in self.images.clone().zip(similarities.chunks_exact(self.captions.len())) {
            matrix[image * columns..][self.captions.clone()].copy_from_slice(row);
        }
    }
}

/// A division of the matrix into tiles. It does not change the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Rows of the matrix.
    pub images: usize,
    /// Columns of the matrix.
    pub captions: usize,
    /// Number of images in a tile.
    pub tile_images: usize,
    /// Number of captions in a tile.
    pub tile_captions: usize,
    /// Number of words that are multiplied with an image at once; at least those of the longest caption.
    pub block_words: usize,
    /// Number of threads.
    pub threads: usize,
    /// Bytes of all threads together, without the inputs and the finished matrix.
    pub bytes: usize,
}

impl Plan {
    /// Number of tiles.
    pub fn len(&self) -> usize {
        self.images.div_ceil(self.tile_images) * self.captions.div_ceil(self.tile_captions)
    }

    /// Whether there is no tile.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Checks that the plan is for these images and captions.
    ///
    /// # Errors
    /// [`Error::Operation`] if it is not.
    pub fn check(&self, images: &dyn ImageSource, captions: &CaptionMatrix) -> Result<()> {
        let [rows, columns] = [images.len(), captions.len()];
        if [self.images, self.captions] == [rows, columns] && self.block_words >= captions.longest() {
            return Ok(());
        }
        Err(Error::Operation {
            operation: "similarity",
            expected: format!("the inputs of the plan {self:?}"),
            found: format!("{rows} images and {columns} captions"),
        })
    }

    /// The tile at `index`. Tiles of the same images are consecutive.
    pub fn tile(&self, index: usize) -> Tile {
        let columns = self.captions.div_ceil(self.tile_captions).max(1);
        let images = index / columns * self.tile_images;
        let captions = index % columns * self.tile_captions;
        Tile {
            index,
            images: images..(images + self.tile_images).min(self.images),
            captions: captions..(captions + self.tile_captions).min(self.captions),
        }
    }
}

/// Limits of the tiles of a plan.
pub(super) struct TileLimits {
    /// Maximum number of images in a tile.
    pub(super) max_images: usize,
    /// Number of threads.
    pub(super) threads: usize,
    /// Bytes that all threads share.
    pub(super) shared: usize,
    /// Maximum bytes of all threads and of what they share.
    pub(super) memory_limit: usize,
}

impl TileLimits {
    /// The largest tiles that fit. `bytes` of one thread is a function of the images and captions of a tile and the words of a
    /// block.
    pub(super) fn plan(
        &self,
        images: usize,
        captions: &CaptionMatrix,
        bytes: impl Fn(usize, usize, usize) -> usize,
    ) -> Result<Plan> {
        let longest = captions.longest().max(1);
        let mut min_bytes = usize::MAX;
        for block_words in [BLOCK_WORDS.max(longest), longest] {
            for tile_images in (1..=self.max_images.clamp(1, images.max(1))).rev() {
                let columns = captions.len().max(1);
                // Several tiles per thread, none of which takes long.
                let rows = images.div_ceil(tile_images).max(1);
                let share = columns.div_ceil((4 * self.threads).div_ceil(rows)).max(32);
                let tile_captions = share.min(MAX_TILE_PAIRS / tile_images).min(columns);
                let bytes = self.shared + self.threads * bytes(tile_images, tile_captions, block_words);
                min_bytes = min_bytes.min(bytes);
                if bytes <= self.memory_limit {
                    let [captions, threads] = [captions.len(), self.threads];
                    return Ok(Plan { images, captions, tile_images, tile_captions, block_words, threads, bytes });
                }
            }
        }
        Err(Error::Operation {
            operation: "similarity",
            expected: format!("a memory limit of at least {min_bytes} bytes for {} threads", self.threads),
            found: format!("{} bytes", self.memory_limit),
        })
    }
}

/// Inputs of a plan.
pub(super) struct Planner<'a> {
    pub(super) config: &'a AlignmentConfig,
    pub(super) aggregation: Option<&'a PackedAggregation>,
    pub(super) ablation: Option<Ablation>,
    pub(super) level: SimdLevel,
    pub(super) threads: usize,
    pub(super) memory_limit: usize,
}

impl Planner<'_> {
    /// The largest tiles that fit into the memory limit.
    pub(super) fn plan(&self, images: usize, captions: &CaptionMatrix) -> Result<Plan> {
        let max_images = TILE_TOKENS / self.config.tokens();
        let limits = TileLimits { max_images, threads: self.threads, shared: 0, memory_limit: self.memory_limit };
        limits.plan(images, captions, |images, captions, words| self.bytes(images, captions, words))
    }

    /// Bytes of one thread.
    fn bytes(&self, images: usize, captions: usize, words: usize) -> usize {
        let Self { config, aggregation, ablation, level, .. } = *self;
        PreparedImages::bytes(images, config, ablation, level)
            + PreparedImages::scratch_bytes(config, ablation, level, aggregation)
            + Worker::bytes(config, ablation, level, words)
            + 4 * images * captions
    }
}
