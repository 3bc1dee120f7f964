//! Caption words on the device, and blocks of captions of similar length.

use std::ops::Range;

use tch::{Kind, Tensor as Tch};

use super::{TorchDevice, normalise, plan::MemoryModel, to_device};
use crate::Result;
use laps_align::similarity::{CaptionMatrix, Plan};

/// A block of at least this many captions ends where captions get longer, to save padding.
const MIN_BLOCK_CAPTIONS: usize = 64;

/// Normalised words of the captions of a tile, with a zero word at the end for padding.
pub(super) struct DeviceCaptions {
    range: Range<usize>,
    words: Tch,
    mean_weights: Tch,
    /// Word range of each caption.
    spans: Vec<Range<usize>>,
    /// Captions of the tile, sorted by length.
    order: Vec<usize>,
}

/// Captions padded to the same length.
pub(crate) struct CaptionBlock {
    /// Normalised words, 0 in the padding, `(captions, length, width)`.
    pub(super) words: Tch,
    /// Normalised mean word, `(captions, width)`.
    pub(super) means: Tch,
    /// Mask of the padding, `(captions, length)`.
    pub(super) padding: Tch,
    /// Number of words, `(captions)`.
    pub(super) counts: Tch,
}

impl CaptionBlock {
    /// Creates a block from words `(captions, length, width)` that are not normalised and 0 in the padding. `padding` is its
    /// mask, `counts` are the numbers of words.
    pub(crate) fn new(words: &Tch, padding: Tch, counts: Tch) -> Result<Self> {
        let mean = words.f_sum_dim_intlist(&[1i64][..], false, None)?.f_div(&counts.f_unsqueeze(1)?)?;
        Ok(Self { words: normalise(words)?.0, means: normalise(&mean)?.0, padding, counts })
    }

    /// A range of the captions.
    pub(super) fn narrow(&self, start: i64, length: i64) -> Result<Self> {
        let narrow = |tensor: &Tch| tensor.f_narrow(0, start, length);
        Ok(Self {
            words: narrow(&self.words)?,
            means: narrow(&self.means)?,
            padding: narrow(&self.padding)?,
            counts: narrow(&self.counts)?,
        })
    }
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
        order.sort_by_key(|&caption| spans[caption].len());
        Ok(Self { range, words, mean_weights, spans, order })
    }

    /// The captions' range in their source.
    pub(super) fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// Splits the captions, sorted by length, into blocks that take at most `bytes` together with their pairs.
    pub(super) fn blocks(&self, memory: &MemoryModel<'_>, plan: &Plan, bytes: usize) -> Vec<&[usize]> {
        let mut blocks = Vec::new();
        let mut start = 0;
        for end in 1..=self.order.len() {
            let Some(&next) = self.order.get(end) else {
                blocks.push(&self.order[start..]);
                break;
            };
            let [shortest, longest] = [self.spans[self.order[start]].len(), self.spans[next].len()];
            let captions = end + 1 - start;
            let full = captions * memory.caption_bytes(plan.tile_images, longest) > bytes
                || captions * longest > plan.block_words;
            if full || (end - start >= MIN_BLOCK_CAPTIONS && longest > shortest + shortest / 8) {
                blocks.push(&self.order[start..end]);
                start = end;
            }
        }
        blocks
    }

    /// The captions `members`, padded to the longest of them.
    pub(super) fn block(&self, members: &[usize]) -> Result<CaptionBlock> {
        let length = members.iter().map(|&caption| self.spans[caption].len()).max().unwrap_or(0);
        let padding = self.spans.last().map_or(0, |span| span.end) as i64;
        let mut indices = vec![padding; members.len() * length];
        for (row, &caption) in indices.chunks_exact_mut(length.max(1)).zip(members) {
            row.iter_mut().zip(self.spans[caption].clone()).for_each(|(slot, word)| *slot = word as i64);
        }
        let counts: Vec<f32> = members.iter().map(|&caption| self.spans[caption].len() as f32).collect();
        let device = self.words.device();
        let [captions, length] = [members.len() as i64, length as i64];
        let indices = Tch::f_from_slice(&indices)?.f_to_device(device)?;
        let words = self.words.f_index_select(0, &indices)?.f_reshape([captions, length, -1])?;
        let weights = self.mean_weights.f_index_select(0, &indices)?.f_reshape([captions, 1, length])?;
        Ok(CaptionBlock {
            means: weights.f_bmm(&words)?.f_squeeze_dim(1)?,
            words,
            padding: indices.f_eq(padding)?.f_reshape([captions, length])?,
            counts: Tch::f_from_slice(&counts)?.f_to_device(device)?,
        })
    }
}
