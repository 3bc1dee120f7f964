//! Which image a caption describes.

use std::ops::Range;

use super::RetrievalError;

/// The image of each caption; each image has at least one caption, in any order.
#[derive(Clone, Debug)]
pub struct CaptionImages {
    image_of: Vec<u32>,
    /// Captions sorted by image, those of an image in ascending order.
    sorted: Vec<u32>,
    /// Where the captions of an image begin in `sorted`, and where the last ones end.
    starts: Vec<usize>,
}

impl CaptionImages {
    /// From the image of each caption, counted from 0.
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

    /// `per_image` captions of the first image, then those of the second, and so on: the test files of LAPS have 5.
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

    /// The image of a caption; `caption` below [`captions`](Self::captions).
    pub(super) fn image(&self, caption: u32) -> u32 {
        self.image_of[caption as usize]
    }

    /// Captions of consecutive images, those of an image in ascending order; `images` within [`images`](Self::images).
    pub(super) fn of(&self, images: Range<usize>) -> &[u32] {
        &self.sorted[self.starts[images.start]..self.starts[images.end]]
    }
}

#[cfg(test)]
mod tests {
    use super::{CaptionImages, RetrievalError};

    #[test]
    fn captions_are_found_by_image_in_whatever_order_they_come() {
        let captions = CaptionImages::new(3, &[2, 0, 1, 0, 2, 2]).unwrap();
        assert_eq!(captions.of(0..1), [1, 3]);
        assert_eq!(captions.of(2..3), [0, 4, 5]);
        assert_eq!(captions.of(1..3), [2, 0, 4, 5]);
        assert_eq!((captions.images(), captions.captions()), (3, 6));
    }

    #[test]
    fn images_without_captions_and_captions_without_images_are_refused() {
        assert!(matches!(CaptionImages::new(3, &[0, 2]), Err(RetrievalError::NoCaption { image: 1 })));
        let unknown = CaptionImages::new(2, &[0, 1, 2]).unwrap_err();
        assert!(matches!(unknown, RetrievalError::UnknownImage { caption: 2, image: 2, images: 2 }));
        assert!(CaptionImages::uniform(4, 0).is_err());
    }
}
