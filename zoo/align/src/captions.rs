//! The images that the captions belong to.

use std::ops::Range;

use super::RetrievalError;

/// The image of each caption, in any order. Each image has at least one caption.
#[derive(Clone, Debug)]
pub struct CaptionImages {
    image_of: Vec<u32>,
    /// Captions sorted by image, and ascending within an image.
    sorted: Vec<u32>,
    /// Start of the captions of each image in `sorted`, and the end of the last.
    starts: Vec<usize>,
}

impl CaptionImages {
    /// Creates the mapping from the image of each caption, counted from 0.
    ///
    /// # Errors
    /// [`RetrievalError::UnknownImage`] and [`RetrievalError::NoCaption`]; [`RetrievalError::Size`] for more than 2^32
    /// captions.
    pub fn new(images: usize, image_of: &[usize]) -> Result<Self, RetrievalError> {
        let mut starts = vec![0; images + 1];
        for (caption, &image) in image_of.iter().enumerate() {
            if image >= images {
                return Err(RetrievalError::UnknownImage { caption, image, images });
            }
            starts[image + 1] += 1;
        }
        if let Some(image) = (0..images).find(|&image| starts[image + 1] == 0) {
            return Err(RetrievalError::NoCaption { image });
        }
        if u32::try_from(image_of.len()).is_err() {
            return Err(RetrievalError::Size {
                expected: format!("at most {} captions", u32::MAX),
                found: format!("{} captions", image_of.len()),
            });
        }
        for image in 0..images {
            starts[image + 1] += starts[image];
        }
        let mut sorted: Vec<u32> = (0..image_of.len() as u32).collect();
        sorted.sort_by_key(|&caption| image_of[caption as usize]);
        Ok(Self { image_of: image_of.iter().map(|&image| image as u32).collect(), sorted, starts })
    }

    /// Creates the mapping for `per_image` consecutive captions per image. The test files of LAPS have 5 per image.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn uniform(images: usize, per_image: usize) -> Result<Self, RetrievalError> {
        let image_of: Vec<usize> = (0..images).flat_map(|image| std::iter::repeat_n(image, per_image)).collect();
        Self::new(images, &image_of)
    }

    /// Number of images.
    pub fn images(&self) -> usize {
        self.starts.len() - 1
    }

    /// Number of captions.
    pub fn captions(&self) -> usize {
        self.image_of.len()
    }

    /// The image of a caption. Panics if there is no such caption.
    pub fn image(&self, caption: u32) -> u32 {
        self.image_of[caption as usize]
    }

    /// Captions of consecutive images, ascending within an image. Panics if an image is out of range.
    pub fn of_images(&self, images: Range<usize>) -> &[u32] {
        &self.sorted[self.starts[images.start]..self.starts[images.end]]
    }
}

#[cfg(test)]
mod tests {
    use super::{CaptionImages, RetrievalError};

    #[test]
    fn captions_of_an_image_are_found_in_any_order() {
        let captions = CaptionImages::new(3, &[2, 0, 1, 0, 2, 2]).unwrap();
        assert_eq!(captions.of_images(0..1), [1, 3]);
        assert_eq!(captions.of_images(2..3), [0, 4, 5]);
        assert_eq!(captions.of_images(1..3), [2, 0, 4, 5]);
        assert_eq!((captions.images(), captions.captions()), (3, 6));
    }

    #[test]
    fn images_without_captions_and_captions_without_images_are_rejected() {
        assert!(matches!(CaptionImages::new(3, &[0, 2]), Err(RetrievalError::NoCaption { image: 1 })));
        let unknown = CaptionImages::new(2, &[0, 1, 2]).unwrap_err();
        assert!(matches!(unknown, RetrievalError::UnknownImage { caption: 2, image: 2, images: 2 }));
        assert!(CaptionImages::uniform(4, 0).is_err());
    }
}
