//! The similarity engine of the heads besides LAPS's.
//!
//! Heads that pool compare one vector an image with one vector a caption: one matrix product. Heads without parameters that
//! compare tokens with words are vectorised, see `head_kernel.rs`, and so is `sgr`, see `sgr.rs`. The ablations of LAPS that
//! select patches have the engine of LAPS, see `ablated.rs`; the one that does not compares all tokens as `max_mean` does.

use std::{collections::HashMap, thread};

use laps_model::{
    array::Array,
    heads::{Ablation, Head, HeadConfig, HeadSizes},
    models::{alignment::PairSimilarity, config::ModelConfig},
    params::{self, Parameter},
};

use super::{
    AggregationWeights, AlignmentConfig, CaptionMatrix, Engine, EngineOptions, ImageSource, Plan, RunOutcome,
    SimdLevel, SimilarityEngine, StageTimes, TileSink,
    engine::invalid,
    head_model::{HeadModel, missing},
    head_worker::HeadWorker,
    plan::{TILE_TOKENS, TileLimits},
    run::run_tiles,
};
use crate::Result;

/// Images of a tile whose vectors are compared in one product.
const POOLED_IMAGES: usize = 1024;

/// Computes the exact similarities of a head on a CPU. A similarity has the same bits in any tile and with any number of
/// threads.
pub struct HeadEngine {
    model: HeadModel,
    /// The engine of an ablation of LAPS that selects patches; it computes everything.
    ablated: Option<Engine>,
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
        let threads = match options.threads {
            0 => thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let model = HeadModel::new(head, sizes, parameters, level)?;
        Ok(Self { model, ablated: None, threads, memory_limit: options.memory_limit })
    }
}

/// The parameters `wanted` by name.
fn read_parameters(
    wanted: Vec<Parameter>,
    read: impl Fn(&Parameter) -> laps_model::Result<Array>,
) -> Result<HashMap<String, Array>> {
    wanted.into_iter().map(|parameter| Ok((parameter.name.clone(), read(&parameter)?))).collect()
}

impl SimilarityEngine for HeadEngine {
    fn description(&self) -> String {
        self.model.level.name().to_owned()
    }

    fn plan(&self, images: usize, captions: &CaptionMatrix) -> Result<Plan> {
        if let Some(engine) = &self.ablated {
            return engine.plan(images, captions);
        }
        let max_images = if self.model.head.pools() { POOLED_IMAGES } else { TILE_TOKENS / self.model.sizes.tokens };
        // The pooled vectors of all captions.
        let shared = if self.model.graph.is_some() { 4 * captions.len() * captions.width() } else { 0 };
        let limits = TileLimits { max_images, threads: self.threads, shared, memory_limit: self.memory_limit };
        limits.plan(images, captions, |images, captions, words| HeadWorker::bytes(&self.model, images, captions, words))
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
        self.model.check(images, captions)?;
        plan.check(images, captions)?;
        let pooled = self.model.pooled_captions(captions, self.threads)?;
        run_tiles(plan, sink, || HeadWorker::new(&self.model, images, captions, plan.block_words, &pooled))
    }

    fn prepare_only(&self, images: &dyn ImageSource, count: usize) -> Result<()> {
        let first = 0..count.min(images.len());
        match &self.ablated {
            Some(engine) => engine.prepare(images, first).map(drop),
            None => self.model.prepare(images, first).map(drop),
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
