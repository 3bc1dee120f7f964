//! Images and captions through an encoder, in bounded memory.

use std::{
    num::NonZeroUsize,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

use super::SearchError;
use crate::{Error, Result};
use laps_align::similarity::AlignmentConfig;
use laps_data::{
    Batch, ImageFile, Loader, LoaderOptions, OnFault, SplitImage, Tokenizer,
    image::{ImageError, Preprocessing},
};
use laps_model::{
    array::Array,
    encoder::{Encoder, encode_by_length},
};

/// Batches of images that are decoded ahead of the encoder.
const AHEAD: usize = 3;

/// Captions whose embeddings are held at one time: enough that those of a batch are of about one length.
const TOGETHER: usize = 4096;

/// An encoder and how it is fed.
pub struct Encoding<'a> {
    /// What computes.
    pub encoder: &'a dyn Encoder,
    /// Sizes of what comes out.
    pub sizes: AlignmentConfig,
    /// What is done to an image.
    pub preprocessing: Preprocessing,
    /// What is done to a caption.
    pub tokenizer: &'a Tokenizer,
    /// Most tokens of a caption.
    pub longest: usize,
    /// Images, and captions, that are encoded together.
    pub batch: NonZeroUsize,
    /// Threads that decode images.
    pub threads: usize,
    /// Set from outside to end the work after the batch that it is at.
    pub stop: &'a AtomicBool,
    /// Told of images and captions that are done.
    pub progress: &'a dyn Fn(usize),
}

impl Encoding<'_> {
    /// Encodes images and hands the embeddings of each, `(tokens, width)`, to `each` in order, or what is wrong with it.
    ///
    /// # Errors
    /// [`SearchError::Interrupted`], those of the encoder, and those of `each`.
    pub fn images(
        &self,
        paths: Vec<PathBuf>,
        mut each: impl FnMut(usize, Result<&[f32], ImageError>) -> Result<()>,
    ) -> Result<()> {
        let file = |(row, path): (usize, PathBuf)| {
            let name = path.display().to_string();
            ImageFile { image: SplitImage { id: name.clone(), name, row: row + 1 }, path }
        };
        let files = paths.into_iter().enumerate().map(file).collect();
        let options = LoaderOptions { batch: self.batch.get(), threads: self.threads, ahead: AHEAD };
        for batch in Loader::start_on_fault(files, self.preprocessing, options, OnFault::Skip)? {
            let Batch { first, pixels, faults } = batch?;
            self.check_stop()?;
            let count = pixels.dims()[0];
            let pixels = without(pixels, faults.iter().map(|(index, _)| index - first))?;
            let images = pixels.dims()[0];
            let embeddings = if images == 0 { pixels } else { self.encoder.encode_images(&pixels)? };
            let mut rows = embeddings.values().chunks_exact((embeddings.values().len() / images.max(1)).max(1));
            let mut faults = faults.into_iter().peekable();
            for index in first..first + count {
                match faults.next_if(|&(fault, _)| fault == index) {
                    Some((_, cause)) => each(index, Err(cause))?,
                    None => each(index, Ok(rows.next().unwrap_or_default()))?,
                }
            }
            (self.progress)(count);
        }
        self.check_stop().map_err(Into::into)
    }

    /// Encodes a few images, each of which has to be usable: the embeddings of each, `(tokens, width)`.
    ///
    /// # Errors
    /// [`SearchError::Image`] for the first that can not be used, and as [`images`](Self::images).
    pub fn images_held(&self, paths: &[PathBuf]) -> Result<Vec<Array>> {
        let mut held = Vec::with_capacity(paths.len());
        self.images(paths.to_vec(), |index, embeddings| {
            let embeddings = embeddings.map_err(|cause| SearchError::Image { path: paths[index].clone(), cause })?;
            held.push(Array::new(&[self.sizes.tokens(), self.sizes.width], embeddings.to_vec())?);
            Ok(())
        })?;
        Ok(held)
    }

    /// Encodes a few captions: the embeddings of each, `(words, width)`.
    ///
    /// # Errors
    /// As [`tokens`](Self::tokens) and [`captions`](Self::captions).
    pub fn captions_held(&self, captions: &[String]) -> Result<Vec<Array>> {
        let mut held = Vec::with_capacity(captions.len());
        self.captions(&self.tokens(captions)?, |_, words| {
            held.push(words.clone());
            Ok(())
        })?;
        Ok(held)
    }

    /// The tokens of captions.
    ///
    /// # Errors
    /// [`DataError`](laps_data::DataError) for one that is too long, by its row.
    pub fn tokens(&self, captions: &[String]) -> Result<Vec<Vec<u32>>> {
        Ok(self.tokenizer.encode_all(captions, self.longest)?)
    }

    /// Encodes captions of [`tokens`](Self::tokens) and hands the embeddings of each, `(words, width)`, to `each` in order.
    ///
    /// # Errors
    /// [`SearchError::Interrupted`], those of the encoder, and those of `each`.
    pub fn captions(&self, tokens: &[Vec<u32>], mut each: impl FnMut(usize, &Array) -> Result<()>) -> Result<()> {
        for (number, part) in tokens.chunks(TOGETHER).enumerate() {
            let encoded = |count| {
                (self.progress)(count);
                self.check_stop().map_err(Error::from)
            };
            let words = encode_by_length(self.encoder, part, self.batch, encoded)?;
            for (index, words) in words.iter().enumerate() {
                each(number * TOGETHER + index, words)?;
            }
        }
        Ok(())
    }

    fn check_stop(&self) -> Result<(), SearchError> {
        match self.stop.load(Ordering::Relaxed) {
            true => Err(SearchError::Interrupted { state: "nothing was written".to_owned() }),
            false => Ok(()),
        }
    }
}

/// Pixels `(batch, ...)` without some of the images, in ascending order.
fn without(pixels: Array, mut faults: impl ExactSizeIterator<Item = usize>) -> Result<Array> {
    let [count, shape @ ..] = pixels.dims() else { return Ok(pixels) };
    if faults.len() == 0 {
        return Ok(pixels);
    }
    let sizes = [&[count - faults.len()], shape].concat();
    let size: usize = shape.iter().product();
    let mut values = Vec::with_capacity(sizes.iter().product());
    let mut fault = faults.next();
    for (index, image) in pixels.values().chunks_exact(size.max(1)).enumerate() {
        if fault == Some(index) {
            fault = faults.next();
        } else {
            values.extend_from_slice(image);
        }
    }
    Ok(Array::new(&sizes, values)?)
}
