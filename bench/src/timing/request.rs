//! What is asked for.

use std::{path::PathBuf, rc::Rc};

use laps::Libtorch;
use laps_hub::{checkpoint::Checkpoint, registry::Entry};
use laps_model::encoder::Device;

use super::{EncoderCase, Part, Scenario};
use crate::{Error, Result};

/// What is to be measured, and how.
pub struct Request {
    /// The entry.
    pub entry: Entry,
    /// Its checkpoint.
    pub checkpoint: Rc<Checkpoint>,
    /// What the weights are, in words.
    pub weights: String,
    /// The parts.
    pub parts: Vec<Part>,
    /// The encoders.
    pub encoders: Vec<EncoderCase>,
    /// Where training and the alignment on libtorch compute.
    pub device: Device,
    /// libtorch, if training and the alignment on it are measured too.
    pub torch: Option<&'static dyn Libtorch>,
    /// Items of a step. The scenario `single` takes 1 instead.
    pub batch_sizes: Vec<usize>,
    /// How work arrives.
    pub scenario: Scenario,
    /// Steps before the clock is looked at.
    pub warm_up: usize,
    /// Steps with it, at least 1.
    pub repeats: usize,
    /// Threads.
    pub threads: usize,
    /// Seed of pixels, tokens and embeddings.
    pub seed: u64,
    /// Root of image files for the parts that need some, where they are not drawn.
    pub data: Option<PathBuf>,
    /// Multiply-adds of an image, of a caption of [`Request::WORDS`] tokens, and of a pair of both, by the definition.
    pub multiply_adds: [Option<u64>; 3],
}

impl Request {
    /// Tokens of the caption that multiply-adds are counted for: the middle of Flickr30K's, rounded.
    pub const WORDS: usize = 14;

    /// Items of each step that is measured.
    pub fn batches(&self) -> Vec<usize> {
        match self.scenario {
            Scenario::Single => vec![1],
            Scenario::Offline => self.batch_sizes.clone(),
        }
    }

    /// Finds what is wrong with it before anything is computed.
    ///
    /// # Errors
    /// [`Error::Option`] for a part that can not be measured.
    pub fn check(&self) -> Result<()> {
        let refused = |expected: &str, found: String| {
            Err(Error::Option { option: "--parts", expected: expected.to_owned(), found })
        };
        let files = self.data.is_some() || self.entry.data.drawn.is_some();
        if let Some(part) = self.parts.iter().find(|part| part.needs_files() && !files) {
            return refused("parts that need no image files, or --data", format!("`{part}`"));
        }
        if self.parts.contains(&Part::Training) && self.torch.is_none() {
            return refused("parts of the engines that are asked for; `torch` trains", "`training`".to_owned());
        }
        Ok(())
    }
}
