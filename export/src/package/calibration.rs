//! Calibration inputs: images and captions on which the effect of reduced precision is measured.

use laps_data::image::{Preprocessing, RgbImage};
use laps_model::{array::Array, models::config::ModelConfig, random::SplitMix64};

use super::golden::TensorValues;
use crate::{Result, graph::GraphKind};

const SEED: u64 = 11;
/// Squares per side of each image: large areas, and fine texture.
const SQUARES: [usize; 2] = [6, 28];
/// Lengths of the captions in tokens: quantiles of Flickr30K, including `[CLS]` and `[SEP]`.
const LENGTHS: [usize; 8] = [9, 11, 12, 14, 15, 17, 20, 26];
/// Vocabulary size of bert-base-uncased.
const BERT_VOCAB_SIZE: usize = 30_522;
/// Token id of `[CLS]` there.
const BERT_CLS: i64 = 101;
/// Token id of `[SEP]` there.
const BERT_SEP: i64 = 102;
/// First token id of a word there.
const BERT_FIRST_WORD: usize = 1996;

/// Inputs for the graph of an encoder: images of coloured squares, or captions of random words. They depend on the
/// configuration only and need no data set. Empty for the graph `score`.
///
/// # Errors
/// [`laps_data::Error`] for an invalid image size.
pub(super) fn inputs(kind: GraphKind, config: &ModelConfig) -> Result<Vec<TensorValues>> {
    match kind {
        GraphKind::Image => Ok(vec![TensorValues::F32(images(Preprocessing::of(&config.image))?)]),
        GraphKind::Text => Ok(captions(config.text.vocab_size, config.text.max_position_embeddings).into()),
        GraphKind::Score => Ok(Vec::new()),
    }
}

fn images(preprocessing: Preprocessing) -> Result<Array> {
    let mut random = SplitMix64::named(SEED, "pictures");
    let mut values = vec![0.0; SQUARES.len() * preprocessing.values()];
    for (squares, target) in SQUARES.into_iter().zip(values.chunks_exact_mut(preprocessing.values().max(1))) {
        let pixels = (0..squares * squares * 3).map(|_| random.below(256) as u8).collect();
        if let Some(image) = RgbImage::new(squares, squares, pixels) {
            preprocessing.write(&image, target)?;
        }
    }
    let size = preprocessing.size;
    Ok(Array::new(&[SQUARES.len(), 3, size, size], values)?)
}

/// `input_ids` and `attention_mask`, `(captions, length)`.
fn captions(vocab_size: usize, max_length: usize) -> [TensorValues; 2] {
    let mut random = SplitMix64::named(SEED, "captions");
    let lengths = LENGTHS.map(|length| length.min(max_length));
    let longest = lengths.into_iter().max().unwrap_or(1);
    let is_bert = vocab_size == BERT_VOCAB_SIZE;
    let mut input_ids = Vec::with_capacity(lengths.len() * longest);
    let mut mask = Vec::with_capacity(lengths.len() * longest);
    for length in lengths {
        for token in 0..longest {
            mask.push(i64::from(token < length));
            input_ids.push(match token {
                _ if token >= length => 0,
                0 if is_bert => BERT_CLS,
                _ if is_bert && token + 1 == length => BERT_SEP,
                _ if is_bert => (BERT_FIRST_WORD + random.below(BERT_VOCAB_SIZE - BERT_FIRST_WORD)) as i64,
                // Token id 0 is padding.
                _ => 1 + random.below(vocab_size.saturating_sub(1)) as i64,
            });
        }
    }
    let shape = vec![lengths.len(), longest];
    [TensorValues::I64(shape.clone(), input_ids), TensorValues::I64(shape, mask)]
}
