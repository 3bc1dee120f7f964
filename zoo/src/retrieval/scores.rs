//! A view of a similarity matrix.

use super::RetrievalError;

/// A similarity matrix, images x captions in row-major order, that lives somewhere else: in memory or in a mapped file.
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
}

impl<'a> Scores<'a> {
    /// `values[image * captions + caption]`.
    pub fn new(values: &'a [f32], images: usize, captions: usize) -> Result<Self, RetrievalError> {
        check(values.len(), 1, "values", images, captions)?;
        Ok(Self { values: Values::Floats(values), images, captions })
    }

    /// The same from the bytes of little-endian f32, at any alignment: the data of a mapped safetensors file.
    pub fn from_bytes(bytes: &'a [u8], images: usize, captions: usize) -> Result<Self, RetrievalError> {
        check(bytes.len(), 4, "bytes", images, captions)?;
        Ok(Self { values: Values::LittleEndian(bytes), images, captions })
    }

    /// Rows.
    pub fn images(&self) -> usize {
        self.images
    }

    /// Columns.
    pub fn captions(&self) -> usize {
        self.captions
    }

    /// Similarity of one pair; both indices below the sizes.
    pub(super) fn at(&self, image: usize, caption: usize) -> f32 {
        let index = image * self.captions + caption;
        match self.values {
            Values::Floats(values) => values[index],
            Values::LittleEndian(bytes) => {
                f32::from_le_bytes([bytes[4 * index], bytes[4 * index + 1], bytes[4 * index + 2], bytes[4 * index + 3]])
            }
        }
    }

    /// Similarities of an image to all captions. `buffer` serves where they have to be decoded.
    pub(super) fn row<'b>(&self, image: usize, buffer: &'b mut Vec<f32>) -> &'b [f32]
    where
        'a: 'b,
    {
        let range = image * self.captions..(image + 1) * self.captions;
        match self.values {
            Values::Floats(values) => &values[range],
            Values::LittleEndian(bytes) => {
                let (words, _) = bytes[4 * range.start..4 * range.end].as_chunks::<4>();
                buffer.clear();
                buffer.extend(words.iter().map(|&word| f32::from_le_bytes(word)));
                buffer
            }
        }
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
    use super::Scores;

    #[test]
    fn bytes_at_any_alignment_read_as_the_floats_do() {
        let values: Vec<f32> = (0..12).map(|number| number as f32 * 0.37 - 1.0).collect();
        let mut bytes = vec![0_u8];
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        let floats = Scores::new(&values, 3, 4).unwrap();
        let mapped = Scores::from_bytes(&bytes[1..], 3, 4).unwrap();
        let mut buffers = (Vec::new(), Vec::new());
        for image in 0..3 {
            assert_eq!(floats.row(image, &mut buffers.0), mapped.row(image, &mut buffers.1));
            assert_eq!(floats.at(image, 2).to_bits(), mapped.at(image, 2).to_bits());
        }
    }

    #[test]
    fn sizes_that_contradict_each_other_are_refused() {
        assert!(Scores::new(&[0.0; 12], 3, 5).is_err());
        assert!(Scores::from_bytes(&[0; 12], 3, 4).is_err());
        assert!(Scores::new(&[], 0, 5).is_err());
        assert!(Scores::new(&[], usize::MAX, 2).is_err());
    }
}
