//! The words of captions on the device, and blocks of captions of about the same length.

use std::ops::Range;

use tch::{Kind, Tensor as Tch};

use super::{TorchDevice, plan::Sizes, to_device};
use crate::Result;
use laps_align::similarity::{CaptionMatrix, Plan};

/// A block of so many captions may end where they get longer, so that little is padded.
const ENOUGH: usize = 64;

/// The normalised words of the captions of a tile, and a word of zeros at the end.
pub(super) struct DeviceCaptions {
    range: Range<usize>,
    words: Tch,
    mean_weights: Tch,
    /// Where the words of each caption are.
    spans: Vec<Range<usize>>,
    /// Captions of the tile by length.
    order: Vec<usize>,
}

/// Captions padded to one length.
pub(super) struct CaptionBlock {
    /// Normalised words, zero beyond the end of a caption, `(captions, length, width)`.
    pub(super) words: Tch,
    /// Normalised mean word, `(captions, width)`.
    pub(super) means: Tch,
    /// Where there is no word, `(captions, length)`.
    pub(super) padding: Tch,
    /// Number of words, `(captions)`.
    pub(super) counts: Tch,
}

impl DeviceCaptions {
    pub(super) fn new(captions: &CaptionMatrix, range: Range<usize>, device: TorchDevice) -> Result<Self> {
        let all = captions.span(range.clone());
        let width = captions.width() as i64;
        let words = to_device(captions.normalised(all.clone()), &[all.len() as i64, width], device)?;
        let words = Tch::f_cat(&[words, Tch::f_zeros([1, width], (Kind::Float, device.device()))?], 0)?;
        let mean_weights = [captions.mean_weights(all.clone()), &[0.0]].concat();
        let mean_weights = to_device(&mean_weights, &[all.len() as i64 + 1], device)?;
        let spans: Vec<Range<usize>> = range
            .clone()
            .map(|caption| captions.span(caption..caption + 1))
            .map(|span| span.start - all.start..span.end - all.start)
            .collect();
        let mut order: Vec<usize> = (0..spans.len()).collect();
        order.sort_by_key(|&place| spans[place].len());
        Ok(Self { range, words, mean_weights, spans, order })
    }

    /// Which captions they are.
    pub(super) fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// Cuts the captions, from the shortest to the longest, into blocks that take at most `bytes` with their pairs.
    pub(super) fn blocks(&self, sizes: &Sizes<'_>, plan: &Plan, bytes: usize) -> Vec<&[usize]> {
        let mut blocks = Vec::new();
        let mut start = 0;
        for end in 1..=self.order.len() {
            let Some(&next) = self.order.get(end) else {
                blocks.push(&self.order[start..]);
                break;
            };
            let [shortest, longest] = [self.spans[self.order[start]].len(), self.spans[next].len()];
            let captions = end + 1 - start;
            let full = captions * sizes.caption_bytes(plan.tile_images, longest) > bytes
                || captions * longest > plan.block_words;
            if full || (end - start >= ENOUGH && longest > shortest + shortest / 8) {
                blocks.push(&self.order[start..end]);
                start = end;
            }
        }
        blocks
    }

    /// The captions at `members`, padded to the longest of them.
    pub(super) fn block(&self, members: &[usize]) -> Result<CaptionBlock> {
        let length = members.iter().map(|&place| self.spans[place].len()).max().unwrap_or(0);
        let none = self.spans.last().map_or(0, |span| span.end) as i64;
        let mut indices = vec![none; members.len() * length];
        for (row, &place) in indices.chunks_exact_mut(length.max(1)).zip(members) {
            row.iter_mut().zip(self.spans[place].clone()).for_each(|(slot, word)| *slot = word as i64);
        }
        let counts: Vec<f32> = members.iter().map(|&place| self.spans[place].len() as f32).collect();
        let device = self.words.device();
        let [captions, length] = [members.len() as i64, length as i64];
        let indices = Tch::f_from_slice(&indices)?.f_to_device(device)?;
        let words = self.words.f_index_select(0, &indices)?.f_reshape([captions, length, -1])?;
        let weights = self.mean_weights.f_index_select(0, &indices)?.f_reshape([captions, 1, length])?;
        Ok(CaptionBlock {
            means: weights.f_bmm(&words)?.f_squeeze_dim(1)?,
            words,
            padding: indices.f_eq(none)?.f_reshape([captions, length])?,
            counts: Tch::f_from_slice(&counts)?.f_to_device(device)?,
        })
    }
}
