//! The similarity engine of the heads besides LAPS's.
//!
//! Heads that pool compare one vector an image with one vector a caption: one matrix product. Heads without parameters that
//! compare tokens with words are vectorised, see `head_kernel.rs`, and so is `sgr`, see `sgr.rs`. The ablations of LAPS that
//! select patches have the engine of LAPS, see `ablated.rs`; the one that does not compares all tokens as `max_mean` does.

use std::{collections::HashMap, ops::Range, panic::resume_unwind, rc::Rc, sync::Arc, thread};

use laps_model::{
    array::Array,
    heads::{Ablation, ChanAggregation, Head, HeadConfig, HeadSizes, ItemFeatures, LSE_TEMPERATURE},
    models::{alignment::PairSimilarity, config::ModelConfig},
    params::{self, ParamPath, Parameter},
};

use super::{
    AggregationWeights, AlignmentConfig, CaptionMatrix, Engine, EngineOptions, ImageSource, Plan, RunOutcome,
    SimdLevel, SimilarityEngine, StageTimes, Tile, TileSink,
    captions::norm,
    engine::invalid,
    head_kernel::{BestTokens, BestWords, TokenSimilarity, WordAttention, WordSimilarity},
    packed::PackedRows,
    plan::{TILE_TOKENS, TileLimits},
    product::PackRows,
    run::{TileWorker, run_tiles},
    scratch::PairCounts,
    sgr::{GraphBlock, GraphBuffers, PairWeights, PreparedGraph},
};
use crate::Result;

/// Images of a tile whose vectors are compared in one product.
const POOLED_IMAGES: usize = 1024;
/// Largest number of images in a group of a head that does not pool.
const MAX_GROUP: usize = 16;
/// A group has at least this many columns for each column of padding, unless that takes more than [`MAX_GROUP`] images.
const MIN_COLUMNS_PER_PADDING: usize = 32;

/// Computes the exact similarities of a head on a CPU. A similarity has the same bits in any tile and with any number of
/// threads.
pub struct HeadEngine {
    head: HeadConfig,
    sizes: HeadSizes,
    /// The engine of an ablation of LAPS that selects patches; it computes everything.
    ablated: Option<Engine>,
    /// Parameters of what the definition computes.
    parameters: Arc<HashMap<String, Array>>,
    /// Those of its pairs, packed.
    graph: Option<PairWeights>,
    level: SimdLevel,
    threads: usize,
    memory_limit: usize,
}

impl HeadEngine {
    /// The engine of the head of `model`, which is not `laps`. `read` returns the parameters. The embeddings of a head that
    /// pools are its vectors: one token an image, one word a caption.
    ///
    /// # Errors
    /// The head `laps`, and errors of `read`.
    pub fn new(
        model: &ModelConfig,
        read: impl Fn(&Parameter) -> laps_model::Result<Array>,
        options: EngineOptions,
    ) -> Result<Self> {
        if let HeadConfig::LapsAblation { ablation } = model.head {
            return Self::of_ablation(ablation, AlignmentConfig::of(model), read, options, SimdLevel::detect());
        }
        let sizes = HeadSizes::of(model).encoded(&model.head);
        Self::with_sizes(model.head, sizes, read, options, SimdLevel::detect())
    }

    /// The engine of an ablation of LAPS, with the sizes of the alignment that it changes, and with a given instruction set.
    ///
    /// # Errors
    /// Sizes that no alignment has, parameters that are not finite, and errors of `read`.
    pub fn of_ablation(
        ablation: Ablation,
        alignment: AlignmentConfig,
        read: impl Fn(&Parameter) -> laps_model::Result<Array>,
        options: EngineOptions,
        level: SimdLevel,
    ) -> Result<Self> {
        alignment.check()?;
        let AlignmentConfig { patches, has_class_token, kept, groups, width } = alignment;
        let selection = PairSimilarity { patches, kept, has_class_token };
        let wanted = params::list(|path| Head::ablation(ablation, selection, groups, width, path))?;
        let parameters = read_parameters(wanted, read)?;
        let ablated = match ablation {
            Ablation::WithoutPatchSelection => None,
            _ => {
                let weight =
                    |name: &str| -> Result<Array> { Ok(parameters.get(name).cloned().ok_or_else(|| missing(name))?) };
                let weights = (!parameters.is_empty()).then(|| AggregationWeights::load(weight)).transpose()?;
                Some(Engine::ablated(ablation, alignment, weights.as_ref(), options, level)?)
            }
        };
        let sizes = HeadSizes { tokens: alignment.tokens(), has_class_token, width, word_width: width };
        let head = HeadConfig::LapsAblation { ablation };
        let engine = Self::with_parameters(head, sizes, HashMap::new(), options, level)?;
        Ok(Self { ablated, ..engine })
    }

    /// As [`new`](Self::new), for embeddings of `sizes`, and with a given instruction set.
    ///
    /// # Errors
    /// As [`new`](Self::new), and the ablations of LAPS, whose sizes [`of_ablation`](Self::of_ablation) takes.
    pub fn with_sizes(
        head: HeadConfig,
        sizes: HeadSizes,
        read: impl Fn(&Parameter) -> laps_model::Result<Array>,
        options: EngineOptions,
        level: SimdLevel,
    ) -> Result<Self> {
        if head.has_ratios() {
            return Err(invalid("a head without ratios".to_owned(), head.to_string()));
        }
        let wanted = match head.pools() {
            true => Vec::new(),
            false => laps_model::heads::parameters(&head, &sizes)?,
        };
        Self::with_parameters(head, sizes, read_parameters(wanted, read)?, options, level)
    }

    fn with_parameters(
        head: HeadConfig,
        sizes: HeadSizes,
        parameters: HashMap<String, Array>,
        options: EngineOptions,
        level: SimdLevel,
    ) -> Result<Self> {
        let graph = match head {
            HeadConfig::Sgr { steps, .. } => {
                let read = |name: &str| parameters.get(name).cloned().ok_or_else(|| missing(name).into());
                Some(PairWeights::new(sizes.width, steps, level, read)?)
            }
            _ => None,
        };
        let threads = match options.threads {
            0 => thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        Ok(Self {
            head,
            sizes,
            ablated: None,
            parameters: Arc::new(parameters),
            graph,
            level,
            threads,
            memory_limit: options.memory_limit,
        })
    }

    fn check(&self, images: &dyn ImageSource, captions: &CaptionMatrix) -> Result<()> {
        let expected = [self.sizes.tokens, self.sizes.width];
        if !images.is_empty() && images.shape() != expected {
            return Err(invalid(format!("images of shape {expected:?}"), format!("{:?}", images.shape())));
        }
        if captions.width() != self.sizes.word_width {
            return Err(invalid(format!("captions of width {}", self.sizes.word_width), captions.width().to_string()));
        }
        if self.head.pools() && captions.longest() > 1 {
            return Err(invalid("one vector a caption".to_owned(), format!("{} words", captions.longest())));
        }
        Ok(())
    }

    /// The definition, for what belongs to an image or a caption alone in `sgr`.
    fn definition(&self) -> Result<Option<Head<Array>>> {
        if self.graph.is_none() {
            return Ok(None);
        }
        let parameters = Arc::clone(&self.parameters);
        let read = move |parameter: Parameter| {
            parameters.get(&parameter.name).cloned().ok_or_else(|| missing(&parameter.name))
        };
        Ok(Some(Head::new(&self.head, &self.sizes, &ParamPath::root(Rc::new(read)))?))
    }

    /// The pooled vectors of captions for `sgr`, `(captions, width)`; empty for other heads.
    fn pooled_captions(&self, captions: &CaptionMatrix) -> Result<Vec<f32>> {
        if self.graph.is_none() {
            return Ok(Vec::new());
        }
        let width = captions.width();
        let mut pooled = vec![0.0; captions.len() * width];
        let share = captions.len().div_ceil(self.threads).max(1);
        thread::scope(|scope| {
            let threads: Vec<_> = pooled
                .chunks_mut(share * width)
                .enumerate()
                .map(|(index, output)| scope.spawn(move || self.pool_captions(captions, index * share, output)))
                .collect();
            let results = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
            results.collect::<Result<()>>()
        })?;
        Ok(pooled)
    }

    /// Pooled vectors of the captions from `first` on, as many as fit into `output`.
    fn pool_captions(&self, captions: &CaptionMatrix, first: usize, output: &mut [f32]) -> Result<()> {
        let Some(definition) = self.definition()? else { return Ok(()) };
        let width = captions.width();
        for (caption, output) in (first..).zip(output.chunks_exact_mut(width)) {
            let words = captions.normalised(captions.span(caption..caption + 1));
            let count = words.len() / width;
            let (words, mask) =
                (Array::new(&[1, count, width], words.to_vec())?, Array::new(&[1, count], vec![1.0; count])?);
            output.copy_from_slice(pooled_vector(&definition.caption_features(&words, &mask, None)?)?);
        }
        Ok(())
    }

    fn prepare(&self, source: &dyn ImageSource, images: Range<usize>) -> Result<Vec<PreparedGroup>> {
        let HeadSizes { tokens, width, .. } = self.sizes;
        let values_per_image = tokens * width;
        let mut values = vec![0.0; values_per_image];
        let definition = self.definition()?;
        let mut read = |image: usize| -> Result<Vec<f32>> {
            source.read(image, &mut values)?;
            let mut normalised = Vec::with_capacity(values.len());
            for token in values.chunks_exact(width) {
                let norm = norm(token);
                if !norm.is_finite() {
                    let found = format!("norm {norm} of a token of image {image}");
                    return Err(invalid("finite embeddings".to_owned(), found));
                }
                let factor = 1.0 / norm;
                normalised.extend(token.iter().map(|&value| (f64::from(value) * factor) as f32));
            }
            Ok(normalised)
        };
        let pack = |rows: &[f32]| PackedRows::new(rows, width, self.level);
        if self.head.pools() {
            let rows = images.map(read).collect::<Result<Vec<_>>>()?.concat();
            return Ok(vec![PreparedGroup { tokens: pack(&rows)?, images: Vec::new() }]);
        }
        let needs_gram = matches!(self.head, HeadConfig::ScanT2i | HeadConfig::ScanAll);
        let columns = self.image_columns();
        let tables = |rows: &[f32]| -> Result<ImageTables> {
            // Rows and columns behind the tokens are 0.
            let gram = needs_gram.then(|| PackedRows::new(&pack(rows)?.product(rows), columns, self.level));
            let graph = match (&self.graph, &definition) {
                (Some(weights), Some(definition)) => {
                    let array = Array::new(&[1, self.sizes.tokens, width], rows.to_vec())?;
                    let features = definition.image_features(&array)?;
                    Some(PreparedGraph::new(weights, rows, columns, pooled_vector(&features)?)?)
                }
                _ => None,
            };
            Ok(ImageTables { gram: gram.transpose()?, graph })
        };
        let images: Vec<usize> = images.collect();
        let prepare = |group: &[usize]| {
            let mut rows = Vec::with_capacity(group.len() * values_per_image);
            for &image in group {
                rows.extend(read(image)?);
            }
            let images = rows.chunks_exact(values_per_image).map(tables).collect::<Result<_>>()?;
            Ok(PreparedGroup { tokens: pack(&rows)?, images })
        };
        images.chunks(self.group_images()).map(prepare).collect()
    }

    /// Columns of the products with the tokens of one image: whole panels.
    fn image_columns(&self) -> usize {
        self.sizes.tokens.next_multiple_of(2 * self.level.lanes())
    }

    /// Number of images in a [`PreparedGroup`] of a head that does not pool.
    fn group_images(&self) -> usize {
        let columns = |images: usize| (images * self.sizes.tokens).next_multiple_of(2 * self.level.lanes());
        let fills = |&images: &usize| {
            let padding = columns(images) - images * self.sizes.tokens;
            MIN_COLUMNS_PER_PADDING * padding <= columns(images)
        };
        (1..MAX_GROUP).find(fills).unwrap_or(MAX_GROUP)
    }

    /// Bytes of one thread.
    fn bytes(&self, images: usize, captions: usize, words: usize) -> usize {
        let HeadSizes { tokens, width, .. } = self.sizes;
        let panel = 2 * self.level.lanes();
        let columns = self.image_columns();
        let (prepared, products) = match self.head.pools() {
            // The vectors of a tile are read before they are packed.
            true => (2 * images.next_multiple_of(panel) * width, images.next_multiple_of(panel)),
            false => {
                let group = self.group_images().min(images);
                let group_columns = (group * tokens).next_multiple_of(panel);
                // The tokens of a group are read before they are packed, and one image is packed alone for its table.
                let packed = (images.div_ceil(group) + 1) * group_columns * width + columns * width;
                (packed + images * columns * columns, group_columns + 4 * columns)
            }
        };
        // The definition of `sgr` holds the tokens of an image a few times.
        let graph = self.graph.as_ref().map_or(0, |weights| {
            images * weights.image_values(columns) + weights.buffer_values(words) + 8 * tokens * width
        });
        4 * (prepared + words * (width + products) + words * words + images * captions + graph)
    }
}

/// The parameters `wanted` by name.
fn read_parameters(
    wanted: Vec<Parameter>,
    read: impl Fn(&Parameter) -> laps_model::Result<Array>,
) -> Result<HashMap<String, Array>> {
    wanted.into_iter().map(|parameter| Ok((parameter.name.clone(), read(&parameter)?))).collect()
}

fn missing(name: &str) -> laps_model::Error {
    laps_model::Error::Parameter {
        name: name.to_owned(),
        expected: "a parameter of the head".to_owned(),
        found: "none".to_owned(),
    }
}

/// The pooled vector of one item.
fn pooled_vector(features: &ItemFeatures<Array>) -> Result<&[f32]> {
    let pooled = features.pooled.as_ref().map(Array::values);
    pooled.ok_or_else(|| invalid("a pooled vector".to_owned(), "none".to_owned()))
}

/// Images whose tokens are multiplied with words at once, so that little of the last panel is padding.
struct PreparedGroup {
    /// Normalised tokens of all images. For a head that pools, the vectors of all images of a tile.
    tokens: PackedRows,
    /// One an image; empty for a head that pools.
    images: Vec<ImageTables>,
}

/// What belongs to one image besides its tokens.
struct ImageTables {
    /// Products of the tokens with each other, `(tokens, columns)`.
    gram: Option<PackedRows>,
    /// Prepared by the engine of `sgr`.
    graph: Option<PreparedGraph>,
}

/// Work of one thread.
struct HeadWorker<'a> {
    engine: &'a HeadEngine,
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
            None => self.engine.prepare(self.images, tile.images.clone())?,
        };
        let columns = tile.captions.len();
        let captions = self.captions;
        let mut start = tile.captions.start;
        while start < tile.captions.end {
            let end = captions.block_end(start, tile.captions.end, self.block_words);
            let first = start - tile.captions.start;
            self.pack_words(start..end);
            if self.engine.head.pools() {
                self.pooled(&prepared, start..end, &mut output[first..], columns);
            } else {
                let grams = self.word_grams(start..end);
                let mut rows = output.chunks_exact_mut(columns);
                for group in &prepared {
                    self.multiply(&group.tokens, start..end);
                    for (place, (image, row)) in group.images.iter().zip(&mut rows).enumerate() {
                        let stride = group.tokens.columns();
                        self.unpack_products(place, stride, start..end);
                        self.block(image, start..end, &grams, &mut row[first..][..end - start])?;
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

impl HeadWorker<'_> {
    /// Products of the words of each caption of a block with each other, concatenated. Empty for heads without them.
    fn word_grams(&self, block: Range<usize>) -> Vec<f32> {
        let mut grams = Vec::new();
        if !matches!(self.engine.head, HeadConfig::ScanI2t | HeadConfig::ScanAll) {
            return grams;
        }
        let width = self.captions.width();
        for caption in block {
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
        self.engine.level.run(PackRows { rows: words, width, output });
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
        let (tokens, columns) = (self.engine.sizes.tokens, self.engine.image_columns());
        let rows = self.captions.span(block).len();
        self.products.resize((rows * columns).max(self.products.len()), 0.0);
        let from = self.group_products.chunks_exact(stride).map(|row| &row[place * tokens..][..tokens]);
        for (row, from) in self.products.chunks_exact_mut(columns).take(rows).zip(from) {
            row[..tokens].copy_from_slice(from);
        }
    }

    /// Similarities of an image with the captions of a block, from [`products`](Self::products).
    fn block(&mut self, image: &ImageTables, block: Range<usize>, grams: &[f32], output: &mut [f32]) -> Result<()> {
        let HeadEngine { head, level, .. } = *self.engine;
        let [tokens, stride] = [self.engine.sizes.tokens, self.engine.image_columns()];
        let span = self.captions.span(block.clone());
        let rows = span.len();
        for buffer in [&mut self.weights, &mut self.attended] {
            buffer.resize((rows * stride).max(buffer.len()), 0.0);
        }
        self.norms.resize(stride, 0.0);
        self.sums.resize(rows.max(self.sums.len()), 0.0);
        let captions = self.captions;
        let words_of = |caption: usize| {
            let words = captions.span(caption..caption + 1);
            words.start - span.start..words.end - span.start
        };
        let values = |words: &Range<usize>| words.start * stride..words.end * stride;
        if image.gram.is_some() || image.graph.is_some() {
            for caption in block.clone() {
                let words = words_of(caption);
                level.run(WordAttention {
                    products: &self.products[values(&words)],
                    stride,
                    norms: &mut self.norms,
                    weights: &mut self.weights[values(&words)],
                    sums: &mut self.sums[words],
                });
            }
        }
        if let (Some(weights), Some(graph)) = (&self.engine.graph, &image.graph) {
            let width = captions.width();
            let spans: Vec<_> = block.clone().map(words_of).collect();
            let captions = GraphBlock {
                spans: &spans,
                words: captions.normalised(span.clone()),
                pooled: &self.pooled[block.start * width..block.end * width],
                attention: &self.weights[..rows * stride],
            };
            captions.similarities(weights, graph, &mut self.graph, output);
            return Ok(());
        }
        if let Some(gram) = &image.gram {
            self.packed.resize((rows * stride).max(self.packed.len()), 0.0);
            let size = rows * stride;
            // Rows of the products of tokens have as many values as there are columns.
            gram.multiply_block(&self.weights[..size], &mut self.packed[..size], &mut self.attended[..size]);
        }
        let mut gram_start = 0;
        for (caption, output) in block.zip(output) {
            let words = words_of(caption);
            let products = &self.products[values(&words)];
            let mut of_words = || {
                level.run(WordSimilarity {
                    weights: &self.weights[values(&words)],
                    attended: &self.attended[values(&words)],
                    stride,
                    sums: &self.sums[words.clone()],
                })
            };
            let gram = grams.get(gram_start..gram_start + words.len().pow(2)).unwrap_or_default();
            gram_start += words.len().pow(2);
            *output = match head {
                HeadConfig::ScanT2i => of_words(),
                HeadConfig::ScanI2t | HeadConfig::ScanAll => {
                    let text_to_image = (head == HeadConfig::ScanAll).then(&mut of_words);
                    let weights = &mut self.weights[values(&words)];
                    let image_to_text = level.run(TokenSimilarity { products, stride, tokens, gram, weights });
                    text_to_image.map_or(image_to_text, |other| 0.5 * (other + image_to_text))
                }
                HeadConfig::MaxMean
                | HeadConfig::Chan { .. }
                | HeadConfig::LapsAblation { ablation: Ablation::WithoutPatchSelection } => {
                    let best = &mut self.sums[words.clone()];
                    level.run(BestTokens { products, stride, tokens, best: &mut *best });
                    let count = best.len() as f32;
                    match head {
                        HeadConfig::Chan { aggregation: ChanAggregation::Mean } => best.iter().sum::<f32>() / count,
                        HeadConfig::Chan { aggregation: ChanAggregation::Lse } => {
                            let terms = best.iter().map(|&value| (f64::from(value) / LSE_TEMPERATURE).exp());
                            terms.sum::<f64>().ln() as f32
                        }
                        _ => {
                            let leaky_relu = |&value: &f32| value.max(super::LEAKY_SLOPE * value);
                            let of_words = best.iter().map(leaky_relu).sum::<f32>() / count;
                            let sum = of_words + level.run(BestWords { products, stride, tokens });
                            if head == HeadConfig::MaxMean { 0.5 * sum } else { sum }
                        }
                    }
                }
                _ => return Err(invalid("a head that compares tokens with words".to_owned(), head.to_string())),
            };
        }
        Ok(())
    }
}

impl SimilarityEngine for HeadEngine {
    fn description(&self) -> String {
        self.level.name().to_owned()
    }

    fn plan(&self, images: usize, captions: &CaptionMatrix) -> Result<Plan> {
        if let Some(engine) = &self.ablated {
            return engine.plan(images, captions);
        }
        let max_images = if self.head.pools() { POOLED_IMAGES } else { TILE_TOKENS / self.sizes.tokens };
        // The pooled vectors of all captions.
        let shared = if self.graph.is_some() { 4 * captions.len() * captions.width() } else { 0 };
        let limits = TileLimits { max_images, threads: self.threads, shared, memory_limit: self.memory_limit };
        limits.plan(images, captions, |images, captions, words| self.bytes(images, captions, words))
    }

    fn run(
        &self,
        images: &dyn ImageSource,
        captions: &CaptionMatrix,
        plan: &Plan,
        sink: &mut dyn TileSink,
    ) -> Result<RunOutcome> {
        if let Some(engine) = &self.ablated {
            return engine.run(images, captions, plan, sink);
        }
        self.check(images, captions)?;
        plan.check(images, captions)?;
        let pooled = self.pooled_captions(captions)?;
        run_tiles(plan, sink, || HeadWorker {
            engine: self,
            images,
            captions,
            block_words: plan.block_words,
            prepared: None,
            pooled: &pooled,
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
        })
    }

    fn prepare_only(&self, images: &dyn ImageSource, count: usize) -> Result<()> {
        let first = 0..count.min(images.len());
        match &self.ablated {
            Some(engine) => engine.prepare(images, first).map(drop),
            None => self.prepare(images, first).map(drop),
        }
    }

    fn stage_times(
        &self,
        _images: &dyn ImageSource,
        _captions: &CaptionMatrix,
        _image_count: usize,
        _caption_count: usize,
    ) -> Result<Option<StageTimes>> {
        Ok(None)
    }
}
