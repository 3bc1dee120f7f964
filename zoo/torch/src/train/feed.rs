//! The batches of an epoch, from files or from kept features.

use std::time::Duration;

use laps::TrainRequest;

use super::{Captions, Images, Pairs, features::Features, samples::Samples};
use crate::{Result, train::EpochOrder};
use laps_data::{Augment, DataError, Loader, LoaderOptions, Tokenizer, image::Preprocessing};
use laps_model::array::Array;

/// Batches that are decoded ahead of the step.
const AHEAD: usize = 2;

/// Hands out the batches of the rest of an epoch, in order.
pub(super) struct Feed<'a> {
    samples: &'a Samples,
    tokenizer: &'a Tokenizer,
    words: Option<Augment>,
    from: From<'a>,
    waited: Duration,
    /// Number of the next caption within the epoch.
    next: usize,
}

enum From<'a> {
    Features(&'a Features),
    Files(Loader),
}

/// Where the batches of an epoch come from.
pub(super) enum Source<'a> {
    /// Kept features.
    Features(&'a Features),
    /// Files, with what is done to images and to captions.
    Files {
        /// Random crops.
        crops: Option<Augment>,
        /// Random changes of words.
        words: Option<Augment>,
    },
}

/// Captions with their images.
pub(super) struct Batch<'a> {
    ids: Vec<u64>,
    captions: &'a [usize],
    contents: Contents<'a>,
}

enum Contents<'a> {
    Features(&'a Features),
    Files { pixels: Array, tokens: Vec<Vec<u32>> },
}

impl<'a> Feed<'a> {
    /// The batches of an order from number `batch` on.
    pub(super) fn start(
        request: &TrainRequest,
        (samples, tokenizer): (&'a Samples, &'a Tokenizer),
        (order, batch): (&EpochOrder, usize),
        source: Source<'a>,
    ) -> Result<Self> {
        let first = batch * order.batch_size();
        let (from, words) = match source {
            Source::Features(features) => (From::Features(features), None),
            Source::Files { crops, words } => {
                let files = order.from(batch).iter().map(|&caption| samples.split.image_of()[caption]);
                let files = files.map(|image| samples.files[image].clone()).collect();
                let options = LoaderOptions { batch: order.batch_size(), threads: request.threads, ahead: AHEAD };
                let preprocessing = Preprocessing::imagenet(request.entry.model.image.image_size());
                let crops = crops.map(|augment| (augment, first));
                (From::Files(Loader::start_with(files, preprocessing, options, crops)?), words)
            }
        };
        Ok(Self { samples, tokenizer, words, from, waited: Duration::ZERO, next: first })
    }

    /// The next batch, which is that of `captions`.
    pub(super) fn next<'b>(&mut self, captions: &'b [usize]) -> Result<Batch<'b>>
    where
        'a: 'b,
    {
        let ids = self.samples.ids(captions);
        let first = self.next;
        self.next += captions.len();
        let contents = match &mut self.from {
            From::Features(features) => Contents::Features(features),
            From::Files(loader) => {
                let batch = loader.next();
                self.waited = loader.stats().waiting;
                let lost = || DataError::Read(std::io::Error::other("the images of an epoch ended too early"));
                let pixels = batch.ok_or_else(lost)??.pixels;
                let tokens = (first..).zip(captions).map(|(number, &caption)| self.tokens(number, caption));
                Contents::Files { pixels, tokens: tokens.collect::<Result<_>>()? }
            }
        };
        Ok(Batch { ids, captions, contents })
    }

    fn tokens(&self, number: usize, caption: usize) -> Result<Vec<u32>> {
        let Some(augment) = self.words else { return Ok(self.samples.tokens[caption].clone()) };
        let pieces = self.tokenizer.pieces(&self.samples.split.captions()[caption])?;
        Ok(augment.tokens(number, &pieces, self.tokenizer.special(), self.tokenizer.entries()))
    }

    /// Time that was spent waiting for images so far.
    pub(super) fn waited(&self) -> Duration {
        self.waited
    }
}

impl Batch<'_> {
    /// Does `work` with the batch, cut into `parts`.
    pub(super) fn with_pairs<R>(&self, parts: usize, work: impl FnOnce(&[Pairs<'_>]) -> Result<R>) -> Result<R> {
        let size = self.ids.len() / parts.max(1);
        match &self.contents {
            Contents::Features(features) => {
                let mut pairs = Vec::with_capacity(parts);
                for (ids, captions) in self.ids.chunks(size).zip(self.captions.chunks(size)) {
                    let (images, captions) = features.batch(ids, captions)?;
                    pairs.push(Pairs { images, captions, ids });
                }
                work(&pairs)
            }
            Contents::Files { pixels, tokens } => {
                let tokens: Vec<&[u32]> = tokens.iter().map(Vec::as_slice).collect();
                let starts = (0..self.ids.len()).step_by(size.max(1));
                let pixels: Vec<Array> =
                    starts.map(|start| pixels.rows(start..start + size)).collect::<laps_model::Result<_>>()?;
                let chunks = pixels.iter().zip(tokens.chunks(size)).zip(self.ids.chunks(size));
                let pairs: Vec<Pairs<'_>> = chunks
                    .map(|((pixels, tokens), ids)| Pairs {
                        images: Images::Pixels(pixels),
                        captions: Captions::Tokens(tokens),
                        ids,
                    })
                    .collect();
                work(&pairs)
            }
        }
    }
}
