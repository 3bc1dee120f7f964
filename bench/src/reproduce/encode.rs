//! Captions and images through the encoders, and images against captions.

use std::{
    ops::ControlFlow,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use laps_align::similarity::{CaptionMatrix, SimilarityEngine, Tile};
use laps_data::{Loader, LoaderOptions, image::Preprocessing};
use laps_hub::registry::DataPaths;
use laps_model::{
    array::Array,
    encoder::{Encoder, encode_by_length},
};

use super::{Request, inputs::Texts, log::Log, matrix::Matrix};
use crate::{Error, Result};

/// Batches of images that are decoded ahead of the encoder.
const AHEAD: usize = 3;

/// Encodes captions of about the same length together, so that little is padded. `interrupted` is the error if `stop` is set
/// meanwhile.
pub(super) fn encode_captions(
    request: &Request,
    encoder: &dyn Encoder,
    tokens: &[Vec<u32>],
    (stop, interrupted): (&AtomicBool, &dyn Fn() -> Error),
    log: &mut Log<'_>,
) -> Result<CaptionMatrix> {
    log.follow("encode captions", tokens.len(), "captions", |progress| {
        let words = encode_by_length(encoder, tokens, request.batch_size, |count| {
            progress.advance(count);
            if stop.load(Ordering::Relaxed) { Err(interrupted()) } else { Ok(()) }
        })?;
        let mut captions = CaptionMatrix::new(request.entry.model.embed_size);
        for embeddings in words {
            captions.push(embeddings.dims(), embeddings.values())?;
        }
        Ok(captions)
    })
}

/// Encodes each image once, a block at a time, and scores the block against every caption, so that the embeddings of no
/// more than a block of images are held. Images whose rows are in `matrix` already are not looked at.
pub(super) struct Scoring<'a> {
    pub(super) request: &'a Request,
    pub(super) encoder: &'a dyn Encoder,
    pub(super) engine: &'a dyn SimilarityEngine,
    pub(super) captions: &'a CaptionMatrix,
    pub(super) texts: &'a Texts,
    pub(super) paths: &'a DataPaths,
    /// Set from outside to end the work: within a batch of images, or a tile of the engine.
    pub(super) stop: &'a AtomicBool,
}

impl Scoring<'_> {
    /// Computes what `matrix` lacks.
    pub(super) fn run(&self, matrix: &mut Matrix, log: &mut Log<'_>) -> Result<()> {
        let Self { request, texts, captions, .. } = self;
        let missing = matrix.missing();
        let [blocks, before] = [matrix.blocks(), matrix.blocks() - missing.len()];
        let all = texts.split.image_files(&self.paths.images);
        let files: Vec<_> = missing.iter().flat_map(|block| &all[block.images.clone()]).cloned().collect();
        let images = files.len();
        if images < all.len() {
            log.notes.push(format!("{} images were encoded and scored by an earlier run", all.len() - images));
        }
        let preprocessing = Preprocessing::imagenet(request.entry.model.image.image_size());
        let options = LoaderOptions { batch: request.batch_size.get(), threads: request.threads, ahead: AHEAD };
        let mut loader = Loader::start(files, preprocessing, options)?;
        let [mut encoding, mut scoring] = [Duration::ZERO; 2];
        let mut held = Held::default();
        log.progress.begin("encode and score images", images);
        for (done, block) in missing.iter().enumerate() {
            // Blocks are whole batches, but for the last of the split.
            while held.images < block.images.len() {
                let Some(batch) = loader.next() else { break };
                let batch = batch?;
                if self.stop.load(Ordering::Relaxed) {
                    return Err(matrix.interrupted());
                }
                let began = Instant::now();
                held.push(&self.encoder.encode_images(&batch.pixels)?);
                encoding += began.elapsed();
                log.progress.advance(batch.pixels.dims()[0]);
            }
            let began = Instant::now();
            let Some(rows) = self.score(&held.take()?)? else { return Err(matrix.interrupted()) };
            scoring += began.elapsed();
            matrix.accept(block, &rows)?;
            if matrix.is_kept() {
                log.progress.saved(before + done + 1, blocks);
            }
        }
        log.progress.end(&format!("{images} images against {} captions", captions.len()));
        log.add("wait for images", images, "images", loader.stats().waiting);
        log.add("encode images", images, "images", encoding);
        log.add("score", images * captions.len(), "pairs", scoring);
        Ok(())
    }

    /// Similarities of some images with all captions, `(images, captions)`; nothing if it was stopped.
    fn score(&self, images: &Array) -> Result<Option<Vec<f32>>> {
        let columns = self.captions.len();
        let plan = self.engine.plan(images.dims()[0], self.captions)?;
        let mut rows = vec![0.0; plan.images * columns];
        let mut sink = |tile: &Tile, similarities: &[f32]| {
            tile.place(similarities, columns, &mut rows);
            let stopped = self.stop.load(Ordering::Relaxed);
            Ok(if stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        };
        let outcome = self.engine.run(images, self.captions, &plan, &mut sink)?;
        Ok(outcome.finished.then_some(rows))
    }
}

/// Embeddings of consecutive images.
#[derive(Default)]
struct Held {
    values: Vec<f32>,
    images: usize,
    /// Sizes of one image's embeddings.
    shape: Vec<usize>,
}

impl Held {
    fn push(&mut self, embeddings: &Array) {
        if let [images, shape @ ..] = embeddings.dims() {
            self.images += images;
            self.shape = shape.to_vec();
        }
        self.values.extend_from_slice(embeddings.values());
    }

    /// `(images, tokens, width)`; nothing is held afterwards.
    fn take(&mut self) -> Result<Array> {
        let Self { values, images, shape } = std::mem::take(self);
        Ok(Array::new(&[&[images], &shape[..]].concat(), values)?)
    }
}
