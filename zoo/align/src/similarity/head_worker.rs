//! Computes the similarities of a head on one thread.

use std::ops::Range;

use laps_model::heads::{Ablation, ChanAggregation, HeadConfig, HeadSizes, LSE_TEMPERATURE};

use super::{
    CaptionMatrix, ImageSource, LEAKY_SLOPE, PackedRows, Tile,
    engine::invalid,
    head_kernel::{BestTokens, BestWords, TokenSimilarity, WordAttention, WordSimilarity},
    head_model::{HeadModel, ImageTables, PreparedGroup},
    product::PackRows,
    run::TileWorker,
    scratch::PairCounts,
    sgr::{GraphBlock, GraphBuffers},
};
use crate::Result;

/// Captions whose words are multiplied at once.
struct CaptionBlock {
    captions: Range<usize>,
    /// The words of each caption, counted from the first word of the block.
    words: Vec<Range<usize>>,
    /// Products of the words of each caption with each other, concatenated. Empty for heads without them.
    grams: Vec<f32>,
}

/// Work of one thread.
pub(super) struct HeadWorker<'a> {
    model: &'a HeadModel,
    images: &'a dyn ImageSource,
    captions: &'a CaptionMatrix,
    block_words: usize,
    prepared: Option<(Range<usize>, Vec<PreparedGroup>)>,
    /// Pooled vectors of the captions for `sgr`.
    pooled: &'a [f32],
    graph: GraphBuffers,
    /// The words of a block, packed.
    words: Vec<f32>,
    /// Their products with the tokens of a group, `(words, columns of the group)`.
    group_products: Vec<f32>,
    /// Those with the tokens of one image, `(words, columns of an image)`.
    products: Vec<f32>,
    packed: Vec<f32>,
    weights: Vec<f32>,
    attended: Vec<f32>,
    norms: Vec<f32>,
    sums: Vec<f32>,
    pairs: u64,
}

impl TileWorker for HeadWorker<'_> {
    fn compute(&mut self, tile: &Tile, output: &mut [f32]) -> Result<()> {
        let prepared = match self.prepared.take().filter(|(range, _)| *range == tile.images) {
            Some((_, prepared)) => prepared,
            None => self.model.prepare(self.images, tile.images.clone())?,
        };
        let columns = tile.captions.len();
        let captions = self.captions;
        let mut start = tile.captions.start;
        while start < tile.captions.end {
            let end = captions.block_end(start, tile.captions.end, self.block_words);
            let first = start - tile.captions.start;
            self.pack_words(start..end);
            if self.model.head.pools() {
                self.pooled(&prepared, start..end, &mut output[first..], columns);
            } else {
                let block = self.caption_block(start..end);
                let mut rows = output.chunks_exact_mut(columns);
                for group in &prepared {
                    self.multiply(&group.tokens, start..end);
                    for (place, (image, row)) in group.images.iter().zip(&mut rows).enumerate() {
                        self.unpack_products(place, group.tokens.columns(), start..end);
                        self.block(image, &block, &mut row[first..][..end - start])?;
                    }
                }
            }
            start = end;
        }
        self.pairs += output.len() as u64;
        self.prepared = Some((tile.images.clone(), prepared));
        Ok(())
    }

    fn counts(&self) -> PairCounts {
        PairCounts { pairs: self.pairs, ..PairCounts::default() }
    }
}

impl<'a> HeadWorker<'a> {
    pub(super) fn new(
        model: &'a HeadModel,
        images: &'a dyn ImageSource,
        captions: &'a CaptionMatrix,
        block_words: usize,
        pooled: &'a [f32],
    ) -> Self {
        Self {
            model,
            images,
            captions,
            block_words,
            prepared: None,
            pooled,
            graph: GraphBuffers::default(),
            words: Vec::new(),
            group_products: Vec::new(),
            products: Vec::new(),
            packed: Vec::new(),
            weights: Vec::new(),
            attended: Vec::new(),
            norms: Vec::new(),
            sums: Vec::new(),
            pairs: 0,
        }
    }

    /// Bytes of one thread.
    pub(super) fn bytes(model: &HeadModel, images: usize, captions: usize, words: usize) -> usize {
        let HeadSizes { tokens, width, .. } = model.sizes;
        let panel = 2 * model.level.lanes();
        let columns = model.image_columns();
        let (prepared, products) = match model.head.pools() {
            // The vectors of a tile are read before they are packed.
            true => (2 * images.next_multiple_of(panel) * width, images.next_multiple_of(panel)),
            false => {
                let group = model.group_images().min(images);
                let group_columns = (group * tokens).next_multiple_of(panel);
                // The tokens of a group are read before they are packed, and one image is packed alone for its table.
                let packed = (images.div_ceil(group) + 1) * group_columns * width + columns * width;
                (packed + images * columns * columns, group_columns + 4 * columns)
            }
        };
        // The definition of `sgr` holds the tokens of an image a few times.
        let graph = model.graph.as_ref().map_or(0, |weights| {
            images * weights.image_values(columns) + weights.buffer_values(words) + 8 * tokens * width
        });
        4 * (prepared + words * (width + products) + words * words + images * captions + graph)
    }

    fn caption_block(&self, captions: Range<usize>) -> CaptionBlock {
        let first = self.captions.span(captions.clone()).start;
        let words_of = |caption: usize| {
            let words = self.captions.span(caption..caption + 1);
            words.start - first..words.end - first
        };
        let grams = match self.model.head {
            HeadConfig::ScanI2t | HeadConfig::ScanAll => self.word_grams(captions.clone()),
            _ => Vec::new(),
        };
        CaptionBlock { words: captions.clone().map(words_of).collect(), captions, grams }
    }

    /// Products of the words of each caption with each other, concatenated.
    fn word_grams(&self, captions: Range<usize>) -> Vec<f32> {
        let mut grams = Vec::new();
        let width = self.captions.width();
        for caption in captions {
            let words = self.captions.normalised(self.captions.span(caption..caption + 1));
            for left in words.chunks_exact(width) {
                let dot = |right: &[f32]| -> f32 {
                    let terms = left.iter().zip(right).map(|(a, b)| f64::from(*a) * f64::from(*b));
                    terms.sum::<f64>() as f32
                };
                grams.extend(words.chunks_exact(width).map(dot));
            }
        }
        grams
    }

    /// One vector an image: the products are the similarities.
    fn pooled(&mut self, groups: &[PreparedGroup], block: Range<usize>, output: &mut [f32], columns: usize) {
        for group in groups {
            let stride = group.tokens.columns();
            self.multiply(&group.tokens, block.clone());
            for (caption, row) in self.group_products.chunks_exact(stride).take(block.len()).enumerate() {
                for (place, &product) in row[..group.tokens.rows()].iter().enumerate() {
                    output[place * columns + caption] = product;
                }
            }
        }
    }

    /// Packs the words of a block.
    fn pack_words(&mut self, block: Range<usize>) {
        let words = self.captions.normalised(self.captions.span(block));
        self.words.resize(words.len().max(self.words.len()), 0.0);
        let (width, output) = (self.captions.width(), &mut self.words[..words.len()]);
        self.model.level.run(PackRows { rows: words, width, output });
    }

    /// Products of the packed words of a block with the tokens of a group.
    fn multiply(&mut self, tokens: &PackedRows, block: Range<usize>) {
        let rows = self.captions.span(block).len();
        let values = rows * tokens.columns();
        self.group_products.resize(values.max(self.group_products.len()), 0.0);
        tokens.multiply_packed(&self.words[..rows * self.captions.width()], &mut self.group_products[..values]);
    }

    /// Copies the products with the tokens of the image at `place` of a group, whose rows are `stride` apart. Products behind
    /// the tokens are 0.
    fn unpack_products(&mut self, place: usize, stride: usize, block: Range<usize>) {
        let (tokens, columns) = (self.model.sizes.tokens, self.model.image_columns());
        let rows = self.captions.span(block).len();
        self.products.resize((rows * columns).max(self.products.len()), 0.0);
        let from = self.group_products.chunks_exact(stride).map(|row| &row[place * tokens..][..tokens]);
        for (row, from) in self.products.chunks_exact_mut(columns).take(rows).zip(from) {
            row[..tokens].copy_from_slice(from);
        }
    }

    /// Similarities of an image with the captions of a block, from [`products`](Self::products).
    fn block(&mut self, image: &ImageTables, block: &CaptionBlock, output: &mut [f32]) -> Result<()> {
        let model = self.model;
        let columns = model.image_columns();
        let words = self.captions.span(block.captions.clone());
        let values = words.len() * columns;
        for buffer in [&mut self.weights, &mut self.attended] {
            buffer.resize(values.max(buffer.len()), 0.0);
        }
        self.norms.resize(columns, 0.0);
        self.sums.resize(words.len().max(self.sums.len()), 0.0);
        if image.gram.is_some() || image.graph.is_some() {
            for words in &block.words {
                self.attend(words.clone());
            }
        }
        if let (Some(weights), Some(graph)) = (&model.graph, &image.graph) {
            let width = self.captions.width();
            let captions = GraphBlock {
                spans: &block.words,
                words: self.captions.normalised(words),
                pooled: &self.pooled[block.captions.start * width..block.captions.end * width],
                attention: &self.weights[..values],
            };
            captions.similarities(weights, graph, &mut self.graph, output);
            return Ok(());
        }
        if let Some(gram) = &image.gram {
            self.packed.resize(values.max(self.packed.len()), 0.0);
            // Rows of the products of tokens have as many values as there are columns.
            gram.multiply_block(&self.weights[..values], &mut self.packed[..values], &mut self.attended[..values]);
        }
        let mut gram_start = 0;
        for (words, output) in block.words.iter().cloned().zip(output) {
            let gram_end = gram_start + words.len().pow(2);
            let gram = block.grams.get(gram_start..gram_end).unwrap_or_default();
            gram_start = gram_end;
            *output = match model.head {
                HeadConfig::ScanT2i => self.attended_by_words(words),
                HeadConfig::ScanI2t => self.attended_by_tokens(words, gram),
                HeadConfig::ScanAll => {
                    0.5 * (self.attended_by_words(words.clone()) + self.attended_by_tokens(words, gram))
                }
                HeadConfig::Chan { aggregation: ChanAggregation::Mean } => mean(self.best_tokens(words)),
                HeadConfig::Chan { aggregation: ChanAggregation::Lse } => {
                    let terms = self.best_tokens(words).iter().map(|&value| (f64::from(value) / LSE_TEMPERATURE).exp());
                    terms.sum::<f64>().ln() as f32
                }
                HeadConfig::MaxMean => 0.5 * self.best_of_both(words),
                HeadConfig::LapsAblation { ablation: Ablation::WithoutPatchSelection } => self.best_of_both(words),
                head => return Err(invalid("a head that compares tokens with words".to_owned(), head.to_string())),
            };
        }
        Ok(())
    }

    /// The values of the rows of `words` in a buffer of the products' shape.
    fn values(&self, words: &Range<usize>) -> Range<usize> {
        let columns = self.model.image_columns();
        words.start * columns..words.end * columns
    }

    /// Weights of the words of a caption to the tokens of an image.
    fn attend(&mut self, words: Range<usize>) {
        let values = self.values(&words);
        self.model.level.run(WordAttention {
            products: &self.products[values.clone()],
            stride: self.model.image_columns(),
            norms: &mut self.norms,
            weights: &mut self.weights[values],
            sums: &mut self.sums[words],
        });
    }

    /// SCAN's similarity from texts to images: each word attends to the tokens.
    fn attended_by_words(&self, words: Range<usize>) -> f32 {
        let values = self.values(&words);
        self.model.level.run(WordSimilarity {
            weights: &self.weights[values.clone()],
            attended: &self.attended[values],
            stride: self.model.image_columns(),
            sums: &self.sums[words],
        })
    }

    /// SCAN's similarity from images to texts: each token attends to the words. It overwrites the weights of the words.
    fn attended_by_tokens(&mut self, words: Range<usize>, gram: &[f32]) -> f32 {
        let values = self.values(&words);
        self.model.level.run(TokenSimilarity {
            products: &self.products[values.clone()],
            stride: self.model.image_columns(),
            tokens: self.model.sizes.tokens,
            gram,
            weights: &mut self.weights[values],
        })
    }

    /// The largest product of each word.
    fn best_tokens(&mut self, words: Range<usize>) -> &[f32] {
        let products = &self.products[self.values(&words)];
        let [stride, tokens] = [self.model.image_columns(), self.model.sizes.tokens];
        let best = &mut self.sums[words];
        self.model.level.run(BestTokens { products, stride, tokens, best: &mut *best });
        best
    }

    /// The mean of the largest products of the words plus that of the tokens, each through a leaky ReLU.
    fn best_of_both(&mut self, words: Range<usize>) -> f32 {
        let values = self.values(&words);
        let best = self.best_tokens(words);
        let leaky_relu = |&value: &f32| value.max(LEAKY_SLOPE * value);
        let of_words = best.iter().map(leaky_relu).sum::<f32>() / best.len() as f32;
        let [stride, tokens] = [self.model.image_columns(), self.model.sizes.tokens];
        of_words + self.model.level.run(BestWords { products: &self.products[values], stride, tokens })
    }
}

fn mean(values: &[f32]) -> f32 {
    values.iter().sum::<f32>() / values.len() as f32
}
