//! Encoding of captions and images, and their similarities.

use std::{
    ops::ControlFlow,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use laps::{RankGroup, share};
use laps_align::similarity::{CaptionMatrix, SimilarityEngine, Tile};
use laps_data::{Damage, ImageFile, Loader, LoaderOptions, image::Preprocessing};
use laps_model::{
    array::Array,
    encoder::{Encoder, by_length},
};

use super::{
    ReproduceRequest,
    log::StageLog,
    matrix::SimilarityMatrix,
    result::{ENCODE_CAPTIONS, ENCODE_IMAGES, SCORE},
};
use crate::{Error, Result, progress::StageProgress};

/// Batches of images that the loader decodes ahead of the encoder.
pub(crate) const PREFETCH: usize = 3;

/// Encodes the captions in batches of similar length, which keeps padding short, or in the padded batches of the entry. The
/// ranks of a group share the batches.
/// Setting `stop` ends it with the error `interrupted`.
pub(super) fn encode_captions(
    request: &ReproduceRequest,
    encoder: &dyn Encoder,
    tokens: &[Vec<u32>],
    stop: &AtomicBool,
    interrupted: &dyn Fn() -> Error,
    log: &mut StageLog<'_>,
) -> Result<CaptionMatrix> {
    let group = request.group.as_ref();
    let padded_batch = request.entry.data.padded_batch;
    let order = match padded_batch {
        Some(_) => (0..tokens.len()).collect(),
        None => by_length(tokens),
    };
    let batches: Vec<&[usize]> = order.chunks(padded_batch.unwrap_or(request.batch_size).get()).collect();
    let shares: Vec<&[&[usize]]> =
        (0..group.world_size()).map(|rank| &batches[share(batches.len(), rank, group.world_size())]).collect();
    let own = shares[group.rank()];
    let own = log.run(ENCODE_CAPTIONS, own.iter().map(|batch| batch.len()).sum(), "captions", |progress| {
        let mut words = Vec::new();
        for batch in own {
            let rows: Vec<&[u32]> = batch.iter().map(|&caption| tokens[caption].as_slice()).collect();
            words.extend(match padded_batch {
                Some(_) => encoder.encode_padded(&rows)?,
                None => encoder.encode_captions(&rows)?,
            });
            progress.advance(batch.len());
            if stop.load(Ordering::Relaxed) {
                return Err(interrupted());
            }
        }
        Ok(words)
    })?;
    let words = match group.world_size() {
        1 => own,
        _ => gather_arrays(group, &own, request.entry.model.embed_size, &shares)?,
    };
    let mut by_caption: Vec<Option<Array>> = vec![None; tokens.len()];
    for (&caption, words) in order.iter().zip(words) {
        by_caption[caption] = Some(words);
    }
    let mut captions = CaptionMatrix::new(request.entry.model.embed_size);
    for embeddings in by_caption.into_iter().flatten() {
        captions.push(embeddings.dims(), embeddings.values())?;
    }
    Ok(captions)
}

/// The embeddings `(words, width)` of the captions of all ranks, in the order of the ranks.
fn gather_arrays(group: &dyn RankGroup, own: &[Array], width: usize, shares: &[&[&[usize]]]) -> Result<Vec<Array>> {
    let rows: Vec<u32> = own.iter().map(|array| array.dims()[0] as u32).collect();
    let counts: Vec<usize> = shares.iter().map(|share| share.iter().map(|batch| batch.len()).sum()).collect();
    let rows = group.all_gather_u32(&rows, &counts)?;
    let mut rest = rows.as_slice();
    let sizes = counts.into_iter().map(|count| {
        let (own, others) = rest.split_at(count);
        rest = others;
        own.iter().map(|&rows| rows as usize * width).sum()
    });
    let sizes: Vec<usize> = sizes.collect();
    let own: Vec<f32> = own.iter().flat_map(|array| array.values().iter().copied()).collect();
    let values = group.all_gather_f32(&own, &sizes)?;
    let mut start = 0;
    let arrays = rows.into_iter().map(|rows| {
        let end = start + rows as usize * width;
        let values = values[std::mem::replace(&mut start, end)..end].to_vec();
        Ok(Array::new(&[rows as usize, width], values)?)
    });
    arrays.collect()
}

/// Encodes each image once, block by block, and compares each block with every caption. Only the embeddings of one
/// block of images are in memory. Images whose rows are already in the matrix are skipped.
pub(super) struct ImageScorer<'a> {
    pub(super) request: &'a ReproduceRequest,
    pub(super) encoder: &'a dyn Encoder,
    pub(super) engine: &'a dyn SimilarityEngine,
    pub(super) captions: &'a CaptionMatrix,
    /// Set from outside to end the work within one batch of images or one tile of the engine.
    pub(super) stop: &'a AtomicBool,
}

impl ImageScorer<'_> {
    /// Computes the missing rows of `matrix` from `files`, the images of its missing blocks. Returns the images that were
    /// decoded in part.
    pub(super) fn run(
        &self,
        matrix: &mut SimilarityMatrix,
        files: Vec<ImageFile>,
        log: &mut StageLog<'_>,
    ) -> Result<Vec<Damage>> {
        let Self { request, captions, .. } = self;
        let missing = matrix.missing();
        let images = files.len();
        let mut damaged = Vec::new();
        let preprocessing = Preprocessing::of(&request.entry.model.image);
        let options =
            LoaderOptions { batch_size: request.batch_size.get(), threads: request.threads, prefetch: PREFETCH };
        let mut loader = Loader::start(files.clone(), preprocessing, options)?;
        let [mut encoding, mut scoring] = [Duration::ZERO; 2];
        let mut buffer = EmbeddingBuffer::default();
        let stage = StageProgress::begin(log.progress, "encode and score images", images);
        for block in &missing {
            // Blocks are whole batches, except for the last block of the split.
            while buffer.images < block.images.len() {
                let Some(batch) = loader.next() else { break };
                let batch = batch?;
                damaged.extend(
                    batch.damaged.into_iter().map(|(index, warning)| Damage { file: files[index].clone(), warning }),
                );
                if self.stop.load(Ordering::Relaxed) {
                    return Err(matrix.interrupted());
                }
                let began = Instant::now();
                buffer.push(&self.encoder.encode_images(&batch.pixels)?);
                encoding += began.elapsed();
                stage.advance(batch.pixels.dims()[0]);
            }
            let began = Instant::now();
            let Some(rows) = self.score(&buffer.take()?)? else { return Err(matrix.interrupted()) };
            scoring += began.elapsed();
            matrix.accept(&rows)?;
            if let Some(saved) = matrix.saved() {
                stage.saved(saved, matrix.blocks());
            }
        }
        stage.end(&format!("{images} images against {} captions", captions.len()));
        log.add("wait for images", images, "images", loader.stats().waiting);
        log.add(ENCODE_IMAGES, images, "images", encoding);
        log.add(SCORE, images * captions.len(), "pairs", scoring);
        Ok(damaged)
    }

    /// Similarities of a block of images with all captions, `(images, captions)`; `None` if it was stopped.
    fn score(&self, images: &Array) -> Result<Option<Vec<f32>>> {
        let columns = self.captions.len();
        let plan = self.engine.plan(images.dims()[0], self.captions)?;
        let mut rows = vec![0.0; plan.images * columns];
        let mut sink = |tile: &Tile, similarities: &[f32]| {
            tile.copy_to(similarities, columns, &mut rows);
            let stopped = self.stop.load(Ordering::Relaxed);
            Ok(if stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        };
        let outcome = self.engine.run(images, self.captions, &plan, &mut sink)?;
        Ok(outcome.finished.then_some(rows))
    }
}

/// Embeddings of consecutive batches of images.
#[derive(Default)]
struct EmbeddingBuffer {
    values: Vec<f32>,
    images: usize,
    /// Shape of one image's embeddings.
    shape: Vec<usize>,
}

impl EmbeddingBuffer {
    fn push(&mut self, embeddings: &Array) {
        if let [images, shape @ ..] = embeddings.dims() {
            self.images += images;
            self.shape = shape.to_vec();
        }
        self.values.extend_from_slice(embeddings.values());
    }

    /// The embeddings, `(images, tokens, width)`; empties the buffer.
    fn take(&mut self) -> Result<Array> {
        let Self { values, images, shape } = std::mem::take(self);
        Ok(Array::new(&[&[images], &shape[..]].concat(), values)?)
    }
}
