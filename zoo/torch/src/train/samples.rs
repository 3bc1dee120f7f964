//! The samples of a split: captions with their images.

use std::{io, ops::Range, path::Path};

use crate::Result;
use laps::TrainRequest;
use laps_align::CaptionImages;
use laps_data::{DataError, ImageFault, ImageFile, Split, Tokenizer};

/// A split, tokenised.
pub(super) struct Samples {
    pub(super) split: Split,
    pub(super) files: Vec<ImageFile>,
    /// Tokens of each caption.
    pub(super) tokens: Vec<Vec<u32>>,
    pub(super) images: CaptionImages,
}

impl Samples {
    /// Reads a split and sees that its captions fit the model and that its images are there.
    pub(super) fn open(request: &TrainRequest, tokenizer: &Tokenizer, name: &str) -> Result<Self> {
        let text = &request.entry.model.text;
        let split = Split::open(&request.paths.captions, name)?;
        let tokens = tokenizer.encode_all(split.captions(), text.max_position_embeddings)?;
        let files = split.image_files(&request.paths.images);
        check_files(&files)?;
        let images = CaptionImages::new(split.images().len(), split.image_of())?;
        Ok(Self { files, tokens, images, split })
    }

    /// The images of some captions.
    pub(super) fn ids(&self, captions: &[usize]) -> Vec<u64> {
        captions.iter().map(|&caption| self.split.image_of()[caption] as u64).collect()
    }

    /// Where the words of each caption are, one caption after another.
    pub(super) fn spans(&self) -> Vec<Range<usize>> {
        let mut start = 0;
        let span = |tokens: &Vec<u32>| {
            let begin = start;
            start += tokens.len();
            begin..start
        };
        self.tokens.iter().map(span).collect()
    }
}

/// Looks for all files before any work is done; what they hold is seen when they are decoded.
fn check_files(files: &[ImageFile]) -> Result<()> {
    let missing = |file: &&ImageFile| !Path::is_file(&file.path);
    let faults: Vec<ImageFault> = files
        .iter()
        .filter(missing)
        .map(|ImageFile { image, path }| ImageFault {
            id: image.id.clone(),
            row: image.row,
            path: path.clone(),
            cause: io::Error::from(io::ErrorKind::NotFound).into(),
        })
        .collect();
    if faults.is_empty() { Ok(()) } else { Err(DataError::Images { checked: files.len(), faults }.into()) }
}
