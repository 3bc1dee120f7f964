//! Preprocessing: an image to the input of an encoder.

use serde::{Deserialize, Serialize};

use super::{RgbImage, resize};
use crate::Result;
use laps_model::array::Array;

/// Resizes to `size` x `size` with antialiased bicubic resampling (the aspect ratio is not kept), scales to 0..1, and
/// normalises.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocessing {
    /// Width and height of the result in pixels.
    pub size: usize,
    /// Mean of red, green and blue.
    pub mean: [f32; 3],
    /// Standard deviation of red, green and blue.
    pub std: [f32; 3],
}

impl Preprocessing {
    /// The mean and standard deviation of ImageNet, which LAPS uses for every backbone.
    pub fn imagenet(size: usize) -> Self {
        Self { size, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] }
    }

    /// Number of values of a result: three channels of `size` x `size`.
    pub fn values(&self) -> usize {
        3 * self.size * self.size
    }

    /// Writes the pixels of `image`, `(3, size, size)`, to `target`.
    pub fn write(&self, image: &RgbImage, target: &mut [f32]) -> Result<()> {
        if target.len() != self.values() || self.size == 0 {
            return Err(laps_model::Error::Operation {
                operation: "preprocessing",
                expected: format!("room for {} values", self.values().max(3)),
                found: format!("room for {}", target.len()),
            }
            .into());
        }
        let image = resize(image, self.size, self.size);
        let pixels = image.pixels().as_chunks::<3>().0;
        for (channel, plane) in target.chunks_exact_mut(self.size * self.size).enumerate() {
            let levels = self.levels(channel);
            for (value, pixel) in plane.iter_mut().zip(pixels) {
                *value = levels[usize::from(pixel[channel])];
            }
        }
        Ok(())
    }

    /// The pixels of `image` as `(1, 3, size, size)`.
    pub fn array(&self, image: &RgbImage) -> Result<Array> {
        let mut values = vec![0.0; self.values()];
        self.write(image, &mut values)?;
        Ok(Array::new(&[1, 3, self.size, self.size], values)?)
    }

    /// Maps each of the 256 values, in f32 throughout as in torchvision.
    fn levels(&self, channel: usize) -> [f32; 256] {
        std::array::from_fn(|level| (level as f32 / 255.0 - self.mean[channel]) / self.std[channel])
    }
}
