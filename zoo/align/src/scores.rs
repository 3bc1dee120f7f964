//! Read access to a similarity matrix.

use super::{RetrievalError, StoredScores};

/// A view of a similarity matrix, images x captions in row-major order, in memory or in a file.
#[derive(Clone, Copy, Debug)]
pub struct Scores<'a> {
    values: Values<'a>,
    images: usize,
    captions: usize,
}

#[derive(Clone, Copy, Debug)]
enum Values<'a> {
    Floats(&'a [f32]),
    LittleEndian(&'a [u8]),
    File(&'a StoredScores),
}

impl<'a> Scores<'a> {
    /// A matrix in memory: `values[image * captions + caption]`.
    ///
    /// # Errors
    /// [`RetrievalError::Size`] if the matrix is empty or the sizes contradict each other.
    pub fn new(values: &'a [f32], images: usize, captions: usize) -> Result<Self, RetrievalError> {
        check(values.len(), 1, "values", images, captions)?;
        Ok(Self { values: Values::Floats(values), images, captions })
    }

    /// A matrix of little-endian f32 at any alignment, for example the data of a safetensors file.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn from_bytes(bytes: &'a [u8], images: usize, captions: usize) -> Result<Self, RetrievalError> {
        check(bytes.len(), 4, "bytes", images, captions)?;
        Ok(Self { values: Values::LittleEndian(bytes), images, captions })
    }

    /// A matrix in a file, whose rows are read when they are needed.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn from_file(file: &'a StoredScores) -> Result<Self, RetrievalError> {
        let [images, captions] = [file.images(), file.captions()];
        check(images.saturating_mul(captions), 1, "values", images, captions)?;
        Ok(Self { values: Values::File(file), images, captions })
    }

    /// Number of rows.
    pub fn images(&self) -> usize {
        self.images
    }

    /// Number of columns.
    pub fn captions(&self) -> usize {
        self.captions
    }

    /// Similarity of one pair. Panics if an index is out of range.
    pub(super) fn get(&self, image: usize, caption: usize) -> Result<f32, RetrievalError> {
        let index = image * self.captions + caption;
        Ok(match self.values {
            Values::Floats(values) => values[index],
            Values::LittleEndian(bytes) => {
                f32::from_le_bytes([bytes[4 * index], bytes[4 * index + 1], bytes[4 * index + 2], bytes[4 * index + 3]])
            }
            Values::File(file) => {
                let mut value = [0.0];
                file.read(index, &mut value)?;
                value[0]
            }
        })
    }

    /// Similarities of an image, below [`images`](Self::images), to all captions. Values that need decoding are decoded into
    /// `buffer`.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn row<'b>(&self, image: usize, buffer: &'b mut Vec<f32>) -> Result<&'b [f32], RetrievalError>
    where
        'a: 'b,
    {
        let range = image * self.captions..(image + 1) * self.captions;
        Ok(match self.values {
            Values::Floats(values) => &values[range],
            Values::LittleEndian(bytes) => {
                let (words, _) = bytes[4 * range.start..4 * range.end].as_chunks::<4>();
                buffer.clear();
                buffer.extend(words.iter().map(|&word| f32::from_le_bytes(word)));
                buffer
            }
            Values::File(file) => {
                buffer.resize(range.len(), 0.0);
                file.read(range.start, buffer)?;
                buffer
            }
        })
    }
}

fn check(found: usize, size: usize, unit: &str, images: usize, captions: usize) -> Result<(), RetrievalError> {
    let expected = images.checked_mul(captions).and_then(|pairs| pairs.checked_mul(size));
    if images == 0 || captions == 0 {
        return Err(RetrievalError::Size {
            expected: "at least one image and one caption".to_owned(),
            found: format!("{images} images x {captions} captions"),
        });
    }
    if expected != Some(found) || u32::try_from(images.max(captions)).is_err() {
        return Err(RetrievalError::Size {
            expected: format!("{images} images x {captions} captions x {size} {unit}"),
            found: format!("{found} {unit}"),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Scores, StoredScores};

    #[test]
    fn bytes_and_files_read_as_floats_do() {
        let values: Vec<f32> = (0..12).map(|number| number as f32 * 0.37 - 1.0).collect();
        let mut bytes = vec![0_u8];
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        let floats = Scores::new(&values, 3, 4).unwrap();
        let mapped = Scores::from_bytes(&bytes[1..], 3, 4).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("matrix");
        fs_err::write(&path, &bytes).unwrap();
        let stored = StoredScores::open(&path, 1, [3, 4]).unwrap();
        let stored = Scores::from_file(&stored).unwrap();
        let mut buffers = (Vec::new(), Vec::new());
        for other in [mapped, stored] {
            for image in 0..3 {
                assert_eq!(floats.row(image, &mut buffers.0).unwrap(), other.row(image, &mut buffers.1).unwrap());
                assert_eq!(floats.get(image, 2).unwrap().to_bits(), other.get(image, 2).unwrap().to_bits());
            }
        }
    }

    #[test]
    fn truncated_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("matrix");
        fs_err::write(&path, [0; 47]).unwrap();
        let stored = StoredScores::open(&path, 0, [3, 4]).unwrap();
        let scores = Scores::from_file(&stored).unwrap();
        assert!(scores.row(1, &mut Vec::new()).is_ok());
        let error = scores.row(2, &mut Vec::new()).unwrap_err().to_string();
        assert_eq!(error, format!("cannot read `{}`", path.display()));
        assert!(StoredScores::open(&folder.path().join("none"), 0, [3, 4]).is_err());
    }

    #[test]
    fn contradictory_sizes_are_rejected() {
        assert!(Scores::new(&[0.0; 12], 3, 5).is_err());
        assert!(Scores::from_bytes(&[0; 12], 3, 4).is_err());
        assert!(Scores::new(&[], 0, 5).is_err());
        assert!(Scores::new(&[], usize::MAX, 2).is_err());
    }
}
