//! Images and captions through an encoder, in bounded memory.

use std::{
    num::NonZeroUsize,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

use super::{
    CaptionLine, IndexKind, SearchError, SkippedItem,
    pool::{ItemPooling, pool},
};
use crate::{Error, Result};
use laps_data::{
    CaptionError, ExifOrientation, FileLine, ImageBatch, ImageFile, Loader, LoaderOptions, OnFault, SplitImage,
    Tokenizer,
    image::{ImageError, Preprocessing},
};
use laps_files::path_to_text;
use laps_model::{
    array::Array,
    encoder::{Encoder, encode_by_length},
    heads::HeadSizes,
};

/// Batches of images that are decoded ahead of the encoder.
const PREFETCH: usize = 3;

/// Captions whose embeddings are in memory at once. It is large, so that the captions of a batch have similar lengths.
const CAPTION_CHUNK: usize = 4096;

/// An encoder with its preprocessing, tokenizer and batch size.
pub struct EmbeddingPipeline<'a> {
    /// The encoder.
    pub encoder: &'a dyn Encoder,
    /// Sizes of the embeddings that `encoder` returns.
    pub sizes: HeadSizes,
    /// Image preprocessing.
    pub preprocessing: Preprocessing,
    /// Caption tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Maximum number of tokens of a caption.
    pub max_tokens: usize,
    /// Images or captions of a batch.
    pub batch_size: NonZeroUsize,
    /// Threads that decode images.
    pub threads: usize,
    /// Set by the caller to stop after the current batch.
    pub stop: &'a AtomicBool,
    /// Receives the number of images or captions of each finished batch.
    pub progress: &'a dyn Fn(usize),
}

/// An encoded image.
pub struct EncodedImage<'a> {
    /// Its embeddings `(tokens, dim)`.
    pub embeddings: &'a [f32],
    /// The decoder's warning, if the image was decoded in part.
    pub damage: Option<String>,
}

/// Captions, without those that are too long.
#[derive(Default)]
pub struct UsableCaptions<'a> {
    /// Those that are not too long.
    pub lines: Vec<&'a CaptionLine>,
    /// Their `input_ids`.
    pub tokens: Vec<Vec<u32>>,
    /// The captions that are too long.
    pub skipped: Vec<SkippedItem>,
}

impl EmbeddingPipeline<'_> {
    /// Encodes images. Calls `consume` for each in order, with its index and its embeddings or the error of decoding it.
    ///
    /// # Errors
    /// [`SearchError::Interrupted`], and the errors of the encoder and of `consume`.
    pub fn for_each_image(
        &self,
        paths: Vec<PathBuf>,
        orientation: ExifOrientation,
        mut consume: impl FnMut(usize, Result<EncodedImage<'_>, ImageError>) -> Result<()>,
    ) -> Result<()> {
        let file = |(index, path): (usize, PathBuf)| {
            let name = path_to_text(&path);
            let line = FileLine { file: None, line: index + 1 };
            ImageFile { image: SplitImage { id: name.clone(), name, line }, path }
        };
        let files = paths.into_iter().enumerate().map(file).collect();
        let options = LoaderOptions { batch_size: self.batch_size.get(), threads: self.threads, prefetch: PREFETCH };
        for batch in Loader::start_on_fault(files, self.preprocessing, options, OnFault::Skip, orientation)? {
            let ImageBatch { first, pixels, faults, damaged } = batch?;
            self.check_stop()?;
            let count = pixels.dims()[0];
            let pixels = remove_images(pixels, faults.iter().map(|(index, _)| index - first))?;
            let images = pixels.dims()[0];
            let embeddings = if images == 0 { pixels } else { self.encoder.encode_images(&pixels)? };
            let mut rows = embeddings.values().chunks_exact((embeddings.values().len() / images.max(1)).max(1));
            let mut faults = faults.into_iter().peekable();
            let mut damaged = damaged.into_iter().peekable();
            for index in first..first + count {
                let image = match faults.next_if(|&(fault, _)| fault == index) {
                    Some((_, cause)) => Err(cause),
                    None => Ok(EncodedImage {
                        embeddings: rows.next().unwrap_or_default(),
                        damage: damaged.next_if(|&(damaged, _)| damaged == index).map(|(_, warning)| warning),
                    }),
                };
                consume(index, image)?;
            }
            (self.progress)(count);
        }
        self.check_stop().map_err(Into::into)
    }

    /// Encodes a few images: the embeddings `(tokens, dim)` of each.
    ///
    /// # Errors
    /// [`SearchError::Image`] for the first image that cannot be used, [`SearchError::Interrupted`], and the errors of the
    /// encoder.
    pub fn encode_images(&self, paths: &[PathBuf], orientation: ExifOrientation) -> Result<Vec<Array>> {
        let mut encoded = Vec::with_capacity(paths.len());
        self.for_each_image(paths.to_vec(), orientation, |index, image| {
            let image = image.map_err(|cause| SearchError::Image { path: paths[index].clone(), cause })?;
            encoded.push(self.image_array(image.embeddings)?);
            Ok(())
        })?;
        Ok(encoded)
    }

    /// As [`encode_images`](Self::encode_images), but skips images that cannot be used, and lists them.
    ///
    /// # Errors
    /// [`SearchError::Interrupted`], and the errors of the encoder.
    pub fn encode_usable_images(&self, paths: &[PathBuf]) -> Result<(Vec<Array>, Vec<SkippedItem>)> {
        let (mut encoded, mut skipped) = (Vec::with_capacity(paths.len()), Vec::new());
        self.for_each_image(paths.to_vec(), ExifOrientation::Ignore, |index, image| {
            match image {
                Ok(image) => encoded.push(self.image_array(image.embeddings)?),
                Err(cause) => {
                    let name = path_to_text(&paths[index]);
                    skipped.push(SkippedItem { name, line: None, reason: cause.to_string() });
                }
            }
            Ok(())
        })?;
        Ok((encoded, skipped))
    }

    /// Encodes preprocessed images `(3, size, size)`: the embeddings `(tokens, dim)` of each.
    ///
    /// # Errors
    /// [`SearchError::Interrupted`], and the errors of the encoder.
    pub fn encode_pixels(&self, images: &[Vec<f32>]) -> Result<Vec<Array>> {
        let size = self.preprocessing.size;
        let mut encoded = Vec::with_capacity(images.len());
        for batch in images.chunks(self.batch_size.get()) {
            let pixels = Array::new(&[batch.len(), 3, size, size], batch.concat())?;
            let embeddings = self.encoder.encode_images(&pixels)?;
            let rows = embeddings.values().chunks_exact(self.sizes.tokens * self.sizes.width);
            encoded.extend(rows.map(|values| self.image_array(values)).collect::<Result<Vec<_>>>()?);
            (self.progress)(batch.len());
            self.check_stop()?;
        }
        Ok(encoded)
    }

    /// The vector `(dim)` by which candidates are selected, of the embeddings of an item of `kind`.
    pub fn pool(&self, kind: IndexKind, embeddings: &[f32]) -> Vec<f32> {
        let pooling = ItemPooling::of(kind, self.sizes.has_class_token);
        pool(embeddings, self.sizes.width, pooling)
    }

    fn image_array(&self, embeddings: &[f32]) -> Result<Array> {
        Ok(Array::new(&[self.sizes.tokens, self.sizes.width], embeddings.to_vec())?)
    }

    /// Encodes a few captions: the embeddings `(words, dim)` of each.
    ///
    /// # Errors
    /// [`DataError`](laps_data::DataError) for a caption that is too long, [`SearchError::Interrupted`], and the errors of
    /// the encoder.
    pub fn encode_captions(&self, captions: &[String]) -> Result<Vec<Array>> {
        self.encode_input_ids(&self.tokenize(captions)?)
    }

    /// Encodes tokenized captions: the embeddings `(words, dim)` of each.
    ///
    /// # Errors
    /// [`SearchError::Interrupted`], and the errors of the encoder.
    pub fn encode_input_ids(&self, input_ids: &[Vec<u32>]) -> Result<Vec<Array>> {
        let mut encoded = Vec::with_capacity(input_ids.len());
        self.for_each_caption(input_ids, |_, words| {
            encoded.push(words.clone());
            Ok(())
        })?;
        Ok(encoded)
    }

    /// As [`encode_captions`](Self::encode_captions), but skips captions that are too long, and lists them.
    ///
    /// # Errors
    /// [`SearchError::Interrupted`], and the errors of the encoder.
    pub fn encode_usable_captions(&self, captions: &[CaptionLine]) -> Result<(Vec<Array>, Vec<SkippedItem>)> {
        let UsableCaptions { tokens, skipped, .. } = self.tokenize_usable(captions)?;
        Ok((self.encode_input_ids(&tokens)?, skipped))
    }

    /// The captions that are not too long with their `input_ids`, and the others.
    ///
    /// # Errors
    /// [`DataError`](laps_data::DataError) of the tokenizer.
    pub fn tokenize_usable<'b>(&self, captions: &'b [CaptionLine]) -> Result<UsableCaptions<'b>> {
        let texts: Vec<&str> = captions.iter().map(|caption| caption.text.as_str()).collect();
        let encoded = self.tokenizer.encode_each(&texts, self.max_tokens)?;
        let mut usable = UsableCaptions::default();
        for (caption, tokens) in captions.iter().zip(encoded) {
            if let Some(cause) = CaptionError::of_length(tokens.len(), self.max_tokens) {
                let (name, reason) = (caption.file.clone(), cause.to_string());
                usable.skipped.push(SkippedItem { name, line: Some(caption.line), reason });
            } else {
                usable.lines.push(caption);
                usable.tokens.push(tokens);
            }
        }
        Ok(usable)
    }

    /// The `input_ids` of captions.
    ///
    /// # Errors
    /// [`DataError`](laps_data::DataError) with the number of every caption that is too long.
    pub fn tokenize(&self, captions: &[String]) -> Result<Vec<Vec<u32>>> {
        Ok(self.tokenizer.encode_all(captions, self.max_tokens)?)
    }

    /// Encodes tokenized captions. Calls `consume` for each in order, with its index and its embeddings `(words, dim)`.
    ///
    /// # Errors
    /// [`SearchError::Interrupted`], and the errors of the encoder and of `consume`.
    pub fn for_each_caption(
        &self,
        input_ids: &[Vec<u32>],
        mut consume: impl FnMut(usize, &Array) -> Result<()>,
    ) -> Result<()> {
        for (number, chunk) in input_ids.chunks(CAPTION_CHUNK).enumerate() {
            let batch_done = |count| {
                (self.progress)(count);
                self.check_stop().map_err(Error::from)
            };
            let words = encode_by_length(self.encoder, chunk, self.batch_size, batch_done)?;
            for (index, words) in words.iter().enumerate() {
                consume(number * CAPTION_CHUNK + index, words)?;
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

/// Removes some images, given in ascending order, from pixels `(batch, ...)`.
fn remove_images(pixels: Array, mut removed: impl ExactSizeIterator<Item = usize>) -> Result<Array> {
    let [count, shape @ ..] = pixels.dims() else { return Ok(pixels) };
    if removed.len() == 0 {
        return Ok(pixels);
    }
    let sizes = [&[count - removed.len()], shape].concat();
    let size: usize = shape.iter().product();
    let mut values = Vec::with_capacity(sizes.iter().product());
    let mut next = removed.next();
    for (index, image) in pixels.values().chunks_exact(size.max(1)).enumerate() {
        if next == Some(index) {
            next = removed.next();
        } else {
            values.extend_from_slice(image);
        }
    }
    Ok(Array::new(&sizes, values)?)
}
