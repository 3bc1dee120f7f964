//! Tile and block sizes within a memory limit.

use super::{images::DeviceImages, invalid};
use crate::Result;
use laps_align::similarity::{AlignmentConfig, CaptionMatrix, Plan};

/// Maximum images of a tile: more do not make the products faster.
pub(super) const TILE_IMAGES: usize = 64;

/// Maximum padded words of a block: more do not make the products faster.
const BLOCK_WORDS: usize = 1 << 15;

/// Memory of the tensors of a tile.
pub(super) struct MemoryModel<'a>(pub(super) &'a AlignmentConfig);

impl MemoryModel<'_> {
    /// Bytes of a caption of `length` words, including padding, and of its pairs with `images` images.
    pub(super) fn caption_bytes(&self, images: usize, length: usize) -> usize {
        let AlignmentConfig { patches, kept, groups, width, .. } = *self.0;
        let tokens = self.0.aligned_tokens();
        // Products of patches and words twice, plain and weighted; later the norms of the groups.
        let products = (self.0.tokens() + patches) * length;
        let pair = 4 * (2 * tokens * length + products.max(groups * patches) + 10 * patches) + 24 * kept;
        images * pair + length * (8 * width + 24)
    }

    /// Bytes available for the blocks of a plan.
    pub(super) fn block_bytes(&self, plan: &Plan, captions: &CaptionMatrix) -> usize {
        plan.bytes.saturating_sub(self.fixed_bytes(captions, plan.tile_images, plan.tile_captions))
    }

    /// The largest tiles that fit: a quarter of the memory for images, a quarter for words, the rest for blocks.
    ///
    /// # Errors
    /// A limit below the memory of one image and one caption.
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
            let block_captions = (memory_limit.saturating_sub(fixed) / caption).min(tile_captions);
            if block_captions > 0 {
                // Long captions need the least memory a word.
                let block_words = (block_captions * longest).min(BLOCK_WORDS.max(longest));
                let bytes = fixed + (block_captions * caption).min(block_words * self.caption_bytes(tile_images, 1));
                let [captions, threads] = [captions.len(), 1];
                return Ok(Plan { images, captions, tile_images, tile_captions, block_words, threads, bytes });
            }
            if tile_images > 1 {
                tile_images = tile_images * 3 / 4;
            } else if tile_captions > 1 {
                tile_captions = tile_captions * 3 / 4;
            } else {
                let expected = format!("a memory limit of at least {} bytes", fixed + caption);
                return Err(invalid(expected, format!("{memory_limit} bytes")));
            }
        }
    }

    /// Bytes of a tile without its blocks.
    fn fixed_bytes(&self, captions: &CaptionMatrix, images: usize, tile_captions: usize) -> usize {
        images * DeviceImages::bytes(self.0) + self.words_bytes(captions, tile_captions) + 4 * images * tile_captions
    }

    /// Bytes of the words of the largest tile of `tile` captions, counted twice: while they are copied to the device there
    /// are two copies.
    fn words_bytes(&self, captions: &CaptionMatrix, tile: usize) -> usize {
        let starts = (0..captions.len()).step_by(tile.max(1));
        let most = starts.map(|start| captions.span(start..(start + tile).min(captions.len())).len()).max();
        (most.unwrap_or(0) + 1) * (2 * self.0.width + 1) * 4
    }
}
