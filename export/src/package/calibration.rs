//! Inputs on which it is measured what a precision does.

use crate::Result;
use laps_data::image::{Preprocessing, RgbImage};
use laps_model::{array::Array, models::config::ModelConfig, random::SplitMix64};

use super::Sample;
use crate::record::Part;

const SEED: u64 = 11;
/// Squares on a side of each picture: large areas, and fine texture.
const SQUARES: [usize; 2] = [6, 28];
/// Tokens of each caption: quantiles of the captions of Flickr30K, `[CLS]` and `[SEP]` included.
const LENGTHS: [usize; 8] = [9, 11, 12, 14, 15, 17, 20, 26];
/// The vocabulary of bert-base-uncased, with the identifiers of `[CLS]` and `[SEP]`, and where its words begin.
const UNCASED: (usize, i64, i64, usize) = (30_522, 101, 102, 1996);

/// What the graph of an encoder is fed: pictures of coloured squares, or captions of random words. The same for the same
/// configuration, and no data set is asked for. Nothing for the graph `score`.
///
/// # Errors
/// [`laps_model::Error`] for an image size that is no size.
pub(super) fn inputs(part: Part, config: &ModelConfig) -> Result<Vec<Sample>> {
    match part {
        Part::Image => Ok(vec![Sample::Float(pictures(config.image.image_size())?)]),
        Part::Text => Ok(captions(config.text.vocab_size, config.text.max_position_embeddings).into()),
        Part::Score => Ok(Vec::new()),
    }
}

fn pictures(size: usize) -> Result<Array> {
    let mut random = SplitMix64::named(SEED, "pictures");
    let preprocessing = Preprocessing::imagenet(size);
    let mut values = vec![0.0; SQUARES.len() * preprocessing.values()];
    for (squares, target) in SQUARES.into_iter().zip(values.chunks_exact_mut(preprocessing.values().max(1))) {
        let pixels = (0..squares * squares * 3).map(|_| random.below(256) as u8).collect();
        if let Some(image) = RgbImage::new(squares, squares, pixels) {
            preprocessing.write(&image, target)?;
        }
    }
    Ok(Array::new(&[SQUARES.len(), 3, size, size], values)?)
}

/// Identifiers and mask, `(captions, longest)`.
fn captions(vocabulary: usize, most: usize) -> [Sample; 2] {
    let mut random = SplitMix64::named(SEED, "captions");
    let lengths = LENGTHS.map(|length| length.min(most));
    let longest = lengths.into_iter().max().unwrap_or(1);
    let (size, first, last, words) = UNCASED;
    let mut identifiers = Vec::with_capacity(lengths.len() * longest);
    let mut mask = Vec::with_capacity(lengths.len() * longest);
    for length in lengths {
        for place in 0..longest {
            mask.push(i64::from(place < length));
            identifiers.push(match place {
                _ if place >= length => 0,
                0 if vocabulary == size => first,
                _ if vocabulary == size && place + 1 == length => last,
                _ if vocabulary == size => (words + random.below(size - words)) as i64,
                // The first entry of a vocabulary is padding.
                _ => 1 + random.below(vocabulary.saturating_sub(1)) as i64,
            });
        }
    }
    let shape = vec![lengths.len(), longest];
    [Sample::Whole(shape.clone(), identifiers), Sample::Whole(shape, mask)]
}
