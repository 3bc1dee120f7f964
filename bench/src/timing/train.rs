//! A step of training on libtorch.

use zoo::{
    array::Array,
    torch::{
        TorchDevice,
        train::{Captions, Hinge, Images, Learner, Pairs, StepOptions, Weights},
    },
    train::Negatives,
};

use super::{
    Request, Steps,
    inputs::{pixels, tokens},
};
use crate::Result;

/// A learner that takes the same batch again and again, with the entry's recipe and the hardest negatives.
pub(super) struct Trainer {
    learner: Learner,
    hinge: Hinge,
    rates: [f64; 2],
    pixels: Array,
    tokens: Vec<Vec<u32>>,
}

impl Trainer {
    /// With the weights of the request and `batch` pairs.
    pub(super) fn new(request: &Request, batch: usize) -> Result<Self> {
        let config = &request.entry.train;
        let device = TorchDevice::open(request.device)?;
        let weights =
            Weights::new(&request.entry.model, device, |parameter| Ok(request.checkpoint.read(&parameter.name)?))?;
        let mut learner = Learner::new(weights, StepOptions::of(config, request.threads))?;
        learner.freeze_backbones(config.freeze_backbones)?;
        Ok(Self {
            learner,
            hinge: Hinge { margin: config.margin, negatives: Negatives::Hardest, weight: 1.0 },
            rates: [config.learning_rate, config.learning_rate * config.backbone_lr_ratio],
            pixels: pixels(&request.entry, batch, request.seed)?,
            tokens: tokens(&request.entry, batch, request.seed),
        })
    }

    /// Measures its steps.
    pub(super) fn measure(&mut self, request: &Request) -> Result<Steps> {
        let Self { learner, hinge, rates, pixels, tokens } = self;
        let captions: Vec<&[u32]> = tokens.iter().map(Vec::as_slice).collect();
        let ids: Vec<u64> = (0..captions.len() as u64).collect();
        let steps = Steps::measure(request.warm_up, request.repeats, || {
            let pairs = Pairs { images: Images::Pixels(pixels), captions: Captions::Tokens(&captions), ids: &ids };
            learner.step(&[pairs], hinge, *rates, request.seed)
        });
        // What is measured next has all of them.
        learner.release_threads();
        steps
    }
}
