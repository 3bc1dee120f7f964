//! The work of one thread: prepared images by blocks of captions.

use std::ops::Range;

use laps_model::heads::Ablation;

use super::{
    ablated::{AttentionBuffers, compare_ablated},
    aligned::AlignedVec,
    captions::CaptionMatrix,
    config::AlignmentConfig,
    images::PreparedImages,
    pair::PairKernel,
    product::{PackRows, Product},
    scratch::PairScratch,
    simd::{MAX_LANES, SimdLevel},
    stages::{Clock, PairStage},
};

/// Buffers for the products of a block of words with the tokens of an image, and for the work on pairs.
#[derive(Debug)]
pub(super) struct Worker {
    config: AlignmentConfig,
    ablation: Option<Ablation>,
    level: SimdLevel,
    block_words: usize,
    words: AlignedVec,
    table: AlignedVec,
    table_stride: usize,
    pub(super) scratch: PairScratch,
    attention: AttentionBuffers,
}

fn table_stride(config: &AlignmentConfig, level: SimdLevel) -> usize {
    let panel = 2 * level.lanes();
    (config.tokens().div_ceil(panel) + 1) * panel
}

impl Worker {
    /// Buffers for blocks of `block_words` words. No caption may have more words.
    pub(super) fn new(
        config: &AlignmentConfig,
        ablation: Option<Ablation>,
        level: SimdLevel,
        block_words: usize,
    ) -> Self {
        let table_stride = table_stride(config, level);
        Self {
            config: *config,
            ablation,
            level,
            block_words,
            words: AlignedVec::zeros(block_words * config.width),
            table: AlignedVec::zeros(block_words * table_stride + MAX_LANES),
            table_stride,
            scratch: PairScratch::new(config, block_words),
            attention: AttentionBuffers::new(config, ablation, level, block_words),
        }
    }

    pub(super) fn bytes(
        config: &AlignmentConfig,
        ablation: Option<Ablation>,
        level: SimdLevel,
        block_words: usize,
    ) -> usize {
        AlignedVec::bytes(block_words * config.width)
            + AlignedVec::bytes(block_words * table_stride(config, level) + MAX_LANES)
            + PairScratch::bytes(config, block_words)
            + AttentionBuffers::bytes(config, ablation, level, block_words)
    }

    /// Similarities of all `images` with the captions `range`, `(images, captions)`.
    pub(super) fn compute<C: Clock>(
        &mut self,
        images: &PreparedImages,
        captions: &CaptionMatrix,
        range: Range<usize>,
        output: &mut [f32],
        clock: &mut C,
    ) {
        let level = self.level;
        let Some(ablation) = self.ablation else {
            return self.for_each_block(images, captions, range, output, clock, |pairs, _| level.run(pairs));
        };
        let mut attention = std::mem::take(&mut self.attention);
        // The stages of an ablation are not timed.
        self.for_each_block(images, captions, range, output, &mut (), |pairs, place| {
            compare_ablated(ablation, level, pairs, images.grams.get(place), &mut attention);
        });
        self.attention = attention;
    }

    /// Computes the products of each block of words with each image, and passes them on with the place of the image.
    fn for_each_block<C: Clock>(
        &mut self,
        images: &PreparedImages,
        captions: &CaptionMatrix,
        range: Range<usize>,
        output: &mut [f32],
        clock: &mut C,
        mut compare: impl FnMut(PairKernel<'_, C>, usize),
    ) {
        let config = self.config;
        let mut start = range.start;
        while start < range.end {
            let end = captions.block_end(start, range.end, self.block_words);
            let words = captions.normalised(captions.span(start..end));
            self.level.run(PackRows { rows: words, width: config.width, output: &mut self.words[..words.len()] });
            clock.lap(PairStage::Packing);
            let mut columns = TableColumns { origin: 0, computed: 0 };
            for (place, to) in output.chunks_exact_mut(range.len()).enumerate() {
                self.multiply(&config, images, words.len() / config.width, place, &mut columns);
                clock.lap(PairStage::Product);
                let first_token = place * config.tokens();
                let pairs = PairKernel {
                    config: &config,
                    image: &images.images[place],
                    tokens: &images.tokens,
                    first_token,
                    table: &self.table[first_token - columns.origin * images.tokens.panel()..],
                    table_stride: self.table_stride,
                    captions,
                    block: start..end,
                    scratch: &mut self.scratch,
                    output: &mut to[start - range.start..end - range.start],
                    clock: &mut *clock,
                };
                compare(pairs, place);
            }
            start = end;
        }
    }

    /// Computes the products of an image into the table. Images follow each other in the panels without gaps, so a panel at
    /// the end of an image is computed once, and its columns are moved to the front of the table for the next image.
    fn multiply(
        &mut self,
        config: &AlignmentConfig,
        images: &PreparedImages,
        words: usize,
        place: usize,
        columns: &mut TableColumns,
    ) {
        let [panel, tokens] = [images.tokens.panel(), config.tokens()];
        let first = place * tokens / panel;
        let last = ((place + 1) * tokens).div_ceil(panel);
        let from = (first - columns.origin) * panel;
        let shared = columns.computed.saturating_sub(first);
        if from > 0 && shared > 0 {
            for row in self.table.chunks_exact_mut(self.table_stride).take(words) {
                row.copy_within(from..from + shared * panel, 0);
            }
        }
        let next = columns.computed.max(first);
        self.level.run(Product {
            left: &self.words[..words * config.width],
            right: &images.tokens,
            panels: next..last,
            output: &mut self.table[(next - first) * panel..],
            stride: self.table_stride,
        });
        *columns = TableColumns { origin: first, computed: last };
    }
}

/// Panels in the table: from `origin` to before `computed`.
struct TableColumns {
    origin: usize,
    computed: usize,
}
