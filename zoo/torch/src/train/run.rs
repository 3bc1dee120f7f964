//! A run from its beginning, or from where it was, to its end.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use super::precision::TorchPrecision;
use super::{
    Learner, StepOptions,
    features::{self, Features},
    feed::{Feed, Source},
    hinge::Hinge,
    samples::Samples,
    start::Sources,
    state::{self, Position},
    validate::validate,
};
use crate::{
    Result, TorchDevice,
    train::{EpochOrder, EventFile, Files, RunFolder, RunLog, Sampler, Schedule, TrainError},
};
use laps::{EpochLine, Observer, StepLine, TrainRequest, Trained};
use laps_align::Directions;
use laps_data::{Augment, Tokenizer};
use laps_hub::registry::{DataPaths, Entry, Validation, sha256};
use laps_model::{encoder::Device, random::SplitMix64};

/// Trains. Everything that can be wrong with the input is looked for before the first step.
///
/// Where `stop` becomes true, the step at hand is finished, the state saved, and the run ends with
/// [`TrainError::Interrupted`]. A run that goes on does so bit for bit on the CPU with as many threads.
pub fn train(request: &TrainRequest, stop: &AtomicBool, observer: &mut dyn Observer) -> Result<Trained> {
    let TrainRequest { entry, threads, .. } = request;
    let config = &entry.train;
    let device = TorchDevice::open(request.device)?;
    config.precision.check(device)?;
    let tokenizer = Tokenizer::open(&request.paths.vocab)?;
    tokenizer.check_fits(entry.model.text.vocab_size)?;
    let samples = Samples::open(request, &tokenizer, &entry.data.train)?;
    let sampler = Sampler::new(samples.tokens.len(), config.batch_size * config.accumulate, config.seed)?
        .with_neighbours(samples.split.image_of(), config.neighbours);
    let held_out = Samples::open(request, &tokenizer, request.select_on())?;
    let sources = Sources::open(&request.start, &entry.model)?;
    let configuration = format!("{} {}", entry.run_canonical()?, sources.hashes()?.join(" "));
    let hash = sha256(configuration.as_bytes());
    let folder = RunFolder::open(&request.out, &entry.run_file()?, &hash, request.resume)?;

    let saved = if request.resume { Some(state::open(&folder, &hash)?) } else { None };
    let weights = match &saved {
        Some((file, _)) => super::Weights::new(&entry.model, device, |parameter| Ok(file.read(&parameter.name)?))?,
        None => sources.weights(&entry.model, device, config.seed)?,
    };
    let mut learner = Learner::new(weights, StepOptions::of(config, *threads))?;
    let mut position = Position::default();
    if let Some((file, at)) = saved {
        state::restore(&mut learner, &file, &at)?;
        position = at;
    }
    let unchanged = config.freeze_backbones && !config.image_augmentation && !config.text_augmentation;
    let wanted = [unchanged, config.freeze_backbones];
    let Some(kept) = keep_features(&learner, [&samples, &held_out], wanted, (*threads, stop), observer)? else {
        return Err(TrainError::NotBegun { folder: folder.path().to_owned() }.into());
    };
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
        samples: &samples,
        held_out: &held_out,
        tokenizer: &tokenizer,
        kept,
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

/// Features of the two splits, where the backbones never train and always see the same. Nothing where `stop` becomes true.
fn keep_features(
    learner: &Learner,
    splits: [&Samples; 2],
    wanted: [bool; 2],
    (threads, stop): (usize, &AtomicBool),
    observer: &mut dyn Observer,
) -> Result<Option<[Option<Features>; 2]>> {
    let mut kept = [None, None];
    for ((samples, wanted), kept) in splits.into_iter().zip(wanted).zip(&mut kept) {
        if !wanted {
            continue;
        }
        let name = samples.split.name();
        let bytes = Features::bytes(&learner.weights, samples);
        if bytes > features::LIMIT {
            let sizes = [bytes, features::LIMIT].map(|bytes| bytes >> 20);
            let [size, limit] = sizes;
            observer.note(&format!(
                "features of split `{name}` would take {size} MiB, more than {limit}: the backbones compute in each step"
            ));
            continue;
        }
        observer.note(&format!("features of split `{name}`: {} MiB", bytes.div_ceil(1 << 20)));
        let Some(features) = Features::open(&learner.weights, samples, threads, stop)? else { return Ok(None) };
        *kept = Some(features);
    }
    Ok(Some(kept))
}

struct Run<'a> {
    request: &'a TrainRequest,
    hash: String,
    folder: RunFolder,
    log: RunLog,
    events: EventFile,
    learner: Learner,
    position: Position,
    sampler: Sampler,
    schedule: Schedule,
    samples: &'a Samples,
    held_out: &'a Samples,
    tokenizer: &'a Tokenizer,
    kept: [Option<Features>; 2],
}

impl Run<'_> {
    /// The rest of the epoch at hand, and its validation.
    fn epoch(&mut self, stop: &AtomicBool, observer: &mut dyn Observer) -> Result<()> {
        let config = &self.request.entry.train;
        let (epoch, steps) = (self.position.epoch, self.sampler.batches());
        self.learner.freeze_backbones(self.schedule.backbones_are_frozen(epoch))?;
        observer.begin(epoch, self.position.within, steps);
        let order = self.sampler.epoch(epoch);
        let kept = self.kept[0].take();
        let mut feed = self.feed(&order, kept.as_ref())?;
        let began = Instant::now();
        while self.position.within < steps {
            let Some(captions) = order.batch(self.position.within) else { break };
            let line = self.step(&mut feed, captions, steps)?;
            observer.step(&line, feed.waited().as_secs_f64() / began.elapsed().as_secs_f64().max(1e-9));
            let stopped = stop.load(Ordering::Relaxed);
            if stopped || self.position.step.is_multiple_of(config.save_every as u64) {
                self.save(observer)?;
            }
            if stopped {
                let folder = self.folder.path().to_owned();
                return Err(TrainError::Interrupted { step: self.position.step, folder }.into());
            }
        }
        let seconds = began.elapsed().as_secs_f64();
        let data_wait = feed.waited().as_secs_f64() / seconds.max(1e-9);
        drop(feed);
        self.kept[0] = kept;
        self.learner.release_threads();
        let recalls = validate(&self.learner.weights, self.held_out, self.kept[1].as_ref(), self.request.threads)?;
        let line = self.finish(recalls, (seconds, data_wait))?;
        self.save(observer)?;
        observer.epoch(&line);
        Ok(())
    }

    /// The batches of the rest of an epoch.
    fn feed<'b>(&self, order: &EpochOrder, features: Option<&'b Features>) -> Result<Feed<'b>>
    where
        Self: 'b,
    {
        let config = &self.request.entry.train;
        let augment = Augment::new(config.seed, self.position.epoch);
        let source = match features {
            Some(features) => Source::Features(features),
            None => Source::Files {
                crops: config.image_augmentation.then_some(augment),
                words: config.text_augmentation.then_some(augment),
            },
        };
        Feed::start(self.request, (self.samples, self.tokenizer), (order, self.position.within), source)
    }

    fn step(&mut self, feed: &mut Feed<'_>, captions: &[usize], steps: usize) -> Result<StepLine> {
        let config = &self.request.entry.train;
        let Position { epoch, within, step, .. } = self.position;
        let (negatives, weight) = (self.schedule.negatives(epoch), self.schedule.warm_up(epoch, within, steps));
        let hinge = Hinge { margin: config.margin, negatives, weight };
        let rates = [self.schedule.learning_rate(epoch), self.schedule.backbone_learning_rate(epoch)];
        let batch = feed.next(captions)?;
        let seed = SplitMix64::named(config.seed, &format!("step {step}")).bits();
        let done = batch.with_pairs(config.accumulate, |pairs| self.learner.step(pairs, &hinge, rates, seed))?;
        self.position.step += 1;
        self.position.within += 1;
        if done.finite {
            self.position.losses.0 += done.loss;
            self.position.losses.1 += 1;
        } else {
            self.position.non_finite += 1;
        }
        let line = StepLine {
            step: self.position.step,
            epoch,
            loss: done.loss,
            grad_norm: done.grad_norm,
            learning_rate: rates[0],
            pairs: done.pairs,
            finite: done.finite,
        };
        self.log.write(&line)?;
        let scalars =
            [("train/loss", line.loss), ("train/grad_norm", line.grad_norm), ("train/learning_rate", rates[0])];
        self.events.scalars(line.step, &scalars)?;
        Ok(line)
    }

    /// Ends an epoch: checkpoints, log, and the position at the beginning of the next one.
    fn finish(&mut self, recalls: Directions, (seconds, data_wait): (f64, f64)) -> Result<EpochLine> {
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
            state::write_checkpoint(&self.folder, Files::BEST, &self.learner.weights, &self.position)?;
        }
        state::write_checkpoint(&self.folder, Files::LAST, &self.learner.weights, &self.position)?;
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
        self.position = Position { epoch: epoch + 1, within: 0, losses: (0.0, 0), ..self.position.clone() };
        Ok(line)
    }

    fn save(&mut self, observer: &mut dyn Observer) -> Result<()> {
        self.position.log = self.log.length()?;
        state::save(&self.folder, &self.learner, &self.position, &self.hash)?;
        observer.saved(self.position.step);
        Ok(())
    }
}
