//! Ablations of LAPS that select patches, made of the stages of its own pairs.
//!
//! | ablation | change |
//! |---|---|
//! | `without_language_context` | the scores are those of the image |
//! | `without_patch_calibration` | no groups: the maxima are over the products of the kept patches |
//! | `without_redundant_fusion` | no fused patch |
//! | `patch_to_word_only`, `word_to_patch_only` | one of the two means of maxima |
//! | `scan_alignment` | words attend to the merged tokens |
//!
//! In `scan_alignment`, the vector that a word attends to is a sum of merged tokens, which are sums of tokens of the image.
//! With the weights `w` of the tokens of the image in it, its squared norm is `w G w^T`, where `G` are the products of the
//! tokens with each other. That is one matrix product for all words of a block, and nothing of the width of the embeddings
//! is computed for a pair. As for groups, the sizes of the weights show whether the products have lost too many digits; the
//! vector is then computed by the definition.

use std::ops::Range;

use laps_model::heads::Ablation;

use super::{
    config::{AlignmentConfig, CANCELLATION},
    head_kernel::{self, MIN_ATTENDED, WordAttention},
    images::stride,
    packed::PackedRows,
    pair::{PairKernel, leaky_relu},
    scratch::PairScratch,
    selection::select,
    simd::{Kernel, Simd, SimdLevel},
};

/// Whether words attend to the tokens of an image, for which the products of all its tokens are needed.
pub(super) fn attends(ablation: Option<Ablation>) -> bool {
    ablation == Some(Ablation::ScanAlignment)
}

/// Columns of a row of the products of the tokens of an image with each other, as [`PackedRows`] pads them.
pub(super) fn token_columns(config: &AlignmentConfig, level: SimdLevel) -> usize {
    config.tokens().next_multiple_of(2 * level.lanes())
}

/// Buffers for a block of words that attend to tokens; empty for other ablations.
#[derive(Debug, Default)]
pub(super) struct AttentionBuffers {
    /// Values of a row of the buffers over the tokens of an image.
    columns: usize,
    /// Weights of the merged tokens for the words of one caption, `(words, stride)`.
    merged: Vec<f32>,
    /// Weights of the tokens of the image in the attended vector of each word, `(words, columns)`.
    tokens: Vec<f32>,
    /// The same, packed for a product.
    packed: Vec<f32>,
    /// The same times the products of the tokens, `(words, columns)`.
    attended: Vec<f32>,
    /// Product of each word with its attended vector.
    products: Vec<f32>,
}

impl AttentionBuffers {
    /// Buffers for blocks of `block_words` words.
    pub(super) fn new(
        config: &AlignmentConfig,
        ablation: Option<Ablation>,
        level: SimdLevel,
        block_words: usize,
    ) -> Self {
        if !attends(ablation) {
            return Self::default();
        }
        let columns = token_columns(config, level);
        let [tokens, packed, attended] = [(); 3].map(|()| vec![0.0; block_words * columns]);
        let merged = vec![0.0; block_words * stride(config)];
        Self { columns, merged, tokens, packed, attended, products: vec![0.0; block_words] }
    }

    pub(super) fn bytes(
        config: &AlignmentConfig,
        ablation: Option<Ablation>,
        level: SimdLevel,
        block_words: usize,
    ) -> usize {
        match attends(ablation) {
            true => 4 * block_words * (stride(config) + 3 * token_columns(config, level) + 1),
            false => 0,
        }
    }

    /// Similarities of the captions of a block, from the weights of the tokens and `gram`, the products of the tokens with
    /// each other.
    fn write_similarities(&mut self, level: SimdLevel, pairs: &mut PairKernel<'_, ()>, gram: &PackedRows) {
        let Self { columns, tokens, packed, attended, products, .. } = self;
        let captions = pairs.captions;
        let block = pairs.block.clone();
        let span = captions.span(block.clone());
        let size = span.len() * *columns;
        gram.multiply_block(&tokens[..size], &mut packed[..size], &mut attended[..size]);
        for (place, caption) in block.enumerate() {
            let words = captions.span(caption..caption + 1);
            let mut sum = 0.0;
            let rows = words.start - span.start..words.end - span.start;
            for (row, product) in rows.clone().zip(&products[rows]) {
                let values = row * *columns..(row + 1) * *columns;
                let weights = &tokens[values.clone()];
                let [mut square, terms] = level.run(AttendedSquare { weights, attended: &attended[values] });
                if square * CANCELLATION < terms {
                    square = attended_square(pairs, weights);
                }
                sum += f64::from(product / square.max(MIN_ATTENDED).sqrt());
            }
            pairs.output[place] = (sum / words.len() as f64) as f32;
        }
    }
}

/// Squared norm of the sum of the tokens of the image with `weights`, which is computed as a vector.
#[cold]
fn attended_square(pairs: &mut PairKernel<'_, ()>, weights: &[f32]) -> f32 {
    let PairScratch { token, counts, .. } = &mut *pairs.scratch;
    token.fill(0.0);
    for (row, &weight) in weights[..pairs.config.tokens()].iter().enumerate() {
        pairs.tokens.add_row(pairs.first_token + row, weight, token);
    }
    counts.as_vectors += 1;
    token.iter().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>() as f32
}

/// Squared norm of an attended vector, and the sum of its squared weights.
struct AttendedSquare<'a> {
    /// Weights of the tokens of the image.
    weights: &'a [f32],
    /// The weights times the products of the tokens.
    attended: &'a [f32],
}

impl Kernel for AttendedSquare<'_> {
    type Output = [f32; 2];

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> [f32; 2] {
        let [mut square, mut terms] = [simd.splat(0.0); 2];
        for (weights, attended) in self.weights.chunks_exact(S::LANES).zip(self.attended.chunks_exact(S::LANES)) {
            let weights = simd.load(weights);
            square = simd.mul_add(weights, simd.load(attended), square);
            terms = simd.mul_add(weights, weights, terms);
        }
        [simd.sum(square), simd.sum(terms)]
    }
}

/// Computes the similarities of `pairs` by an ablation other than `without_patch_selection`. `gram` has the products of the
/// tokens of the image with each other, if words attend to them.
pub(super) fn compare_ablated(
    ablation: Ablation,
    level: SimdLevel,
    mut pairs: PairKernel<'_, ()>,
    gram: Option<&PackedRows>,
    attention: &mut AttentionBuffers,
) {
    level.run(AblatedKernel { ablation, pairs: &mut pairs, attention: &mut *attention });
    if let Some(gram) = gram {
        attention.write_similarities(level, &mut pairs, gram);
    }
}

/// Computes the similarities of one image and the captions of a block, or the weights of the tokens that words attend to.
struct AblatedKernel<'a, 'b> {
    ablation: Ablation,
    pairs: &'a mut PairKernel<'b, ()>,
    attention: &'a mut AttentionBuffers,
}

impl Kernel for AblatedKernel<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let (captions, table, table_stride) = (self.pairs.captions, self.pairs.table, self.pairs.table_stride);
        let block = self.pairs.block.clone();
        let first_word = captions.span(block.clone()).start;
        for (place, caption) in block.enumerate() {
            let words = captions.span(caption..caption + 1);
            let row = words.start - first_word;
            if let Some(similarity) = self.pair(simd, &table[row * table_stride..], &words, row) {
                self.pairs.output[place] = similarity;
            }
        }
        self.pairs.scratch.counts.pairs += self.pairs.output.len() as u64;
    }
}

impl AblatedKernel<'_, '_> {
    /// The similarity of a caption whose words start at `row` of the block. None if its words attend to tokens: the
    /// similarities of a block then follow from the weights of the tokens.
    #[inline(always)]
    fn pair<S: Simd>(&mut self, simd: S, table: &[f32], words: &Range<usize>, row: usize) -> Option<f32> {
        let config = *self.pairs.config;
        let (captions, image) = (self.pairs.captions, self.pairs.image);
        if self.ablation == Ablation::WithoutLanguageContext {
            self.pairs.scratch.scores.copy_from_slice(&image.scores);
        } else {
            self.pairs.score(simd, table, captions.mean_weights(words.clone()));
        }
        let scratch = &mut *self.pairs.scratch;
        select(simd, &scratch.scores, config.patches, config.kept, &mut scratch.mask);
        if self.ablation != Ablation::WithoutPatchCalibration {
            self.pairs.sum_groups(simd, table, words.len());
            let as_vectors = self.pairs.scratch.counts.as_vectors;
            self.pairs.norm_groups(simd, words);
            if self.ablation == Ablation::ScanAlignment {
                if self.pairs.scratch.counts.as_vectors == as_vectors {
                    self.copy_factors();
                } else {
                    self.rescale_groups(words);
                }
            }
        }
        if self.ablation != Ablation::WithoutRedundantFusion {
            self.pairs.fuse_dropped(simd, table, words);
        }
        match self.ablation {
            Ablation::WithoutPatchCalibration => return Some(self.kept_maxima(simd, table, words.len())),
            Ablation::ScanAlignment => {
                self.weigh_tokens(simd, words.len(), row);
                return None;
            }
            _ => {}
        }
        let tokens = match self.ablation {
            // The fused patch is the last token.
            Ablation::WithoutRedundantFusion => config.aligned_tokens() - 1,
            _ => config.aligned_tokens(),
        };
        let [of_words, of_tokens] = self.pairs.mean_maxima(simd, tokens, words.len());
        let similarity = match self.ablation {
            Ablation::PatchToWordOnly => of_tokens,
            Ablation::WordToPatchOnly => of_words,
            _ => of_words + of_tokens,
        };
        Some(similarity as f32)
    }

    /// Mean over words of the maximum over kept patches, class token and fused patch, plus mean over these tokens of the
    /// maximum over words.
    #[inline(always)]
    fn kept_maxima<S: Simd>(&mut self, simd: S, table: &[f32], words: usize) -> f32 {
        let config = *self.pairs.config;
        let (stride, table_stride) = (stride(&config), self.pairs.table_stride);
        let fused = config.aligned_tokens() - 1;
        let used = config.patches.next_multiple_of(S::LANES);
        let PairScratch { mask, squares, similarities, .. } = &mut *self.pairs.scratch;
        let inverse_norm = 1.0 / squares[fused].max(f32::MIN_POSITIVE).sqrt();
        let lowest = simd.splat(f32::NEG_INFINITY);
        let [mut best_of_class, mut best_of_fused] = [f32::NEG_INFINITY; 2];
        let mut over_words = 0.0;
        for word in 0..words {
            let row = &table[word * table_stride..];
            let mut largest = lowest;
            for first in (0..used).step_by(S::LANES) {
                let kept = simd.select(lanes_of(mask, first), simd.load(&row[first..]), lowest);
                largest = simd.max(kept, largest);
            }
            let cosine = similarities[word * stride + fused] * inverse_norm;
            best_of_fused = best_of_fused.max(cosine);
            let mut best = simd.largest(largest).max(cosine);
            if config.has_class_token {
                let cosine = row[config.patches];
                best_of_class = best_of_class.max(cosine);
                best = best.max(cosine);
            }
            over_words += f64::from(leaky_relu(best));
        }
        let mut over_patches = simd.splat(0.0);
        for first in (0..used).step_by(S::LANES) {
            let mut best = lowest;
            for word in 0..words {
                best = simd.max(simd.load(&table[word * table_stride + first..]), best);
            }
            let best = head_kernel::leaky_relu(simd, best);
            over_patches = simd.add(simd.select(lanes_of(mask, first), best, simd.splat(0.0)), over_patches);
        }
        let mut over_tokens = f64::from(simd.sum(over_patches)) + f64::from(leaky_relu(best_of_fused));
        if config.has_class_token {
            over_tokens += f64::from(leaky_relu(best_of_class));
        }
        let tokens = config.kept + config.aligned_tokens();
        (over_words / words as f64 + over_tokens / tokens as f64) as f32
    }

    /// Copies the weights of the kept patches in the groups to the scratch, `(kept, stride)`.
    #[inline(always)]
    fn copy_factors(&mut self) {
        let stride = stride(self.pairs.config);
        let image = self.pairs.image;
        let PairScratch { kept, factors, .. } = &mut *self.pairs.scratch;
        for (&patch, to) in kept.iter().zip(factors.chunks_exact_mut(stride)) {
            to.copy_from_slice(&image.factors[patch as usize * stride..][..stride]);
        }
    }

    /// Computes all groups as vectors, and their weights to the scratch as in [`copy_factors`](Self::copy_factors): the
    /// weights that belong to the image may underflow for the kept patches.
    #[cold]
    fn rescale_groups(&mut self, words: &Range<usize>) {
        let config = *self.pairs.config;
        let stride = stride(&config);
        let image = self.pairs.image;
        self.pairs.scratch.factors.fill(0.0);
        for group in 0..config.groups {
            self.pairs.group_as_vector(group, words);
            let logit = |patch: u32| image.logits[patch as usize * stride + group];
            let PairScratch { kept, factors, .. } = &mut *self.pairs.scratch;
            let kept = &kept[..config.kept];
            let peak = kept.iter().map(|&patch| logit(patch)).fold(f32::NEG_INFINITY, f32::max);
            for (&patch, to) in kept.iter().zip(factors.chunks_exact_mut(stride)) {
                to[group] = (logit(patch) - peak).exp() * image.norms[patch as usize];
            }
        }
    }

    /// Weights of the tokens of the image in the vector that each word of a caption attends to, without the denominator of
    /// the softmax, and the product of the word with that vector. They are written from `row` of the block on.
    #[inline(always)]
    fn weigh_tokens<S: Simd>(&mut self, simd: S, words: usize, row: usize) {
        let config = *self.pairs.config;
        let stride = stride(&config);
        let AttentionBuffers { columns, merged, tokens, products, .. } = &mut *self.attention;
        let PairScratch { kept, fused, factors, squares, similarities, inverse_norms, best, .. } =
            &mut *self.pairs.scratch;
        if config.has_class_token {
            squares[config.groups] = 1.0;
        }
        for first in (0..stride).step_by(S::LANES) {
            let squares = simd.max(simd.load(&squares[first..]), simd.splat(f32::MIN_POSITIVE));
            simd.store(simd.inverse_root(squares), &mut inverse_norms[first..]);
        }
        let similarities = &mut similarities[..words * stride];
        for cosines in similarities.chunks_exact_mut(stride) {
            for first in (0..stride).step_by(S::LANES) {
                // 0 behind the tokens.
                let normalised = simd.mul(simd.load(&cosines[first..]), simd.load(&inverse_norms[first..]));
                simd.store(normalised, &mut cosines[first..]);
            }
        }
        let merged = &mut merged[..words * stride];
        let sums = &mut products[row..row + words];
        WordAttention { products: similarities, stride, norms: best, weights: &mut *merged, sums }.run(simd);

        let used = config.patches.next_multiple_of(S::LANES);
        let of_groups = config.groups.next_multiple_of(S::LANES);
        let rows = tokens[row * *columns..(row + words) * *columns].chunks_exact_mut(*columns);
        for (weights, output) in merged.chunks_exact_mut(stride).zip(rows) {
            for first in (0..stride).step_by(S::LANES) {
                let scaled = simd.mul(simd.load(&weights[first..]), simd.load(&inverse_norms[first..]));
                simd.store(scaled, &mut weights[first..]);
            }
            output.fill(0.0);
            let of_fused = simd.splat(weights[config.aligned_tokens() - 1]);
            for first in (0..used).step_by(S::LANES) {
                simd.store(simd.mul(of_fused, simd.load(&fused[first..])), &mut output[first..]);
            }
            for (&patch, factors) in kept[..config.kept].iter().zip(factors.chunks_exact(stride)) {
                let mut sum = simd.splat(0.0);
                for first in (0..of_groups).step_by(S::LANES) {
                    // The factors behind the groups are 0.
                    sum = simd.mul_add(simd.load(&factors[first..]), simd.load(&weights[first..]), sum);
                }
                output[patch as usize] = simd.sum(sum);
            }
            if config.has_class_token {
                output[config.patches] = weights[config.groups];
            }
        }
    }
}

/// Bits of the patches from `first` on; those of a vector come first.
#[inline(always)]
fn lanes_of(mask: &[u64], first: usize) -> u32 {
    (mask[first / 64] >> (first % 64)) as u32
}
