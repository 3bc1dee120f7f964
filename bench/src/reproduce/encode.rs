//! Captions and images through the encoders, and images against captions.

use std::time::{Duration, Instant};

use zoo::{
    array::Array,
    data::{Loader, LoaderOptions, image::Preprocessing},
    encoder::Encoder,
    registry::DataPaths,
    retrieval::similarity::CaptionMatrix,
};

use super::{Request, inputs::Texts, log::Log};
use crate::{Result, similarity::SimilarityEngine};

/// Images whose similarities are computed together: enough for every thread, few enough to hold.
const BLOCK: usize = 64;
/// Batches of images that are decoded ahead of the encoder.
const AHEAD: usize = 3;

/// Encodes captions of about the same length together, so that little is padded.
pub(super) fn encode_captions(
    request: &Request,
    encoder: &dyn Encoder,
    tokens: &[Vec<u32>],
    log: &mut Log<'_>,
) -> Result<CaptionMatrix> {
    let mut order: Vec<usize> = (0..tokens.len()).collect();
    order.sort_by_key(|&index| tokens[index].len());
    log.follow("encode captions", tokens.len(), "captions", |progress| {
        let mut words: Vec<Option<Array>> = vec![None; tokens.len()];
        for batch in order.chunks(request.batch_size.get()) {
            let rows: Vec<&[u32]> = batch.iter().map(|&index| tokens[index].as_slice()).collect();
            for (&index, embeddings) in batch.iter().zip(encoder.encode_captions(&rows)?) {
                words[index] = Some(embeddings);
            }
            progress.advance(batch.len());
        }
        let mut captions = CaptionMatrix::new(request.entry.model.embed_size);
        for embeddings in words.into_iter().flatten() {
            captions.push(embeddings.dims(), embeddings.values())?;
        }
        Ok(captions)
    })
}

/// Encodes each image once, a block at a time, and scores the block against every caption, so that the embeddings of no
/// more than a block of images are held. Gives the matrix `(images, captions)`.
pub(super) fn score(
    request: &Request,
    (encoder, engine): (&dyn Encoder, &SimilarityEngine),
    captions: &CaptionMatrix,
    texts: &Texts,
    paths: &DataPaths,
    log: &mut Log<'_>,
) -> Result<Array> {
    let files = texts.split.image_files(&paths.images);
    let images = files.len();
    let preprocessing = Preprocessing::imagenet(request.entry.model.image.image_size());
    let options = LoaderOptions { batch: request.batch_size.get(), threads: request.threads, ahead: AHEAD };
    let mut loader = Loader::start(files, preprocessing, options)?;
    let mut similarities = Vec::with_capacity(images * captions.len());
    let [mut encoding, mut scoring] = [Duration::ZERO; 2];
    let mut block = Block::default();
    log.progress.begin("encode and score images", images);
    for batch in loader.by_ref() {
        let batch = batch?;
        let began = Instant::now();
        block.push(&encoder.encode_images(&batch.pixels)?);
        encoding += began.elapsed();
        if block.images >= BLOCK || batch.first + batch.pixels.dims()[0] == images {
            let began = Instant::now();
            similarities.extend_from_slice(engine.similarities(&block.take()?, captions)?.values());
            scoring += began.elapsed();
        }
        log.progress.advance(batch.pixels.dims()[0]);
    }
    log.progress.end(&format!("{images} images against {} captions", captions.len()));
    log.add("wait for images", images, "images", loader.stats().waiting);
    log.add("encode images", images, "images", encoding);
    log.add("score", images * captions.len(), "pairs", scoring);
    Ok(Array::new(&[images, captions.len()], similarities)?)
}

/// Embeddings of consecutive images.
#[derive(Default)]
struct Block {
    values: Vec<f32>,
    images: usize,
    /// Sizes of one image's embeddings.
    shape: Vec<usize>,
}

impl Block {
    fn push(&mut self, embeddings: &Array) {
        if let [images, shape @ ..] = embeddings.dims() {
            self.images += images;
            self.shape = shape.to_vec();
        }
        self.values.extend_from_slice(embeddings.values());
    }

    /// `(images, tokens, width)`; the block is empty afterwards.
    fn take(&mut self) -> Result<Array> {
        let Self { values, images, shape } = std::mem::take(self);
        Ok(Array::new(&[&[images], &shape[..]].concat(), values)?)
    }
}
