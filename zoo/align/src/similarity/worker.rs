//! One thread's work: prepared images by blocks of captions.

use std::ops::Range;

use super::{
    aligned::Aligned,
    captions::CaptionMatrix,
    config::AlignmentConfig,
    images::PreparedImages,
    pair::PairKernel,
    product::{Pack, Product},
    scratch::Scratch,
    simd::{Level, MOST_LANES},
    stages::{Clock, Stage},
};

/// Room for the products of a block of words with the tokens of an image, and for what comes after.
#[derive(Debug)]
pub(super) struct Worker {
    config: AlignmentConfig,
    level: Level,
    block_words: usize,
    words: Aligned,
    table: Aligned,
    table_stride: usize,
    pub(super) scratch: Scratch,
}

fn table_stride(config: &AlignmentConfig, level: Level) -> usize {
    let panel = 2 * level.lanes();
    (config.tokens().div_ceil(panel) + 1) * panel
}

impl Worker {
    /// For blocks of `block_words` words, each caption being at most as long.
    pub(super) fn new(config: &AlignmentConfig, level: Level, block_words: usize) -> Self {
        let table_stride = table_stride(config, level);
        Self {
            config: *config,
            level,
            block_words,
            words: Aligned::zeros(block_words * config.width),
            table: Aligned::zeros(block_words * table_stride + MOST_LANES),
            table_stride,
            scratch: Scratch::new(config, block_words),
        }
    }

    pub(super) fn bytes(config: &AlignmentConfig, level: Level, block_words: usize) -> usize {
        Aligned::bytes(block_words * config.width)
            + Aligned::bytes(block_words * table_stride(config, level) + MOST_LANES)
            + Scratch::bytes(config, block_words)
    }

    /// Similarities of all of `images` with `captions`, `(images, captions)`.
    pub(super) fn compute<C: Clock>(
        &mut self,
        images: &PreparedImages,
        captions: &CaptionMatrix,
        range: Range<usize>,
        output: &mut [f32],
        clock: &mut C,
    ) {
        let config = self.config;
        let mut start = range.start;
        while start < range.end {
            let end = captions.block_end(start, range.end, self.block_words);
            let words = captions.normalised(captions.span(start..end));
            self.level.run(Pack { rows: words, width: config.width, output: &mut self.words[..words.len()] });
            clock.lap(Stage::Packing);
            let mut columns = Columns { origin: 0, computed: 0 };
            for (place, to) in output.chunks_exact_mut(range.len()).enumerate() {
                self.multiply(&config, images, words.len() / config.width, place, &mut columns);
                clock.lap(Stage::Product);
                let first_token = place * config.tokens();
                self.level.run(PairKernel {
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
                });
            }
            start = end;
        }
    }

    /// Fills the table for an image. Images follow each other in the panels without gaps: a panel that ends in the next
    /// image is computed once and its columns are moved to the front of the table.
    fn multiply(
        &mut self,
        config: &AlignmentConfig,
        images: &PreparedImages,
        words: usize,
        place: usize,
        columns: &mut Columns,
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
        *columns = Columns { origin: first, computed: last };
    }
}

/// Which panels are in the table: those from `origin` to before `computed`.
struct Columns {
    origin: usize,
    computed: usize,
}
