//! Random crops of images and masking of captions for training. They depend only on the seed, the epoch and the sample, not
//! on the number of threads.

use super::image::RgbImage;
use crate::SpecialTokens;
use laps_model::random::SplitMix64;

/// Range of the area of a crop, as a share of the image, and of its ratio of width to height.
const AREA: [f64; 2] = [0.6, 1.0];
const RATIO: [f64; 2] = [3.0 / 4.0, 4.0 / 3.0];
/// Share of the basic tokens that are changed. Of these, the shares that are masked and replaced; the others are dropped.
const CHANGED: f64 = 0.2;
const MASKED: f64 = 0.5;
const REPLACED: f64 = 0.1;

/// The random changes of one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Augment {
    seed: u64,
    epoch: usize,
}

/// A part of an image, possibly mirrored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crop {
    /// Column of its left edge.
    pub left: usize,
    /// Row of its upper edge.
    pub top: usize,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Whether left and right are swapped.
    pub mirrored: bool,
}

impl Augment {
    /// The changes of `epoch` with `seed`.
    pub fn new(seed: u64, epoch: usize) -> Self {
        Self { seed, epoch }
    }

    fn random(self, what: &str, sample: usize) -> SplitMix64 {
        SplitMix64::named(self.seed, &format!("{what} {} {sample}", self.epoch))
    }

    /// The crop of an image of `width` x `height` pixels, as in torchvision's `RandomResizedCrop`: area and ratio are drawn
    /// until a crop fits, and after ten attempts it is the largest centre crop whose ratio is in the range.
    pub fn crop(self, sample: usize, width: usize, height: usize) -> Crop {
        let mut random = self.random("crop", sample);
        let between = |[low, high]: [f64; 2], random: &mut SplitMix64| low + (high - low) * random.uniform();
        for _ in 0..10 {
            let area = (width * height) as f64 * between(AREA, &mut random);
            let ratio = libm::exp(between(RATIO.map(libm::log), &mut random));
            let [columns, rows] = [area * ratio, area / ratio].map(|square| libm::rint(libm::sqrt(square)) as usize);
            if (1..=width).contains(&columns) && (1..=height).contains(&rows) {
                let top = random.below(height - rows + 1);
                let left = random.below(width - columns + 1);
                return Crop { left, top, width: columns, height: rows, mirrored: random.uniform() < 0.5 };
            }
        }
        let ratio = width as f64 / height as f64;
        let [mut columns, mut rows] = [width, height];
        if ratio < RATIO[0] {
            rows = (libm::rint(width as f64 / RATIO[0]) as usize).clamp(1, height);
        } else if ratio > RATIO[1] {
            columns = (libm::rint(height as f64 * RATIO[1]) as usize).clamp(1, width);
        }
        let (left, top) = ((width - columns) / 2, (height - rows) / 2);
        Crop { left, top, width: columns, height: rows, mirrored: random.uniform() < 0.5 }
    }

    /// The tokens of a caption from the word pieces of its basic tokens, from `[CLS]` to `[SEP]`. `entries` is the size of
    /// the vocabulary. Without a token for masked pieces these are dropped.
    pub fn tokens(self, sample: usize, pieces: &[Vec<u32>], special: SpecialTokens, entries: usize) -> Vec<u32> {
        let mut random = self.random("tokens", sample);
        let mut tokens = vec![special.first];
        for pieces in pieces {
            let draw = random.uniform() / CHANGED;
            if draw >= 1.0 {
                tokens.extend(pieces);
            } else if draw < MASKED {
                tokens.extend(pieces.iter().filter_map(|_| special.mask));
            } else if draw < MASKED + REPLACED {
                tokens.extend(pieces.iter().map(|_| random.below(entries) as u32));
            }
        }
        tokens.push(special.last);
        tokens
    }
}

impl Crop {
    /// The crop of `image`, or `None` if it does not fit.
    pub fn of(&self, image: &RgbImage) -> Option<RgbImage> {
        let stride = 3 * image.width();
        let rows = image.pixels().chunks_exact(stride).skip(self.top).take(self.height);
        let mut pixels = Vec::with_capacity(3 * self.width * self.height);
        for row in rows {
            let part = row.get(3 * self.left..3 * (self.left + self.width))?;
            if self.mirrored {
                part.rchunks_exact(3).for_each(|pixel| pixels.extend_from_slice(pixel));
            } else {
                pixels.extend_from_slice(part);
            }
        }
        RgbImage::new(self.width, self.height, pixels)
    }
}

#[cfg(test)]
mod tests {
    use super::{Augment, Crop};
    use crate::{SpecialTokens, image::RgbImage};

    const SPECIAL: SpecialTokens = SpecialTokens { padding: 0, unknown: 1, first: 2, last: 3, mask: Some(4) };

    #[test]
    fn crops_stay_in_the_ranges_of_area_and_ratio() {
        let augment = Augment::new(7, 1);
        let crops: Vec<Crop> = (0..4000).map(|sample| augment.crop(sample, 500, 375)).collect();
        for crop in &crops {
            assert!(crop.left + crop.width <= 500 && crop.top + crop.height <= 375, "{crop:?}");
            let share = (crop.width * crop.height) as f64 / (500.0 * 375.0);
            let ratio = crop.width as f64 / crop.height as f64;
            // Sides are rounded to a pixel.
            assert!((0.595..=1.0).contains(&share) && (0.745..1.345).contains(&ratio), "{crop:?}");
        }
        let mirrored = crops.iter().filter(|crop| crop.mirrored).count();
        // Six standard errors.
        assert!((1810..2190).contains(&mirrored), "{mirrored}");
        assert_eq!(crops[5], augment.crop(5, 500, 375));
        assert_ne!(crops[5], Augment::new(7, 2).crop(5, 500, 375));
        let narrow = augment.crop(0, 10, 1000);
        assert_eq!((narrow.width, narrow.height, narrow.top), (10, 13, 493));
    }

    #[test]
    fn crop_copies_and_mirrors_pixels() {
        let pixels = (0..18).collect();
        let image = RgbImage::new(3, 2, pixels).unwrap();
        let crop = Crop { left: 1, top: 1, width: 2, height: 1, mirrored: false };
        assert_eq!(crop.of(&image).unwrap().pixels(), [12, 13, 14, 15, 16, 17]);
        assert_eq!(Crop { mirrored: true, ..crop }.of(&image).unwrap().pixels(), [15, 16, 17, 12, 13, 14]);
    }

    #[test]
    fn a_fifth_of_the_basic_tokens_changes() {
        let pieces: Vec<Vec<u32>> = (0..50_000).map(|word| vec![100 + word]).collect();
        let tokens = Augment::new(7, 0).tokens(3, &pieces, SPECIAL, 50);
        assert_eq!((tokens[0], *tokens.last().unwrap()), (2, 3));
        let masked = tokens.iter().filter(|&&token| token == 4).count() as f64 / 50_000.0;
        let dropped = 1.0 - (tokens.len() - 2) as f64 / 50_000.0;
        let replaced = tokens[1..tokens.len() - 1].iter().filter(|&&token| token < 50).count() as f64 / 50_000.0;
        // Six standard errors; a replacement may be the mask.
        assert!((masked - 0.1).abs() < 0.01 && (dropped - 0.08).abs() < 0.008, "{masked}, {dropped}");
        assert!((replaced - masked - 0.02).abs() < 0.004, "{replaced}");
    }
}
