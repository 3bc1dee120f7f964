//! Captions and images that cannot be used.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::image::ImageError;

/// Maximum number of captions, and of images, that a message lists.
const MAX_LISTED: usize = 100;

/// A line of a text file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileLine {
    /// The file; None for what does not come from a file.
    pub file: Option<Arc<Path>>,
    /// The line, or the number of the item, counted from 1.
    pub line: usize,
}

/// The captions and images of a data set that cannot be used.
#[derive(Debug, Default)]
pub struct UnusableData {
    /// Number of captions checked.
    pub captions: usize,
    /// The captions that cannot be used, in order.
    pub caption_faults: Vec<CaptionFault>,
    /// Number of images checked.
    pub images: usize,
    /// The images that cannot be used, in order.
    pub image_faults: Vec<ImageFault>,
}

/// A caption that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptionFault {
    /// Where it is.
    pub line: FileLine,
    /// The reason.
    pub cause: CaptionError,
}

/// Why a caption cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaptionError {
    /// It has no words.
    #[error("empty")]
    Empty,
    /// It has more tokens than the model has positions.
    #[error("too long: {tokens} tokens, where {limit} are allowed")]
    TooLong {
        /// Number of tokens, with `[CLS]` and `[SEP]`.
        tokens: usize,
        /// Positions of the model.
        limit: usize,
    },
}

impl CaptionError {
    /// The fault of a caption of `tokens` tokens, where `limit` are allowed, if it has more.
    pub fn of_length(tokens: usize, limit: usize) -> Option<Self> {
        (tokens > limit).then_some(Self::TooLong { tokens, limit })
    }
}

/// An image that cannot be used.
#[derive(Debug)]
pub struct ImageFault {
    /// Its id.
    pub id: String,
    /// The first line of the file of image ids with it.
    pub line: FileLine,
    /// The file.
    pub path: PathBuf,
    /// The reason.
    pub cause: ImageError,
}

impl UnusableData {
    /// Hint for the user, if there is one.
    pub(crate) fn hint(&self) -> Option<String> {
        let is_too_long = |fault: &CaptionFault| matches!(fault.cause, CaptionError::TooLong { .. });
        if self.caption_faults.iter().any(is_too_long) {
            return Some("shorten or remove captions that are too long, or have them truncated and counted".to_owned());
        }
        self.image_faults.first().and_then(|fault| fault.cause.hint())
    }
}

impl fmt::Display for UnusableData {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { captions, caption_faults, images, image_faults } = self;
        let counts = [(caption_faults.len(), captions, "captions"), (image_faults.len(), images, "images")];
        let counts = counts.iter().filter(|(faults, ..)| *faults > 0);
        let counts: Vec<_> = counts.map(|(faults, checked, kind)| format!("{faults} of {checked} {kind}")).collect();
        write!(formatter, "{} cannot be used", counts.join(" and "))?;
        list(formatter, caption_faults.iter())?;
        list(formatter, image_faults.iter().map(|fault| format!("{fault}: {}", fault.cause)))
    }
}

/// One line for each item.
pub(crate) fn list<T: fmt::Display>(
    formatter: &mut fmt::Formatter<'_>,
    items: impl ExactSizeIterator<Item = T>,
) -> fmt::Result {
    let more = items.len().saturating_sub(MAX_LISTED);
    for item in items.take(MAX_LISTED) {
        write!(formatter, "\n  {item}")?;
    }
    if more > 0 { write!(formatter, "\n  and {more} more") } else { Ok(()) }
}

impl fmt::Display for CaptionFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line: FileLine { file, line }, cause } = self;
        match file {
            Some(file) => write!(formatter, "caption in line {line} of `{}`: {cause}", file.display()),
            None => write!(formatter, "caption {line}: {cause}"),
        }
    }
}

impl fmt::Display for ImageFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, line: FileLine { file, line }, path, .. } = self;
        write!(formatter, "image `{id}` (")?;
        if let Some(file) = file {
            write!(formatter, "line {line} of `{}`, file ", file.display())?;
        }
        write!(formatter, "`{}`)", path.display())
    }
}
