//! Several captions, one after another, and what is needed to go from words to captions.

use std::ops::Range;

use tch::{Kind, Tensor as Tch};

use crate::Result;

/// Captions without padding.
pub(super) struct CaptionSet {
    /// Normalised words of all captions, `(words, width)`.
    pub(super) words: Tch,
    /// The words of each caption.
    pub(super) spans: Vec<Range<i64>>,
    /// Caption of each word, `(words)`.
    pub(super) owners: Tch,
    /// 1 where a word is of a caption, `(words, captions)`. Products with it are sums and copies whose gradient is a
    /// product too, where indexing would add up row by row.
    pub(super) spread: Tch,
    /// Words of each caption, `(captions, 1)`.
    counts: Tch,
    /// Words of each caption, and one beyond all words in the place of padding, `(captions * length)`.
    padded: Tch,
}

impl CaptionSet {
    /// Captions of so many words each.
    pub(super) fn new(words: Tch, lengths: &[usize]) -> Result<Self> {
        let device = words.device();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let mut spans = Vec::with_capacity(lengths.len());
        let mut owners = Vec::new();
        let mut padded = Vec::with_capacity(lengths.len() * longest);
        let total = lengths.iter().sum::<usize>() as i64;
        let mut start = 0;
        for (caption, &length) in lengths.iter().enumerate() {
            let end = start + length as i64;
            owners.extend(std::iter::repeat_n(caption as i64, length));
            padded.extend(start..end);
            padded.extend(std::iter::repeat_n(total, longest - length));
            spans.push(start..end);
            start = end;
        }
        let owners = Tch::f_from_slice(&owners)?.f_to_device(device)?;
        let spread = Tch::f_zeros([total, lengths.len() as i64], (Kind::Float, device))?;
        let spread = spread.f_scatter_value(1, &owners.f_unsqueeze(1)?, 1.0)?;
        let counts: Vec<f32> = lengths.iter().map(|&length| length as f32).collect();
        let counts = Tch::f_from_slice(&counts)?.f_to_device(device)?.f_unsqueeze(1)?;
        let padded = Tch::f_from_slice(&padded)?.f_to_device(device)?;
        Ok(Self { words, spans, owners, spread, counts, padded })
    }

    /// Cosines `(words, tokens)` to similarities `(captions)`: mean over words of the largest over tokens, plus mean over
    /// tokens of the largest over words. The leaky ReLU keeps order, so it is applied to the largest only.
    pub(super) fn finish(&self, cosines: &Tch) -> Result<Tch> {
        let (of_words, _) = cosines.f_max_dim(1, true)?;
        let of_words = self.mean(&leaky(&of_words)?)?;
        let of_tokens = cosines.f_gather(0, &self.largest_words(cosines)?, false)?;
        let of_tokens = leaky(&of_tokens)?.f_mean_dim(&[1i64][..], true, None)?;
        Ok(of_words.f_add(&of_tokens)?.f_squeeze_dim(1)?)
    }

    /// Mean of `(words, width)` over the words of each caption, `(captions, width)`.
    pub(super) fn mean(&self, words: &Tch) -> Result<Tch> {
        Ok(self.spread.f_transpose(0, 1)?.f_matmul(words)?.f_div(&self.counts)?)
    }

    /// For each caption and token the word with the largest cosine, `(captions, tokens)`.
    fn largest_words(&self, cosines: &Tch) -> Result<Tch> {
        let _guard = tch::no_grad_guard();
        let [captions, tokens] = [self.spans.len() as i64, cosines.size()[1]];
        let none = Tch::f_full([1, tokens], f64::NEG_INFINITY, (Kind::Float, cosines.device()))?;
        let padded = Tch::f_cat(&[&cosines.f_detach()?, &none], 0)?.f_index_select(0, &self.padded)?;
        let within = padded.f_reshape([captions, -1, tokens])?.f_argmax(1, false)?;
        let starts: Vec<i64> = self.spans.iter().map(|span| span.start).collect();
        let starts = Tch::f_from_slice(&starts)?.f_to_device(cosines.device())?.f_unsqueeze(1)?;
        Ok(within.f_add(&starts)?)
    }
}

/// Leaky ReLU with slope 0.1.
fn leaky(tensor: &Tch) -> Result<Tch> {
    Ok(tensor.f_maximum(&tensor.f_mul_scalar(0.1)?)?)
}
