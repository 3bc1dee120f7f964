//! A training run, from its start or from a saved state to its end.

use std::{
    rc::Rc,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use super::{
    HingeLoss, Learner, RunFiles, RunFolder, StepOptions, TrainError, Weights,
    batches::{BatchSource, EpochBatches},
    config_hash::ConfigHash,
    distribution::{RankRows, StepReport, broadcast_state, require_equal_weights, split_hash},
    events::EventFile,
    features::{self, BackboneFeatures},
    initial_weights::WeightSources,
    log::RunLog,
    precision::{LossScale, TorchPrecision},
    sampler::{EpochOrder, Sampler},
    schedule::Schedule,
    split::TokenizedSplit,
    state::{self, RunPosition},
    validate::validate,
};
use crate::{Result, TorchDevice, cuda_devices, distributed::Collective};
use laps::{EpochLine, Observer, Resume, StepLine, Timing, TrainRequest, Trained};
use laps_align::Directions;
use laps_data::{Augment, Tokenizer};
use laps_model::random::SplitMix64;

/// Trains a recipe. The input is checked completely before the first step.
///
/// When `stop` becomes true, the current step is finished, the state is saved, and the run ends with
/// [`TrainError::Interrupted`]. On the CPU a resumed run with the same number of threads is bit-identical to an
/// uninterrupted one.
///
/// With a process group, each rank takes its rows of each batch. Rank 0 alone writes, and `stop` on any rank stops all at
/// the same step.
///
/// # Errors
/// Invalid input, files that cannot be read or written, operations that libtorch refuses, and ranks that fail.
pub fn train(request: &TrainRequest, stop: &AtomicBool, observer: &mut dyn Observer) -> Result<Trained> {
    let device = request.group.as_ref().map_or(request.device, |group| group.device(request.device, cuda_devices()));
    let device = TorchDevice::open(device)?;
    request.entry.train.precision.check(device)?;
    let group = Rc::new(match &request.group {
        Some(group) => Collective::open(group, device)?,
        None => Collective::single(device),
    });
    let trained = train_in(request, &group, device, stop, observer);
    if let Err(error) = &trained {
        group.leave(&error.to_string());
    }
    trained
}

fn train_in(
    request: &TrainRequest,
    group: &Rc<Collective>,
    device: TorchDevice,
    stop: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<Trained> {
    let TrainRequest { entry, threads, .. } = request;
    let config = &entry.train;
    let tokenizer = entry.tokenizer(&request.paths)?.with_long_captions(request.long_captions);
    let training = TokenizedSplit::open(request, &tokenizer, &entry.data.train)?;
    let sampler = Sampler::new(training.input_ids.len(), config.batch_size * config.accumulate, config.seed)?
        .with_neighbours(training.split.image_of(), config.neighbours);
    let validation = TokenizedSplit::open(request, &tokenizer, request.select_on())?;
    // Augmented captions are truncated too, in each epoch.
    let truncated_captions = tokenizer.truncated();
    let sources = WeightSources::open(&request.start, &entry.model)?;
    sources.notes().iter().for_each(|note| observer.note(note));
    let hash = ConfigHash::new(entry, &sources.hashes()?)?;
    require_same_run(group, request, &hash, [&training, &validation])?;
    let rows = RankRows::new(group, config.batch_size)?;
    let resume = match request.resume {
        Resume::Never => false,
        Resume::Always => true,
        Resume::Auto => request.out.join(RunFiles::STATE).exists(),
    };
    let folder = group.is_first().then(|| RunFolder::open(&request.out, &entry.run_file()?, &hash, resume));
    let folder = folder.transpose()?;

    let saved = match &folder {
        Some(folder) if resume => Some(state::open(folder, &hash)?),
        _ => None,
    };
    let weights = match &saved {
        Some((file, ..)) => Weights::new(&entry.model, device, |parameter| Ok(file.read(&parameter.name)?))?,
        None => sources.weights(&entry.model, device, config.seed)?,
    };
    let mut learner = Learner::new(weights, StepOptions::of(config, *threads))?;
    learner.join(Rc::clone(group));
    let mut position = RunPosition::default();
    let mut longer_than = None;
    if let Some((file, saved_position, epochs)) = saved {
        state::restore(&mut learner, &file, &saved_position)?;
        position = saved_position;
        longer_than = Some(epochs).filter(|&epochs| epochs < config.epochs);
    }
    share_state(group, &mut learner, &mut position)?;
    let mut cached = |split: &TokenizedSplit, constant: bool| match constant {
        true => cached_features(&learner, split, request, group, stop, observer),
        false => Ok(None),
    };
    // Frozen backbones compute the same features in each epoch, unless their inputs are augmented.
    let augmented = config.image_augmentation || config.text_augmentation;
    let training_features = cached(&training, config.freeze_backbones && !augmented)?;
    let validation_features = cached(&validation, config.freeze_backbones)?;
    let output = folder.map(|folder| Output::open(folder, &position)).transpose()?;
    let mut run = Run {
        request,
        hash: hash.value().to_owned(),
        group,
        rows,
        output,
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
    if let (Some(epochs), Some(output)) = (longer_than, &mut run.output) {
        observer.note(&format!("the schedule is longer than before: {} epochs instead of {epochs}", config.epochs));
        output.log.write(&ScheduleLine { step: run.position.step, epochs: config.epochs, epochs_before: epochs })?;
    }
    while run.position.epoch < config.epochs {
        run.epoch(stop, observer)?;
    }
    Ok(Trained {
        steps: run.position.step,
        best: run.position.best,
        configuration: run.hash,
        non_finite: run.position.non_finite,
        truncated_captions,
    })
}

/// Features of a split for frozen backbones; None if they would be too large.
fn cached_features(
    learner: &Learner,
    split: &TokenizedSplit,
    request: &TrainRequest,
    group: &Collective,
    stop: &AtomicBool,
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
    match BackboneFeatures::open(&learner.weights, split, request, group, stop)? {
        Some(features) => Ok(Some(features)),
        None => Err(TrainError::NotStarted { folder: request.out.clone() }.into()),
    }
}

/// Fails if the ranks differ in what has to be the same.
fn require_same_run(
    group: &Collective,
    request: &TrainRequest,
    hash: &ConfigHash,
    splits: [&TokenizedSplit; 2],
) -> Result<()> {
    if !group.communicates() {
        return Ok(());
    }
    group.require_equal("version of the program", &request.version)?;
    group.require_equal("seed", &request.entry.train.seed.to_string())?;
    group.require_equal("configuration", hash.value())?;
    let hashes = splits.map(split_hash);
    for hash in hashes {
        group.require_equal("data hash", &hash?)?;
    }
    Ok(())
}

/// Gives all ranks the weights, the optimizer state and the position of rank 0, which alone reads the saved state.
fn share_state(group: &Collective, learner: &mut Learner, position: &mut RunPosition) -> Result<()> {
    if !group.communicates() {
        return Ok(());
    }
    broadcast_state(group, &learner.weights, &learner.optimizer)?;
    let failed = |error: serde_json::Error| laps_model::Error::weights(error);
    let text = serde_json::to_string(position).map_err(failed)?;
    *position = serde_json::from_str(&group.all_gather_text(&text)?[0]).map_err(failed)?;
    if position.step > 0 {
        learner.optimizer.steps = position.optimizer_steps;
        learner.scale = LossScale { factor: position.loss_scale.0, steps: position.loss_scale.1 };
    }
    Ok(())
}

/// Output of a run. Only rank 0 has it.
struct Output {
    folder: RunFolder,
    log: RunLog,
    events: EventFile,
}

impl Output {
    fn open(folder: RunFolder, position: &RunPosition) -> Result<Self> {
        let log = RunLog::open(&folder, position)?;
        Ok(Self { log, events: EventFile::create(&folder, position.step)?, folder })
    }
}

/// Log line of a run that is resumed with more epochs.
#[derive(serde::Serialize)]
struct ScheduleLine {
    step: u64,
    epochs: usize,
    epochs_before: usize,
}

struct Run<'a> {
    request: &'a TrainRequest,
    hash: String,
    group: &'a Collective,
    rows: RankRows,
    output: Option<Output>,
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

/// Where an epoch began or went on.
struct EpochClock {
    /// Step within the epoch.
    first: usize,
    start: Instant,
    /// Time and bytes of the group.
    communication: Duration,
    bytes: u64,
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
        let clock = EpochClock {
            first: self.position.within,
            start: Instant::now(),
            communication: self.group.time(),
            bytes: self.group.bytes(),
        };
        // That of the slowest rank.
        let mut waited = Duration::ZERO;
        while self.position.within < steps {
            let Some(captions) = order.batch(self.position.within) else { break };
            let line = self.step(&mut batches, captions, steps)?;
            let own = StepReport { stop: stop.load(Ordering::Relaxed), waited: batches.waited() };
            let StepReport { stop: stopped, waited: longest } = own.gather(self.group)?;
            waited = longest;
            observer.step(&line, &self.timing(&clock, clock.start.elapsed(), waited));
            if stopped || self.position.step.is_multiple_of(config.save_every as u64) {
                self.save(observer)?;
            }
            if stopped {
                let folder = self.request.out.clone();
                return Err(TrainError::Interrupted { step: self.position.step, folder }.into());
            }
        }
        let elapsed = clock.start.elapsed();
        let timing = self.timing(&clock, elapsed, waited);
        drop(batches);
        self.learner.release_threads();
        let weights = &self.learner.weights;
        require_equal_weights(self.group, weights)?;
        let recalls = validate(weights, self.validation, self.validation_features, self.request.threads, self.group)?;
        let line = self.finish_epoch(recalls, elapsed.as_secs_f64(), timing)?;
        self.save(observer)?;
        observer.epoch(&line);
        Ok(())
    }

    /// Timing of the steps since `clock` was started, which took `elapsed`.
    fn timing(&self, clock: &EpochClock, elapsed: Duration, waited: Duration) -> Timing {
        let config = &self.request.entry.train;
        let seconds = elapsed.as_secs_f64().max(1e-9);
        let steps = self.position.within - clock.first;
        let communication = (self.group.time() - clock.communication).as_secs_f64() / seconds;
        let bytes = (self.group.bytes() - clock.bytes) / steps.max(1) as u64;
        let is_shared = self.group.communicates();
        Timing {
            pairs_per_second: (steps * config.batch_size * config.accumulate) as f64 / seconds,
            data_wait: waited.as_secs_f64() / seconds,
            communication: is_shared.then_some(communication),
            communication_bytes: is_shared.then_some(bytes),
        }
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
        EpochBatches::start(
            self.request,
            self.training,
            self.tokenizer,
            order,
            self.position.within,
            source,
            self.rows.clone(),
        )
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
        if let Some(Output { log, events, .. }) = &mut self.output {
            log.write(&line)?;
            let scalars = [
                ("train/loss", line.loss),
                ("train/grad_norm", line.grad_norm),
                ("train/learning_rate", line.learning_rate),
            ];
            events.scalars(line.step, &scalars)?;
        }
        Ok(line)
    }

    /// Writes checkpoints and log of a finished epoch, and moves to the start of the next one.
    fn finish_epoch(&mut self, recalls: Directions, seconds: f64, timing: Timing) -> Result<EpochLine> {
        let epoch = self.position.epoch;
        let best = self.position.best.is_none_or(|(rsum, _)| recalls.rsum > rsum);
        // Rank 0 decides.
        let best = self.group.all_gather_number(best.into())?[0] != 0;
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
            timing,
            recalls,
            best,
        };
        if let Some(Output { folder, log, events }) = &mut self.output {
            if best {
                state::write_checkpoint(folder, RunFiles::BEST, &self.learner.weights, &self.position)?;
            }
            state::write_checkpoint(folder, RunFiles::LAST, &self.learner.weights, &self.position)?;
            log.write(&line)?;
            let Directions { i2t, t2i, rsum } = recalls;
            let mut scalars = vec![
                ("validation/rsum", rsum),
                ("validation/i2t_r1", i2t.r1),
                ("validation/i2t_r5", i2t.r5),
                ("validation/i2t_r10", i2t.r10),
                ("validation/t2i_r1", t2i.r1),
                ("validation/t2i_r5", t2i.r5),
                ("validation/t2i_r10", t2i.r10),
                ("train/mean_loss", line.mean_loss),
                ("train/data_wait", timing.data_wait),
                ("train/pairs_per_second", timing.pairs_per_second),
            ];
            scalars.extend(timing.communication.map(|share| ("train/communication", share)));
            events.scalars(line.step, &scalars)?;
        }
        self.position = RunPosition { epoch: epoch + 1, within: 0, losses: (0.0, 0), ..self.position.clone() };
        Ok(line)
    }

    fn save(&mut self, observer: &mut dyn Observer) -> Result<()> {
        if let Some(Output { folder, .. }) = &self.output {
            state::save(folder, &self.learner, &self.position, &self.hash)?;
            observer.saved(self.position.step);
        }
        Ok(())
    }
}
