//! The batches of an epoch, from files or from kept features.

use std::time::Duration;

use super::{Captions, Images, Pairs, features::Features, run::Request, samples::Samples};
use crate::{
    Result,
    array::Array,
    data::{Augment, DataError, Loader, LoaderOptions, Tokenizer, image::Preprocessing},
};

/// Batches that are decoded ahead of the step.
const AHEAD: usize = 2;

/// Hands out the batches of the rest of an epoch, in order.
pub(super) struct Feed<'a> {
    samples: &'a Samples,
    tokenizer: &'a Tokenizer,
    augment: Option<Augment>,
    from: From<'a>,
    waited: Duration,
    /// Number of the next caption within the epoch.
    next: usize,
}

enum From<'a> {
    Features(&'a Features),
    Files(Loader),
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
    /// Captions in the order `order`, from number `first` on.
    pub(super) fn start(
        samples: &'a Samples,
        tokenizer: &'a Tokenizer,
        order: &[usize],
        first: usize,
        request: &Request,
        augment: Option<Augment>,
        features: Option<&'a Features>,
    ) -> Result<Self> {
        let from = match features {
            Some(features) => From::Features(features),
            None => {
                let rest = order.get(first..).unwrap_or_default();
                let files = rest.iter().map(|&caption| samples.files[samples.split.image_of()[caption]].clone());
                let batch = request.entry.train.batch_size;
                let options = LoaderOptions { batch, threads: request.threads, ahead: AHEAD };
                let preprocessing = Preprocessing::imagenet(request.entry.model.image.image_size());
                let augment = augment.map(|augment| (augment, first));
                From::Files(Loader::start_with(files.collect(), preprocessing, options, augment)?)
            }
        };
        Ok(Self { samples, tokenizer, augment, from, waited: Duration::ZERO, next: first })
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
        let Some(augment) = self.augment else { return Ok(self.samples.tokens[caption].clone()) };
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
                let pixels: Vec<Array> = starts.map(|start| pixels.rows(start..start + size)).collect::<Result<_>>()?;
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
