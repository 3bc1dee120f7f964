//! The arguments of a measurement.

use std::{path::PathBuf, rc::Rc};

use laps::Libtorch;
use laps_hub::{checkpoint::Checkpoint, registry::Entry};
use laps_model::encoder::Device;

use super::{BenchPart, EncoderCase, Scenario};
use crate::{Error, Result};

/// The inputs and options of a measurement.
pub struct TimingRequest {
    /// The entry.
    pub entry: Entry,
    /// Its checkpoint.
    pub checkpoint: Rc<Checkpoint>,
    /// Description of the weights, for the result.
    pub weights: String,
    /// The parts to measure.
    pub parts: Vec<BenchPart>,
    /// The encoders to measure.
    pub encoders: Vec<EncoderCase>,
    /// Device of training, and of the similarities on libtorch.
    pub device: Device,
    /// libtorch, to measure training and similarities on it.
    pub torch: Option<&'static dyn Libtorch>,
    /// Batch sizes. The scenario `single` uses batch size 1 instead.
    pub batch_sizes: Vec<usize>,
    /// How work arrives.
    pub scenario: Scenario,
    /// Warm-up iterations.
    pub warm_up: usize,
    /// Measured iterations, at least 1.
    pub repeats: usize,
    /// Number of threads.
    pub threads: usize,
    /// Random seed of pixels, tokens and embeddings.
    pub seed: u64,
    /// Data root for the parts that need image files, unless the entry draws them.
    pub data: Option<PathBuf>,
    /// Multiply-adds of an image, of a caption of [`TimingRequest::WORDS`] tokens, and of a pair of both, counted in
    /// the model definition.
    pub multiply_adds: [Option<u64>; 3],
}

impl TimingRequest {
    /// Tokens of the caption that multiply-adds are counted for: the median of Flickr30K.
    pub const WORDS: usize = 14;

    /// The batch sizes of the scenario.
    pub fn batches(&self) -> Vec<usize> {
        match self.scenario {
            Scenario::Single => vec![1],
            Scenario::Offline => self.batch_sizes.clone(),
        }
    }

    /// Checks that every part can be measured, before anything is computed.
    ///
    /// # Errors
    /// [`Error::Argument`] for a part that cannot be measured.
    pub fn check(&self) -> Result<()> {
        let refused = |expected: &str, found: String| {
            Err(Error::Argument { argument: "parts", expected: expected.to_owned(), found })
        };
        let files = self.data.is_some() || self.entry.data.drawn.is_some();
        if let Some(part) = self.parts.iter().find(|part| part.needs_files() && !files) {
            return refused("parts that need no image files, or a data root", format!("`{part}`"));
        }
        if self.parts.contains(&BenchPart::Training) && self.torch.is_none() {
            return refused("parts of the selected engines; training needs `torch`", "`training`".to_owned());
        }
        Ok(())
    }
}
