//! Sizes of tiles and blocks, within a limit on memory.

use super::{bad, images::DeviceImages};
use crate::Result;
use laps_align::similarity::{AlignmentConfig, CaptionMatrix, Plan};

/// More images in a tile make no product faster.
const TILE_IMAGES: usize = 64;

/// Nor do more padded words in a block.
const BLOCK_WORDS: usize = 1 << 15;

/// What tensors take.
pub(super) struct Sizes<'a>(pub(super) &'a AlignmentConfig);

impl Sizes<'_> {
    /// Bytes of a caption of `length` words, padding included, and of its pairs with `images` images.
    pub(super) fn caption_bytes(&self, images: usize, length: usize) -> usize {
        let AlignmentConfig { patches, kept, groups, width, .. } = *self.0;
        let tokens = self.0.aligned_tokens();
        // Products of patches and words twice, as they are and weighted; then the groups' norms.
        let products = (self.0.tokens() + patches) * length;
        let pair = 4 * (2 * tokens * length + products.max(groups * patches) + 10 * patches) + 24 * kept;
        images * pair + length * (8 * width + 24)
    }

    /// Bytes that the blocks of a plan may take.
    pub(super) fn block_bytes(&self, plan: &Plan, captions: &CaptionMatrix) -> usize {
        plan.bytes.saturating_sub(self.fixed_bytes(captions, plan.tile_images, plan.tile_captions))
    }

    /// The largest tiles that fit: a quarter of the memory for images, a quarter for words, the rest for blocks.
    pub(super) fn plan(&self, images: usize, captions: &CaptionMatrix, memory_limit: usize) -> Result<Plan> {
        let longest = captions.longest().max(1);
        let mut tile_images = (memory_limit / 4 / DeviceImages::bytes(self.0)).clamp(1, TILE_IMAGES.min(images.max(1)));
        let mut tile_captions = captions.len().max(1);
        while tile_captions > 1 && self.words_bytes(captions, tile_captions) > memory_limit / 4 {
            tile_captions = tile_captions * 7 / 8;
        }
        loop {
            let fixed = self.fixed_bytes(captions, tile_images, tile_captions);
            let caption = self.caption_bytes(tile_images, longest);
            let captions_of_block = (memory_limit.saturating_sub(fixed) / caption).min(tile_captions);
            if captions_of_block > 0 {
                // Long captions take the least memory for each word.
                let block_words = (captions_of_block * longest).min(BLOCK_WORDS.max(longest));
                let bytes = fixed + (captions_of_block * caption).min(block_words * self.caption_bytes(tile_images, 1));
                let [captions, threads] = [captions.len(), 1];
                return Ok(Plan { images, captions, tile_images, tile_captions, block_words, threads, bytes });
            }
            if tile_images > 1 {
                tile_images = tile_images * 3 / 4;
            } else if tile_captions > 1 {
                tile_captions = tile_captions * 3 / 4;
            } else {
                let expected = format!("a memory limit of at least {} bytes", fixed + caption);
                return Err(bad(expected, format!("{memory_limit} bytes")));
            }
        }
    }

    /// Bytes of a tile, without the blocks.
    fn fixed_bytes(&self, captions: &CaptionMatrix, images: usize, tile_captions: usize) -> usize {
        images * DeviceImages::bytes(self.0) + self.words_bytes(captions, tile_captions) + 4 * images * tile_captions
    }

    /// Bytes of the words of the tile of so many captions that has the most, twice: as they are, and while they are
    /// brought to the device.
    fn words_bytes(&self, captions: &CaptionMatrix, tile: usize) -> usize {
        let starts = (0..captions.len()).step_by(tile.max(1));
        let most = starts.map(|start| captions.span(start..(start + tile).min(captions.len())).len()).max();
        (most.unwrap_or(0) + 1) * (2 * self.0.width + 1) * 4
    }
}
