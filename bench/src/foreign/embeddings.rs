//! Embeddings of other programs.

use std::path::{Path, PathBuf};

use safetensors::SafeTensors;

use super::arrays::{ForeignArray, read_array, tensor};
use crate::{Error, Result};

/// Embeddings of images and captions.
#[derive(Clone, Debug)]
pub struct Embeddings {
    /// The file that messages name.
    pub(super) path: PathBuf,
    /// `(n, tokens, width)` or `(n, width)`.
    pub(super) images: ForeignArray,
    /// `(m, words, width)`, padded, or `(m, width)`.
    pub(super) captions: ForeignArray,
    /// Words of each caption.
    pub(super) lengths: Vec<usize>,
}

impl Embeddings {
    /// Reads one safetensors file with `images`, `captions` and, for padded captions, `lengths`; or two files of one array
    /// each, images first.
    ///
    /// # Errors
    /// [`Error::Foreign`] for arrays that are missing or do not fit each other.
    pub fn read(paths: &[PathBuf]) -> Result<Self> {
        let (path, images, captions, lengths) = match paths {
            [path] => {
                let bytes = fs_err::read(path).map_err(|source| Error::Read { path: path.clone(), source })?;
                let file = SafeTensors::deserialize(&bytes).map_err(|error| foreign(path, error.to_string()))?;
                let missing = ["images", "captions"].into_iter().find(|name| file.tensor(name).is_err());
                if let Some(missing) = missing {
                    let mut names: Vec<String> = file.names().iter().map(|name| format!("`{name}`")).collect();
                    names.sort();
                    names.truncate(8);
                    return Err(foreign(path, format!("no `{missing}`; {}", names.join(", "))));
                }
                let lengths = file.tensor("lengths").is_ok().then(|| tensor(path, &file, "lengths")).transpose()?;
                (path, tensor(path, &file, "images")?, tensor(path, &file, "captions")?, lengths)
            }
            [images, captions] => (images, read_array(images, None)?, read_array(captions, None)?, None),
            _ => {
                return Err(Error::Argument {
                    argument: "embeddings",
                    expected: "one safetensors file, or two files: images and captions".to_owned(),
                    found: format!("{} files", paths.len()),
                });
            }
        };
        let lengths = check(path, &images, &captions, lengths.as_ref())?;
        Ok(Self { path: path.clone(), images, captions, lengths })
    }

    /// Whether each image and each caption is one vector.
    pub(super) fn are_pooled(&self) -> bool {
        self.images.shape.len() == 2 && self.captions.shape.len() == 2
    }
}

/// Checks the shapes and values of all arrays; returns the lengths of the captions.
fn check(
    path: &Path,
    images: &ForeignArray,
    captions: &ForeignArray,
    lengths: Option<&ForeignArray>,
) -> Result<Vec<usize>> {
    for (name, array) in [("images", images), ("captions", captions)] {
        let is_usable = matches!(array.shape.len(), 2 | 3) && array.shape.iter().all(|&size| size > 0);
        if !is_usable {
            return Err(foreign(path, format!("`{name}` of shape {:?}", array.shape)));
        }
        if let Some(index) = array.values.iter().position(|value| !value.is_finite()) {
            // Padding may hold anything that is finite.
            let item = index / (array.values.len() / array.shape[0]);
            return Err(foreign(path, format!("`{name}` with a value that is not finite, in item {item} (from 0)")));
        }
    }
    if images.shape.last() != captions.shape.last() {
        return Err(foreign(path, format!("widths {:?} and {:?}", images.shape.last(), captions.shape.last())));
    }
    let count = captions.shape[0];
    let longest = if captions.shape.len() == 3 { captions.shape[1] } else { 1 };
    let Some(lengths) = lengths else { return Ok(vec![longest; count]) };
    if lengths.shape != [count] {
        return Err(foreign(path, format!("`lengths` of shape {:?} for {count} captions", lengths.shape)));
    }
    let wrong =
        lengths.values.iter().position(|&length| length < 1.0 || length > longest as f32 || length.fract() != 0.0);
    if let Some(caption) = wrong {
        let length = lengths.values[caption];
        return Err(foreign(path, format!("a length of {length} for caption {caption} (from 0), of {longest} words")));
    }
    Ok(lengths.values.iter().map(|&length| length as usize).collect())
}

fn foreign(path: &Path, found: String) -> Error {
    Error::Foreign {
        path: path.to_owned(),
        expected: "`images` (n, tokens, width) or (n, width), `captions` (m, words, width) or (m, width) of the same \
                   width, `lengths` (m) from 1 to words"
            .to_owned(),
        found,
        hint: "see the guide on results of other programs for the layout",
    }
}
