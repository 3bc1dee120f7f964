//! How a matrix is cut into tiles, within a limit on memory.

use std::ops::Range;

use super::{
    captions::CaptionMatrix, config::AlignmentConfig, images::PreparedImages, simd::Level, weights::Aggregation,
    worker::Worker,
};
use crate::{Error, Result};

/// Tokens of images in a tile: enough that the last, partly filled panel does not count.
const TILE_TOKENS: usize = 3200;

/// Words in a block: these, their products with an image's tokens and that image's tables fit into a second-level cache
/// of 512 KiB at the published sizes.
pub(super) const BLOCK_WORDS: usize = 120;

/// Pairs in a tile at most: some seconds of work, so that an interrupted run loses little.
const TILE_PAIRS: usize = 1 << 18;

/// Similarities of some images with some captions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Its place in the plan.
    pub index: usize,
    /// Rows of the matrix.
    pub images: Range<usize>,
    /// Columns of the matrix.
    pub captions: Range<usize>,
}

impl Tile {
    /// Writes the similarities of the tile to their place in a matrix of `columns` columns, whose first row is image 0.
    pub fn place(&self, similarities: &[f32], columns: usize, matrix: &mut [f32]) {
        for (image, row) in self.images.clone().zip(similarities.chunks_exact(self.captions.len())) {
            matrix[image * columns..][self.captions.clone()].copy_from_slice(row);
        }
    }
}

/// A cut of the matrix into tiles. Results do not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Rows of the matrix.
    pub images: usize,
    /// Columns of the matrix.
    pub captions: usize,
    /// Images in a tile.
    pub tile_images: usize,
    /// Captions in a tile.
    pub tile_captions: usize,
    /// Words that are multiplied with an image at once; at least those of the longest caption.
    pub block_words: usize,
    /// Threads that work.
    pub threads: usize,
    /// Memory that all threads take together, the inputs and the finished matrix not counted.
    pub bytes: usize,
}

impl Plan {
    /// Number of tiles.
    pub fn len(&self) -> usize {
        self.images.div_ceil(self.tile_images) * self.captions.div_ceil(self.tile_captions)
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tile at `index`; those of the same images follow each other.
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

/// What a plan is made for.
pub(super) struct Planner<'a> {
    pub(super) config: &'a AlignmentConfig,
    pub(super) aggregation: &'a Aggregation,
    pub(super) level: Level,
    pub(super) threads: usize,
    pub(super) memory_limit: usize,
}

impl Planner<'_> {
    /// The largest tiles that fit.
    pub(super) fn plan(&self, images: usize, captions: &CaptionMatrix) -> Result<Plan> {
        let longest = captions.longest().max(1);
        let most = (TILE_TOKENS / self.config.tokens()).clamp(1, images.max(1));
        let mut least = usize::MAX;
        for block_words in [BLOCK_WORDS.max(longest), longest] {
            for tile_images in (1..=most).rev() {
                let columns = captions.len().max(1);
                // Every thread should get several tiles, and none should take long.
                let rows = images.div_ceil(tile_images).max(1);
                let share = columns.div_ceil((4 * self.threads).div_ceil(rows)).max(32);
                let tile_captions = share.min(TILE_PAIRS / tile_images).min(columns);
                let bytes = self.threads * self.bytes(tile_images, tile_captions, block_words);
                least = least.min(bytes);
                if bytes <= self.memory_limit {
                    let [captions, threads] = [captions.len(), self.threads];
                    return Ok(Plan { images, captions, tile_images, tile_captions, block_words, threads, bytes });
                }
            }
        }
        Err(self.too_little(least))
    }

    fn too_little(&self, least: usize) -> Error {
        Error::Operation {
            operation: "similarity",
            expected: format!("a memory limit of at least {least} bytes for {} threads", self.threads),
            found: format!("{} bytes", self.memory_limit),
        }
    }

    /// Memory of one thread.
    fn bytes(&self, images: usize, captions: usize, words: usize) -> usize {
        let config = self.config;
        PreparedImages::bytes(images, config, self.level)
            + PreparedImages::scratch_bytes(config, self.level, self.aggregation)
            + Worker::bytes(config, self.level, words)
            + 4 * images * captions
    }
}
