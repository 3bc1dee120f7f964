//! A tokenized data split.

use std::{io, path::Path};

use crate::Result;
use laps::TrainRequest;
use laps_align::CaptionImages;
use laps_data::{DataError, ImageFault, ImageFile, Split, Tokenizer, UnusableData};
use laps_model::{array::Array, encoder::pad_input_ids};

/// A data split with tokenized captions.
pub(super) struct TokenizedSplit {
    pub(super) split: Split,
    pub(super) files: Vec<ImageFile>,
    /// `input_ids` of each caption.
    pub(super) input_ids: Vec<Vec<u32>>,
    pub(super) images: CaptionImages,
}

impl TokenizedSplit {
    /// Reads a split and checks that its captions fit the model and that its image files exist.
    pub(super) fn open(request: &TrainRequest, tokenizer: &Tokenizer, name: &str) -> Result<Self> {
        let text = &request.entry.model.text;
        let split = Split::open(&request.paths.captions, name)?;
        let input_ids = split.tokenize(tokenizer, text.max_position_embeddings)?;
        let files = split.image_files(&request.paths.images);
        check_files(&files)?;
        let images = CaptionImages::new(split.images().len(), split.image_of())?;
        Ok(Self { files, input_ids, images, split })
    }

    /// Image ids of some captions.
    pub(super) fn image_ids(&self, captions: &[usize]) -> Vec<u64> {
        captions.iter().map(|&caption| self.split.image_of()[caption] as u64).collect()
    }

    /// Caption indices sorted by length and cut into batches of `size`, so that little is padded.
    pub(super) fn batches_by_length(&self, size: usize) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..self.input_ids.len()).collect();
        order.sort_by_key(|&caption| self.input_ids[caption].len());
        order.chunks(size).map(<[usize]>::to_vec).collect()
    }

    /// Padded `input_ids` and attention mask of some captions, both `(captions, length)`.
    pub(super) fn pad(&self, captions: &[usize]) -> Result<(Array, Array)> {
        let rows: Vec<&[u32]> = captions.iter().map(|&caption| self.input_ids[caption].as_slice()).collect();
        Ok(pad_input_ids(&rows)?)
    }
}

/// Checks that all files exist before the work begins. Their contents are checked when they are decoded.
fn check_files(files: &[ImageFile]) -> Result<()> {
    let missing = |file: &&ImageFile| !Path::is_file(&file.path);
    let faults: Vec<ImageFault> = files
        .iter()
        .filter(missing)
        .map(|ImageFile { image, path }| ImageFault {
            id: image.id.clone(),
            line: image.line.clone(),
            path: path.clone(),
            cause: io::Error::from(io::ErrorKind::NotFound).into(),
        })
        .collect();
    if faults.is_empty() {
        return Ok(());
    }
    let data = UnusableData { images: files.len(), image_faults: faults, ..UnusableData::default() };
    Err(DataError::Unusable(data.into()).into())
}
