//! Preprocessing: an image to the input of an encoder.

use serde::{Deserialize, Serialize};

use super::{
    RgbImage,
    resize::{bilinear, resize, resize_part},
};
use crate::Result;
use laps_model::{
    array::Array,
    models::config::{ImageConfig, PreprocessingType},
};

/// Resizes to `size` x `size`, scales to 0..1, and normalises.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocessing {
    /// Width and height of the result in pixels.
    pub size: usize,
    /// Mean of red, green and blue.
    pub mean: [f32; 3],
    /// Standard deviation of red, green and blue.
    pub std: [f32; 3],
    /// Treatment of an image that is not square.
    #[serde(default, skip_serializing_if = "Fit::is_squash")]
    pub fit: Fit,
}

/// Treatment of an image that is not square.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fit {
    /// The whole image is resized to a square with antialiased bicubic resampling; the aspect ratio is not kept.
    #[default]
    Squash,
    /// As `squash`, with bilinear resampling of floats and without antialiasing, as OpenCV does.
    SquashBilinear,
    /// The shortest side is resized to the size and the centre square is cut out, as Hugging Face's `CLIPImageProcessor`
    /// does, with antialiased bicubic resampling: the other side is rounded down, and so is the offset of the square.
    CenterCrop,
}

impl Fit {
    fn is_squash(&self) -> bool {
        *self == Self::Squash
    }

    /// A square of `size` pixels; None if its values are not rounded to 8 bits.
    fn square(self, image: &RgbImage, size: usize) -> Option<RgbImage> {
        Some(match self {
            Self::SquashBilinear => return None,
            Self::Squash => resize(image, size, size),
            Self::CenterCrop => {
                let shortest = image.width.min(image.height);
                let [width, height] = [image.width, image.height].map(|side| size * side / shortest.max(1));
                let (left, top) = ((width - size) / 2, (height - size) / 2);
                resize_part(image, width, height, left..left + size, top..top + size)
            }
        })
    }
}

impl Preprocessing {
    /// The preprocessing of an image encoder.
    pub fn of(config: &ImageConfig) -> Self {
        match config.preprocessing() {
            PreprocessingType::Laps => Self::imagenet(config.image_size()),
            PreprocessingType::Clip => Self::clip(config.image_size()),
            PreprocessingType::D2sVse => Self { fit: Fit::SquashBilinear, ..Self::imagenet(config.image_size()) },
        }
    }

    /// The mean and standard deviation of ImageNet, which LAPS uses for its backbones.
    pub fn imagenet(size: usize) -> Self {
        Self { size, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225], fit: Fit::Squash }
    }

    /// The centre square, with CLIP's mean and standard deviation.
    pub fn clip(size: usize) -> Self {
        Self {
            size,
            mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
            fit: Fit::CenterCrop,
        }
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
        let Some(image) = self.fit.square(image, self.size) else {
            bilinear(image, self.size, target);
            for (channel, plane) in target.chunks_exact_mut(self.size * self.size).enumerate() {
                plane.iter_mut().for_each(|value| *value = self.normalize(channel, *value));
            }
            return Ok(());
        };
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
        std::array::from_fn(|level| self.normalize(channel, level as f32))
    }

    /// A value from 0 to 255.
    fn normalize(&self, channel: usize, value: f32) -> f32 {
        (value / 255.0 - self.mean[channel]) / self.std[channel]
    }
}
