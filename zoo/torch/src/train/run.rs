//! A training run, from its start or from a saved state to its end.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use super::{
    HingeLoss, Learner, RunFiles, RunFolder, StepOptions, TrainError, Weights,
    batches::{BatchSource, EpochBatches},
    events::EventFile,
    features::{self, BackboneFeatures},
    initial_weights::WeightSources,
    log::RunLog,
    precision::TorchPrecision,
    sampler::{EpochOrder, Sampler},
    schedule::Schedule,
    split::TokenizedSplit,
    state::{self, RunPosition},
    validate::validate,
};
use crate::{Result, TorchDevice};
use laps::{EpochLine, Observer, StepLine, TrainRequest, Trained};
use laps_align::Directions;
use laps_data::{Augment, Tokenizer};
use laps_hub::registry::sha256;
use laps_model::random::SplitMix64;

/// Trains a recipe. The input is checked completely before the first step.
///
/// When `stop` becomes true, the current step is finished, the state is saved, and the run ends with
/// [`TrainError::Interrupted`]. On the CPU a resumed run with the same number of threads is bit-identical to an
/// uninterrupted one.
///
/// # Errors
/// Invalid input, files that cannot be read or written, and operations that libtorch refuses.
pub fn train(request: &TrainRequest, stop: &AtomicBool, observer: &mut dyn Observer) -> Result<Trained> {
    let TrainRequest { entry, threads, .. } = request;
    let config = &entry.train;
    let device = TorchDevice::open(request.device)?;
    config.precision.check(device)?;
    let tokenizer = entry.tokenizer(&request.paths)?;
    let training = TokenizedSplit::open(request, &tokenizer, &entry.data.train)?;
    let sampler = Sampler::new(training.input_ids.len(), config.batch_size * config.accumulate, config.seed)?
        .with_neighbours(training.split.image_of(), config.neighbours);
    let validation = TokenizedSplit::open(request, &tokenizer, request.select_on())?;
    let sources = WeightSources::open(&request.start, &entry.model)?;
    let configuration = format!("{} {}", entry.run_canonical()?, sources.hashes()?.join(" "));
    let hash = sha256(configuration.as_bytes());
    let folder = RunFolder::open(&request.out, &entry.run_file()?, &hash, request.resume)?;

    let saved = if request.resume { Some(state::open(&folder, &hash)?) } else { None };
    let weights = match &saved {
        Some((file, _)) => Weights::new(&entry.model, device, |parameter| Ok(file.read(&parameter.name)?))?,
        None => sources.weights(&entry.model, device, config.seed)?,
    };
    let mut learner = Learner::new(weights, StepOptions::of(config, *threads))?;
    let mut position = RunPosition::default();
    if let Some((file, saved_position)) = saved {
        state::restore(&mut learner, &file, &saved_position)?;
        position = saved_position;
    }
    let mut cached = |split: &TokenizedSplit, constant: bool| match constant {
        true => cached_features(&learner, split, *threads, stop, &folder, observer),
        false => Ok(None),
    };
    // Frozen backbones compute the same features in each epoch, unless their inputs are augmented.
    let augmented = config.image_augmentation || config.text_augmentation;
    let training_features = cached(&training, config.freeze_backbones && !augmented)?;
    let validation_features = cached(&validation, config.freeze_backbones)?;
    let mut run = Run {
        request,
        hash,
        log: RunLog::open(&folder, position.log)?,
        events: EventFile::create(&folder, position.step)?,
        folder,
        learner,
        position,
        sampler,
        schedule: Schedule::new(config),
        training: &training,
        training_features: training_features.as_ref(),
        validation: &validation,
        validation_features: validation_features.as_ref(),
        tokenizer: &tokenizer,
    };
    while run.position.epoch < config.epochs {
        run.epoch(stop, observer)?;
    }
    Ok(Trained {
        steps: run.position.step,
        best: run.position.best,
        configuration: run.hash,
        non_finite: run.position.non_finite,
    })
}

/// Features of a split for frozen backbones; None if they would need too much memory.
fn cached_features(
    learner: &Learner,
    split: &TokenizedSplit,
    threads: usize,
    stop: &AtomicBool,
    folder: &RunFolder,
    observer: &mut dyn Observer,
) -> Result<Option<BackboneFeatures>> {
    let name = split.split.name();
    let bytes = BackboneFeatures::bytes(&learner.weights, split);
    if bytes > features::MAX_BYTES {
        let [size, limit] = [bytes, features::MAX_BYTES].map(|bytes| bytes >> 20);
        observer.note(&format!(
            "features of split `{name}` need {size} MiB, more than {limit} MiB: the backbones run in each step"
        ));
        return Ok(None);
    }
    observer.note(&format!("features of split `{name}`: {} MiB", bytes.div_ceil(1 << 20)));
    match BackboneFeatures::open(&learner.weights, split, threads, stop)? {
        Some(features) => Ok(Some(features)),
        None => Err(TrainError::NotStarted { folder: folder.path().to_owned() }.into()),
    }
}

struct Run<'a> {
    request: &'a TrainRequest,
    hash: String,
    folder: RunFolder,
    log: RunLog,
    events: EventFile,
    learner: Learner,
    position: RunPosition,
    sampler: Sampler,
    schedule: Schedule,
    training: &'a TokenizedSplit,
    training_features: Option<&'a BackboneFeatures>,
    validation: &'a TokenizedSplit,
    validation_features: Option<&'a BackboneFeatures>,
    tokenizer: &'a Tokenizer,
}

impl<'a> Run<'a> {
    /// Finishes the current epoch and validates.
    fn epoch(&mut self, stop: &AtomicBool, observer: &mut dyn Observer) -> Result<()> {
        let config = &self.request.entry.train;
        let (epoch, steps) = (self.position.epoch, self.sampler.batches());
        self.learner.freeze_backbones(self.schedule.backbones_are_frozen(epoch))?;
        observer.begin(epoch, self.position.within, steps);
        let order = self.sampler.epoch(epoch);
        let mut batches = self.batches(&order)?;
        let start = Instant::now();
        while self.position.within < steps {
            let Some(captions) = order.batch(self.position.within) else { break };
            let line = self.step(&mut batches, captions, steps)?;
            observer.step(&line, batches.waited().as_secs_f64() / start.elapsed().as_secs_f64().max(1e-9));
            let stopped = stop.load(Ordering::Relaxed);
            if stopped || self.position.step.is_multiple_of(config.save_every as u64) {
                self.save(observer)?;
            }
            if stopped {
                let folder = self.folder.path().to_owned();
                return Err(TrainError::Interrupted { step: self.position.step, folder }.into());
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        let data_wait = batches.waited().as_secs_f64() / seconds.max(1e-9);
        drop(batches);
        self.learner.release_threads();
        let recalls = validate(&self.learner.weights, self.validation, self.validation_features, self.request.threads)?;
        let line = self.finish_epoch(recalls, seconds, data_wait)?;
        self.save(observer)?;
        observer.epoch(&line);
        Ok(())
    }

    /// The remaining batches of an epoch.
    fn batches(&self, order: &EpochOrder) -> Result<EpochBatches<'a>> {
        let config = &self.request.entry.train;
        let augment = Augment::new(config.seed, self.position.epoch);
        let source = match self.training_features {
            Some(features) => BatchSource::Features(features),
            None => BatchSource::Files {
                image_augment: config.image_augmentation.then_some(augment),
                word_augment: config.text_augmentation.then_some(augment),
            },
        };
        EpochBatches::start(self.request, self.training, self.tokenizer, order, self.position.within, source)
    }

    fn step(&mut self, batches: &mut EpochBatches<'_>, captions: &[usize], steps: usize) -> Result<StepLine> {
        let config = &self.request.entry.train;
        let RunPosition { epoch, within, step, .. } = self.position;
        let (negatives, weight) = (self.schedule.negatives(epoch), self.schedule.warm_up(epoch, within, steps));
        let hinge = HingeLoss { margin: config.margin, negatives, weight };
        let learning_rates = [self.schedule.learning_rate(epoch), self.schedule.backbone_learning_rate(epoch)];
        let batch = batches.next(captions)?;
        let seed = SplitMix64::named(config.seed, &format!("step {step}")).bits();
        let outcome =
            batch.with_parts(config.accumulate, |parts| self.learner.step(parts, &hinge, learning_rates, seed))?;
        self.position.step += 1;
        self.position.within += 1;
        if outcome.finite {
            self.position.losses.0 += outcome.loss;
            self.position.losses.1 += 1;
        } else {
            self.position.non_finite += 1;
        }
        let line = StepLine {
            step: self.position.step,
            epoch,
            loss: outcome.loss,
            grad_norm: outcome.grad_norm,
            learning_rate: learning_rates[0],
            pairs: outcome.pairs,
            finite: outcome.finite,
        };
        self.log.write(&line)?;
        let scalars = [
            ("train/loss", line.loss),
            ("train/grad_norm", line.grad_norm),
            ("train/learning_rate", line.learning_rate),
        ];
        self.events.scalars(line.step, &scalars)?;
        Ok(line)
    }

    /// Writes checkpoints and log of a finished epoch, and moves to the start of the next one.
    fn finish_epoch(&mut self, recalls: Directions, seconds: f64, data_wait: f64) -> Result<EpochLine> {
        let epoch = self.position.epoch;
        let best = self.position.best.is_none_or(|(rsum, _)| recalls.rsum > rsum);
        if best {
            self.position.best = Some((recalls.rsum, epoch));
        }
        let (sum, count) = self.position.losses;
        let line = EpochLine {
            step: self.position.step,
            epoch,
            mean_loss: sum / count.max(1) as f64,
            non_finite: self.position.non_finite,
            seconds,
            data_wait,
            recalls,
            best,
        };
        if best {
            state::write_checkpoint(&self.folder, RunFiles::BEST, &self.learner.weights, &self.position)?;
        }
        state::write_checkpoint(&self.folder, RunFiles::LAST, &self.learner.weights, &self.position)?;
        self.log.write(&line)?;
        let Directions { i2t, t2i, rsum } = recalls;
        let scalars = [
            ("validation/rsum", rsum),
            ("validation/i2t_r1", i2t.r1),
            ("validation/i2t_r5", i2t.r5),
            ("validation/i2t_r10", i2t.r10),
            ("validation/t2i_r1", t2i.r1),
            ("validation/t2i_r5", t2i.r5),
            ("validation/t2i_r10", t2i.r10),
            ("train/mean_loss", line.mean_loss),
            ("train/data_wait", data_wait),
        ];
        self.events.scalars(line.step, &scalars)?;
        self.position = RunPosition { epoch: epoch + 1, within: 0, losses: (0.0, 0), ..self.position.clone() };
        Ok(line)
    }

    fn save(&mut self, observer: &mut dyn Observer) -> Result<()> {
        self.position.log = self.log.length()?;
        state::save(&self.folder, &self.learner, &self.position, &self.hash)?;
        observer.saved(self.position.step);
        Ok(())
    }
}
