//! The run.

use std::{
    num::NonZeroUsize,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use laps::embedded;
use laps_align::{
    Evaluation, evaluate,
    similarity::{AggregationWeights, AlignmentConfig, EngineOptions, HeadEngine, SimilarityEngine, Tile},
};
use laps_data::{ImageFile, Split, check_images, sources::DEFAULT_MAX_CAPTIONS};
use laps_files::Progress;

use super::{
    Comparison, DataUsed, EntryUsed, EvaluatedModel, Provenance, QueryFailures, RankCounts, ReproduceRequest,
    Reproduction, SCHEMA, Verdict, compare,
    encode::{ImageScorer, encode_captions},
    inputs::{all_faults, hash_images, protocols, read_checkpoint, read_texts},
    log::RunLog,
    matrix::{MatrixInputs, SimilarityMatrix},
};
use crate::{
    Result,
    machine::{Machine, peak_memory},
    publish::mteb,
    trec::{self, RunIds},
};

/// Evaluates a checkpoint on a split, and compares its recalls with the published ones.
///
/// Captions, checkpoint and the presence of every image are checked before the encoders start. Setting `stop` ends the run
/// within seconds.
///
/// # Errors
/// Invalid inputs, what the engine refuses, and [`Error::Interrupted`](crate::Error::Interrupted) after `stop` is set.
pub fn reproduce(request: &ReproduceRequest, stop: &AtomicBool, progress: &dyn Progress) -> Result<Reproduction> {
    let ReproduceRequest { entry, .. } = request;
    let mut log = RunLog::new(progress);
    request.check(std::iter::empty())?;
    let (paths, imported) = if entry.data.source.is_native() {
        (embedded::data_paths(entry, request.data.as_deref(), request.split.as_deref())?, None)
    } else {
        embedded::source_paths(entry, request.data.as_deref())?
    };
    let texts = read_texts(request, &paths)?;
    let dropped = imported.and_then(|imported| imported.dropped_captions.get(texts.split.name()).copied()).unwrap_or(0);
    if dropped > 0 {
        let limit = entry.data.max_captions.unwrap_or(DEFAULT_MAX_CAPTIONS);
        log.notes
            .push(format!("captions of the split after the first {limit} of an image, which are left out: {dropped}"));
    }
    if texts.truncated > 0 {
        let positions = entry.model.text.max_position_embeddings;
        log.notes.push(format!("captions that were truncated to {positions} tokens: {}", texts.truncated));
    }
    let protocols = protocols(request, &texts, &mut log)?;
    if request.mteb.is_some() {
        mteb::check(&texts.split, &protocols)?;
    }
    let (checkpoint, checkpoint_used) = read_checkpoint(request, &mut log)?;
    let hashed = hash_images(request, &texts.split, &paths, &mut log)?;

    let (encoder, engine_used) = request.backend.encoder(entry, &checkpoint, &checkpoint_used.sha256)?;
    let options = EngineOptions { threads: request.threads, memory_limit: request.memory_limit };
    let similarity: Box<dyn SimilarityEngine> = if entry.model.head.is_laps() {
        let weights = AggregationWeights::load(|name| Ok(checkpoint.read(name)?))?;
        let sizes = AlignmentConfig::of(&entry.model);
        request.backends.similarity(engine_used.device.parse()?, sizes, &weights, options)?
    } else {
        Box::new(HeadEngine::new(&entry.model, |parameter| Ok(checkpoint.read(&parameter.name)?), options)?)
    };
    let inputs = MatrixInputs {
        request,
        checkpoint_sha256: &checkpoint_used.sha256,
        data_sha256: &hashed.sha256,
        tokens: &texts.tokens,
        engine: &engine_used,
        similarity: &similarity.description(),
    };
    let sizes = [texts.images.images(), texts.images.captions()];
    let mut matrix = SimilarityMatrix::open(request, sizes, &inputs.fingerprint())?;
    let missing = matrix.missing();
    let (files, finished) = split_files(&texts.split.image_files(&paths.images), &missing);
    // Only images that this run does not encode are decoded here, for the warnings of the result.
    let mut damaged = check_images(&finished, request.threads, || ())?;
    if !finished.is_empty() {
        log.notes.push(format!("{} images were encoded and scored by an earlier run", finished.len()));
    }
    if !missing.is_empty() {
        let encoder = encoder.as_ref();
        let interrupted = || matrix.interrupted();
        let captions = encode_captions(request, encoder, &texts.tokens, stop, &interrupted, &mut log)?;
        let scoring = ImageScorer { request, encoder, engine: similarity.as_ref(), captions: &captions, stop };
        let scored = scoring.run(&mut matrix, files, &mut log);
        damaged.extend(scored.map_err(|error| all_faults(error, request, &texts.split, &paths))?);
    }
    log.notes.extend(damaged.iter().map(|damage| {
        format!("image `{}` is damaged and was decoded partially: {}", damage.file.image.id, damage.warning)
    }));
    if stop.load(Ordering::Relaxed) {
        return Err(matrix.interrupted());
    }

    let began = Instant::now();
    let (evaluations, failures) = matrix.finish(|scores| {
        if let Some(run) = &request.run {
            trec::write_run(run, scores, &RunIds::of(&texts.split), &entry.name)?;
        }
        if let Some(folder) = &request.mteb {
            let seconds = log.stages.iter().map(|stage| stage.seconds).sum();
            mteb::write(folder, scores, &texts.images, Some(seconds))?;
        }
        let evaluate = |&protocol| Ok(evaluate(scores, &texts.images, protocol)?);
        let evaluations = protocols.iter().map(evaluate).collect::<Result<Vec<Evaluation>>>()?;
        let failures = QueryFailures::find(scores, &texts.images, &texts.split, &evaluations)?;
        Ok((evaluations, failures))
    })?;
    log.add("rank", sizes.iter().sum(), "queries", began.elapsed());

    let (comparisons, verdict) = judge(request, &texts.split, &evaluations);
    Ok(Reproduction {
        schema: SCHEMA,
        entry: entry.name.clone(),
        split: texts.split.name().to_owned(),
        limit: request.limit.map(NonZeroUsize::get),
        images: texts.images.images(),
        captions: texts.images.captions(),
        ranks: evaluations.iter().map(RankCounts::of).collect(),
        evaluations,
        failures,
        comparisons,
        verdict,
        notes: log.notes,
        stages: log.stages,
        peak_memory_bytes: peak_memory(),
        provenance: Provenance {
            version: env!("CARGO_PKG_VERSION").into(),
            commit: crate::commit().map(Into::into),
            model: EvaluatedModel::Entry(Box::new(EntryUsed {
                config_sha256: entry.config_sha256.clone(),
                checkpoint: checkpoint_used,
                data: DataUsed {
                    sha256: hashed.sha256,
                    image_bytes: hashed.bytes,
                    truncated_captions: texts.truncated,
                    dropped_captions: dropped,
                    damaged: damaged.into_iter().map(|damage| damage.file.image.id).collect(),
                },
                engine: engine_used,
            })),
            similarity: similarity.description(),
            machine: Machine::here(),
            seed: None,
        },
        judged: Vec::new(),
        intervals: Vec::new(),
        audit: Vec::new(),
        precisions: Vec::new(),
    })
}

/// The images of the missing blocks, and the others.
fn split_files(files: &[ImageFile], missing: &[Tile]) -> (Vec<ImageFile>, Vec<ImageFile>) {
    let mut is_missing = vec![false; files.len()];
    missing.iter().for_each(|block| is_missing[block.images.clone()].fill(true));
    let (missing, finished): (Vec<_>, Vec<_>) =
        files.iter().cloned().zip(is_missing).partition(|(_, missing)| *missing);
    let files = |pairs: Vec<(ImageFile, bool)>| pairs.into_iter().map(|(file, _)| file).collect();
    (files(missing), files(finished))
}

/// Compares with the published tables. They are for the whole test split; those of `references.yaml` also for a certain
/// number of images and captions.
fn judge(request: &ReproduceRequest, split: &Split, evaluations: &[Evaluation]) -> (Vec<Comparison>, Verdict) {
    let entry = &request.entry;
    let not_compared = |reason: String| (Vec::new(), Verdict::NotCompared { reason });
    if entry.data.protocol.iter().all(|&protocol| entry.published(protocol).is_empty()) {
        return not_compared(compare::NO_PUBLISHED.to_owned());
    }
    if request.limit.is_some() {
        return not_compared("published recalls are for the whole split".to_owned());
    }
    if split.name() != entry.data.test {
        return not_compared(format!("published recalls are for the split `{}`", entry.data.test));
    }
    if entry.data.drawn.is_some() && request.data.is_some() {
        return not_compared("published recalls are for the scenes that the entry draws".to_owned());
    }
    let mut comparisons = Vec::new();
    let mut sizes = Vec::new();
    for evaluation in evaluations {
        for table in entry.published(evaluation.protocol) {
            if table.is_built_in() && !evaluation.published_size {
                let (images, captions) = evaluation.protocol.published_size();
                sizes.push(format!("`{}` has {images} images and {captions} captions", table.source));
            } else {
                comparisons.push(Comparison::new(evaluation, &table));
            }
        }
    }
    if comparisons.is_empty() && !sizes.is_empty() {
        return not_compared(format!("the published results have other sizes: {}", sizes.join(", ")));
    }
    let verdict = compare::decide(&mut comparisons, request.tolerance);
    (comparisons, verdict)
}
