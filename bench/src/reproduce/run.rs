//! The run.

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use laps::{MatrixParts, RankGroup, embedded};
use laps_align::{
    Evaluation, Scores, evaluate,
    similarity::{AggregationWeights, AlignmentConfig, EngineOptions, HeadEngine, SimilarityEngine, Tile},
};
use laps_data::{Damage, ImageFile, Split, check_images, sources::DEFAULT_MAX_CAPTIONS};
use laps_files::Progress;

use super::{
    DataUsed, EntryUsed, EvaluatedModel, Provenance, PublishedComparison, QueryFailures, RankCounts, ReproduceRequest,
    Reproduction, RunTime, SCHEMA, Verdict, compare,
    encode::{ImageScorer, encode_captions},
    inputs::{all_faults, hash_images, protocols, read_checkpoint, read_texts},
    log::StageLog,
    matrix::{FinishedMatrix, MatrixInputs, SimilarityMatrix},
};
use crate::{
    Error, Result,
    machine::peak_memory,
    publish::mteb,
    trec::{self, RunIds},
};

/// Number of encoders: one of images, one of captions.
const ENCODERS: usize = 2;

/// Evaluates a checkpoint on a split, and compares its recalls with the published ones.
///
/// Captions, checkpoint and the presence of every image are checked before the encoders start. Setting `stop` ends the run
/// within seconds.
///
/// The ranks of [`ReproduceRequest::group`] share the captions and the images. Recalls, ranks and the matrix do not depend
/// on their number, and every rank returns the result; stages, memory and machine are those of the rank.
///
/// # Errors
/// Invalid inputs, what the engine refuses, ranks that failed or have other inputs, and
/// [`Error::Interrupted`](crate::Error::Interrupted) after `stop` is set.
pub fn reproduce(request: &ReproduceRequest, stop: &AtomicBool, progress: &dyn Progress) -> Result<Reproduction> {
    let result = reproduce_in_group(request, stop, progress);
    if let Err(error) = &result {
        request.group.leave(&error.to_string());
    }
    result
}

fn reproduce_in_group(request: &ReproduceRequest, stop: &AtomicBool, progress: &dyn Progress) -> Result<Reproduction> {
    let ReproduceRequest { entry, .. } = request;
    let mut log = StageLog::new(progress);
    let started = Instant::now();
    request.check()?;
    let (paths, imported) = if entry.data.source.is_native() {
        (embedded::data_paths(entry, request.data.as_deref(), request.split.as_deref())?, None)
    } else {
        embedded::source_paths(entry, request.data.as_deref())?
    };
    let began = Instant::now();
    let texts = read_texts(request, &paths)?;
    log.add("read captions", texts.tokens.len(), "captions", began.elapsed());
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
    if entry.model.head.reads_padding() {
        log.notes.push(match entry.data.padded_batch {
            Some(batch) => format!("captions are padded to the longest of each {batch} in the order of the file"),
            None => "captions are encoded without padding; the published recalls are with it".to_owned(),
        });
    }
    let protocols = protocols(request, &texts, &mut log)?;
    if request.mteb.is_some() {
        mteb::check(&texts.split, &protocols)?;
    }
    let (checkpoint, checkpoint_used) = read_checkpoint(request, &mut log)?;
    let hashed = hash_images(request, &texts.split, &paths, &mut log)?;

    let group = request.group.as_ref();
    if group.world_size() > 1 {
        group.require_equal("version of the program", &crate::version())?;
        group.require_equal("configuration", &entry.config_sha256)?;
        group.require_equal("checkpoint", &checkpoint_used.sha256)?;
        group.require_equal("data hash", &hashed.sha256)?;
        group.require_equal("batch size", &request.batch_size.to_string())?;
        let files =
            [("similarity matrix", &request.sims), ("run file", &request.run), ("results of MTEB", &request.mteb)];
        let files: Vec<&str> = files.into_iter().filter_map(|(name, path)| path.as_ref().map(|_| name)).collect();
        group.require_equal("list of output files", &files.join(", "))?;
        log.notes.push(format!("computed by {} processes", group.world_size()));
    }

    let began = Instant::now();
    let (encoder, engine_used) = request.backend.encoder(entry, &checkpoint, &checkpoint_used.sha256)?;
    // With ONNX Runtime this includes exporting the graphs if they are not in the cache.
    log.add("open encoders", ENCODERS, "encoders", began.elapsed());
    log.notes.extend(request.backend.notes());
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
    let all_files = texts.split.image_files(&paths.images);
    let files = split_files(&all_files, &missing).0;
    // Only images that this run does not encode are decoded here, for the warnings of the result.
    let finished = split_files(&all_files, &matrix.missing_of_all()).1;
    let mut damaged = match group.rank() {
        0 => check_images(&finished, request.threads, || ())?,
        _ => Vec::new(),
    };
    if !finished.is_empty() {
        log.notes.push(format!("{} images were encoded and scored by an earlier run", finished.len()));
    }
    if !matrix.missing_of_all().is_empty() {
        let encoder = encoder.as_ref();
        let interrupted = || matrix.interrupted();
        let captions = encode_captions(request, encoder, &texts.tokens, stop, &interrupted, &mut log)?;
        if !missing.is_empty() {
            let scoring = ImageScorer { request, encoder, engine: similarity.as_ref(), captions: &captions, stop };
            let scored = scoring.run(&mut matrix, files, &mut log);
            damaged.extend(scored.map_err(|error| all_faults(error, request, &texts.split, &paths))?);
        }
    }
    if stop.load(Ordering::Relaxed) {
        return Err(matrix.interrupted());
    }
    let matrix = matrix.finish()?;
    let damaged = gather_damaged(group, damaged, &all_files)?;
    log.notes.extend(damaged.iter().map(|damage| {
        format!("image `{}` is damaged and was decoded partially: {}", damage.file.image.id, damage.warning)
    }));

    let began = Instant::now();
    let ranked = match matrix {
        FinishedMatrix::Whole(matrix) => Some(matrix.read(|scores| {
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
        })?),
        FinishedMatrix::Parts { values, shares } => {
            let own = &shares[group.rank()];
            let own = match own.is_empty() {
                true => None,
                false => Some(Scores::new(&values, own.len(), texts.images.captions())?),
            };
            let parts = MatrixParts { group, own, shares: &shares, captions: &texts.images };
            let evaluate = |&protocol| Evaluation::of(&texts.images, protocol, |images| Ok(parts.ranks(images)?));
            let evaluations = protocols.iter().map(evaluate).collect::<Result<Vec<Evaluation>>>()?;
            let failures = QueryFailures::of_parts(&parts, &texts.split, &evaluations)?;
            Some((evaluations, failures))
        }
        FinishedMatrix::Remote => None,
    };
    log.add("rank", sizes.iter().sum(), "queries", began.elapsed());
    let Some((evaluations, failures)) = ranked else {
        return received(group);
    };

    let (comparisons, verdict) = judge(request, &texts.split, &evaluations);
    let result = Reproduction {
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
        time: Some(RunTime::new(started.elapsed().as_secs_f64(), &log.stages)),
        stages: log.stages,
        peak_memory_bytes: peak_memory(),
        provenance: Provenance::here(
            EvaluatedModel::Entry(Box::new(EntryUsed {
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
            similarity.description(),
        ),
        judged: Vec::new(),
        intervals: Vec::new(),
        audit: Vec::new(),
        precisions: Vec::new(),
    };
    if request.needs_whole_matrix() && group.world_size() > 1 {
        group.all_gather_text(&serde_json::to_string(&result).map_err(|source| Error::RankResult { source })?)?;
    }
    Ok(result)
}

/// The result of rank 0, which alone has the matrix.
fn received(group: &dyn RankGroup) -> Result<Reproduction> {
    let texts = group.all_gather_text("")?;
    serde_json::from_str(texts.first().map_or("", String::as_str)).map_err(|source| Error::RankResult { source })
}

/// The images that any rank decoded in part, in the order of `files`.
fn gather_damaged(group: &dyn RankGroup, own: Vec<Damage>, files: &[ImageFile]) -> Result<Vec<Damage>> {
    if group.world_size() == 1 {
        return Ok(own);
    }
    let rows: HashMap<&Path, usize> = files.iter().enumerate().map(|(row, file)| (file.path.as_path(), row)).collect();
    let own: Vec<(usize, String)> =
        own.into_iter().filter_map(|damage| Some((*rows.get(damage.file.path.as_path())?, damage.warning))).collect();
    let mut all: Vec<(usize, String)> = Vec::new();
    for text in group.all_gather_text(&serde_json::to_string(&own).map_err(|source| Error::RankResult { source })?)? {
        all.extend(serde_json::from_str::<Vec<_>>(&text).map_err(|source| Error::RankResult { source })?);
    }
    all.sort();
    Ok(all.into_iter().map(|(row, warning)| Damage { file: files[row].clone(), warning }).collect())
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
fn judge(request: &ReproduceRequest, split: &Split, evaluations: &[Evaluation]) -> (Vec<PublishedComparison>, Verdict) {
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
                comparisons.push(PublishedComparison::new(evaluation, &table));
            }
        }
    }
    if comparisons.is_empty() && !sizes.is_empty() {
        return not_compared(format!("the published results have other sizes: {}", sizes.join(", ")));
    }
    let verdict = compare::decide(&mut comparisons, request.tolerance);
    (comparisons, verdict)
}
