//! The batches of an epoch, from files or from cached features.

use std::time::{Duration, Instant};

use laps::TrainRequest;

use super::{
    CaptionInputs, ImageInputs, PairBatch, distribution::RankRows, features::BackboneFeatures, sampler::EpochOrder,
    split::TokenizedSplit,
};
use crate::Result;
use laps_data::{Augment, DataError, Loader, LoaderOptions, Tokenizer, image::Preprocessing};
use laps_model::array::Array;

/// Batches that are decoded ahead of the training step.
const PREFETCH: usize = 2;

/// Loads the rows of this rank of the remaining batches of an epoch, in order.
pub(super) struct EpochBatches<'a> {
    split: &'a TokenizedSplit,
    tokenizer: &'a Tokenizer,
    word_augment: Option<Augment>,
    input: Input<'a>,
    rows: RankRows,
    waited: Duration,
    /// Number of the next caption within the epoch.
    next: usize,
    max_positions: usize,
}

enum Input<'a> {
    Features(&'a BackboneFeatures),
    Files(Loader),
}

/// Source of the batches of an epoch.
pub(super) enum BatchSource<'a> {
    /// Cached features of frozen backbones.
    Features(&'a BackboneFeatures),
    /// Image files and captions, with their augmentation.
    Files {
        /// Random crops of the images.
        image_augment: Option<Augment>,
        /// Random changes of words.
        word_augment: Option<Augment>,
    },
}

/// The rows of this rank of a batch: captions with their images.
pub(super) struct LoadedBatch {
    image_ids: Vec<u64>,
    inputs: LoadedInputs,
}

enum LoadedInputs {
    /// Features `(images, tokens, hidden)` and `(words, hidden)`, and the words of each caption.
    Features {
        images: Array,
        words: Array,
        lengths: Vec<usize>,
    },
    Files {
        pixels: Array,
        input_ids: Vec<Vec<u32>>,
    },
}

impl<'a> EpochBatches<'a> {
    /// Starts loading the batches of `order` from number `first_batch` on.
    pub(super) fn start(
        request: &TrainRequest,
        split: &'a TokenizedSplit,
        tokenizer: &'a Tokenizer,
        order: &EpochOrder,
        first_batch: usize,
        source: BatchSource<'a>,
        rows: RankRows,
    ) -> Result<Self> {
        let first = first_batch * order.batch_size();
        let (input, word_augment) = match source {
            BatchSource::Features(features) => (Input::Features(features), None),
            BatchSource::Files { image_augment, word_augment } => {
                let remaining = order.from(first_batch);
                let positions = || rows.positions(remaining.len());
                let images = positions().map(|position| split.split.image_of()[remaining[position]]);
                let files = images.map(|image| split.files[image].clone()).collect();
                let batch_size = rows.count(order.batch_size());
                let options = LoaderOptions { batch_size, threads: request.threads, prefetch: PREFETCH };
                let preprocessing = Preprocessing::of(&request.entry.model.image);
                let samples = || positions().map(|position| first + position).collect();
                let augment = image_augment.map(|augment| (augment, samples()));
                (Input::Files(Loader::start_with(files, preprocessing, options, augment)?), word_augment)
            }
        };
        let max_positions = request.entry.model.text.max_position_embeddings;
        Ok(Self { split, tokenizer, word_augment, input, rows, waited: Duration::ZERO, next: first, max_positions })
    }

    /// The next batch. `batch` are all of its captions in the epoch's order.
    pub(super) fn next(&mut self, batch: &[usize]) -> Result<LoadedBatch> {
        let positions: Vec<usize> = self.rows.positions(batch.len()).collect();
        let captions: Vec<usize> = positions.iter().map(|&position| batch[position]).collect();
        let image_ids = self.split.image_ids(&captions);
        let first = self.next;
        self.next += batch.len();
        let inputs = match &mut self.input {
            Input::Features(features) => {
                let started = Instant::now();
                let images = features.images(image_ids.iter().map(|&id| id as usize))?;
                let (words, lengths) = features.words(captions.iter().copied())?;
                self.waited += started.elapsed();
                LoadedInputs::Features { images, words, lengths }
            }
            Input::Files(loader) => {
                let loaded = loader.next();
                self.waited = loader.stats().waiting;
                let ended = || DataError::Read(std::io::Error::other("the images of an epoch ended too early"));
                let pixels = loaded.ok_or_else(ended)??.pixels;
                let numbered = positions.iter().zip(&captions);
                let input_ids = numbered.map(|(position, &caption)| self.input_ids(first + position, caption));
                LoadedInputs::Files { pixels, input_ids: input_ids.collect::<Result<_>>()? }
            }
        };
        Ok(LoadedBatch { image_ids, inputs })
    }

    fn input_ids(&self, number: usize, caption: usize) -> Result<Vec<u32>> {
        let Some(augment) = self.word_augment else { return Ok(self.split.input_ids[caption].clone()) };
        let pieces = self.tokenizer.pieces(&self.split.split.captions()[caption])?;
        let mut tokens = augment.tokens(number, &pieces, self.tokenizer.special(), self.tokenizer.entries());
        self.tokenizer.truncate(&mut tokens, self.max_positions);
        Ok(tokens)
    }

    /// Time spent waiting for images, or reading features, so far.
    pub(super) fn waited(&self) -> Duration {
        self.waited
    }
}

impl LoadedBatch {
    /// Calls `consume` with the batch, split into `parts` equal parts.
    pub(super) fn with_parts<R>(&self, parts: usize, consume: impl FnOnce(&[PairBatch<'_>]) -> Result<R>) -> Result<R> {
        let size = self.image_ids.len() / parts.max(1);
        match &self.inputs {
            LoadedInputs::Features { images, words, lengths } => {
                let mut batches = Vec::with_capacity(parts);
                let (mut first, mut first_word) = (0, 0);
                for (image_ids, lengths) in self.image_ids.chunks(size).zip(lengths.chunks(size)) {
                    let (end, end_word) = (first + image_ids.len(), first_word + lengths.iter().sum::<usize>());
                    let words = words.rows(first_word..end_word)?;
                    batches.push(PairBatch {
                        images: ImageInputs::Features(images.rows(first..end)?),
                        captions: CaptionInputs::Features(words, lengths.to_vec()),
                        image_ids,
                    });
                    (first, first_word) = (end, end_word);
                }
                consume(&batches)
            }
            LoadedInputs::Files { pixels, input_ids } => {
                let input_ids: Vec<&[u32]> = input_ids.iter().map(Vec::as_slice).collect();
                let starts = (0..self.image_ids.len()).step_by(size.max(1));
                let pixels: Vec<Array> =
                    starts.map(|start| pixels.rows(start..start + size)).collect::<laps_model::Result<_>>()?;
                let chunks = pixels.iter().zip(input_ids.chunks(size)).zip(self.image_ids.chunks(size));
                let batches: Vec<PairBatch<'_>> = chunks
                    .map(|((pixels, input_ids), image_ids)| PairBatch {
                        images: ImageInputs::Pixels(pixels),
                        captions: CaptionInputs::Tokens(input_ids),
                        image_ids,
                    })
                    .collect();
                consume(&batches)
            }
        }
    }
}
