//! Golden tensors: inputs of the graphs, and the outputs of the model definition.

use std::collections::HashMap;

use laps_model::{
    array::Array, encoder::ModelEncoder, models::config::ModelConfig, params::Parameter, random::SplitMix64,
};
use safetensors::{Dtype, tensor::TensorView};

use super::Drift;
use crate::{
    Result,
    graph::GraphKind,
    runtime::{InputTensor, RuntimeError, Session},
};

const SEED: u64 = 7;
const IMAGES: usize = 2;
/// Lengths of the captions in tokens.
const LENGTHS: [usize; 3] = [9, 5, 7];

/// An input tensor with its values.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum TensorValues {
    /// Single precision.
    F32(Array),
    /// Shape and 64-bit integers.
    I64(Vec<usize>, Vec<i64>),
}

impl TensorValues {
    /// The tensor as an input of a session.
    pub(super) fn input(&self) -> InputTensor<'_> {
        match self {
            Self::F32(array) => InputTensor::F32(array.dims(), array.values()),
            Self::I64(shape, values) => InputTensor::I64(shape, values),
        }
    }

    fn bytes(&self) -> (Dtype, &[usize], Vec<u8>) {
        match self {
            Self::F32(array) => {
                (Dtype::F32, array.dims(), array.values().iter().flat_map(|value| value.to_le_bytes()).collect())
            }
            Self::I64(shape, values) => {
                (Dtype::I64, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect())
            }
        }
    }
}

/// Inputs of one graph in its order and the expected output, with names.
#[derive(Clone, Debug)]
struct GoldenCase {
    kind: GraphKind,
    inputs: Vec<(&'static str, TensorValues)>,
    output: (&'static str, Array),
}

/// Golden tensors of all graphs.
#[derive(Clone, Debug)]
pub(super) struct Golden {
    cases: Vec<GoldenCase>,
}

impl Golden {
    /// Runs the model of `config` on the pure-Rust tensor, on random pixels and token ids with a fixed seed.
    ///
    /// # Errors
    /// The errors of `read`.
    pub(super) fn compute(
        config: &ModelConfig,
        read: impl Fn(&Parameter) -> laps_model::Result<Array> + 'static,
    ) -> Result<Self> {
        let encoder = ModelEncoder::<Array>::new(config, (), read)?;
        let model = encoder.model();
        let mut random = SplitMix64::named(SEED, "golden");
        let size = config.image.image_size();
        let pixels: Vec<f32> = (0..IMAGES * 3 * size * size).map(|_| random.normal() as f32).collect();
        let pixels = Array::new(&[IMAGES, 3, size, size], pixels)?;
        let patches = model.image.forward(&pixels)?;

        let longest = config.text.max_position_embeddings;
        let lengths = LENGTHS.map(|length| length.min(longest));
        let length = lengths.into_iter().max().unwrap_or(1);
        let shape = vec![lengths.len(), length];
        let words_and_padding = || lengths.iter().flat_map(|&own| (0..length).map(move |token| token < own));
        let mask: Vec<i64> = words_and_padding().map(i64::from).collect();
        // Token id 0 is padding.
        let mut token_id = || 1 + random.below(config.text.vocab_size.saturating_sub(1)) as i64;
        let input_ids: Vec<i64> = words_and_padding().map(|word| if word { token_id() } else { 0 }).collect();
        let float = |values: &[i64]| Array::new(&shape, values.iter().map(|&value| value as f32).collect());
        let words = model.text.forward(&float(&input_ids)?, &float(&mask)?)?;

        let similarities = model.head.forward(&patches, &words, &float(&mask)?)?;
        let lengths = lengths.map(|length| length as i64).to_vec();
        let integers = |values| TensorValues::I64(shape.clone(), values);
        let image = GoldenCase {
            kind: GraphKind::Image,
            inputs: vec![("pixel_values", TensorValues::F32(pixels))],
            output: ("patch_embeddings", patches.clone()),
        };
        let text = GoldenCase {
            kind: GraphKind::Text,
            inputs: vec![("input_ids", integers(input_ids)), ("attention_mask", integers(mask))],
            output: ("word_embeddings", words.clone()),
        };
        let score = GoldenCase {
            kind: GraphKind::Score,
            inputs: vec![
                ("patch_embeddings", TensorValues::F32(patches)),
                ("word_embeddings", TensorValues::F32(words)),
                ("lengths", TensorValues::I64(vec![lengths.len()], lengths)),
            ],
            output: ("similarities", similarities),
        };
        Ok(Self { cases: vec![image, text, score] })
    }

    /// Encodes the tensors as safetensors, named `GRAPH.NAME`.
    ///
    /// # Errors
    /// Errors of the writer.
    pub(super) fn encode(&self) -> Result<Vec<u8>, safetensors::SafeTensorError> {
        let mut tensors = Vec::new();
        for GoldenCase { kind, inputs, output: (name, output) } in &self.cases {
            for (name, values) in inputs {
                tensors.push((format!("{kind}.{name}"), values.clone()));
            }
            tensors.push((format!("{kind}.{name}"), TensorValues::F32(output.clone())));
        }
        let data: Vec<_> = tensors.iter().map(|(name, values)| (name, values.bytes())).collect();
        let views = data
            .iter()
            .map(|(name, (dtype, shape, bytes))| Ok((name.as_str(), TensorView::new(*dtype, shape.to_vec(), bytes)?)));
        let views = views.collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
        safetensors::serialize(views, None::<HashMap<String, String>>)
    }

    /// Runs the graph `kind` and compares its output, without the word embeddings of padding.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub(super) fn drift(&self, kind: GraphKind, session: &Session) -> Result<Option<Drift>, RuntimeError> {
        let Some(case) = self.cases.iter().find(|case| case.kind == kind) else { return Ok(None) };
        let GoldenCase { inputs, output: (_, expected), .. } = case;
        let found = session.run(&inputs.iter().map(|(_, values)| values.input()).collect::<Vec<_>>())?;
        let width = expected.dims().last().copied().unwrap_or(1).max(1);
        let mask = match (kind, inputs.get(1)) {
            (GraphKind::Text, Some((_, TensorValues::I64(_, mask)))) => Some(mask),
            _ => None,
        };
        Ok(Drift::of(&found, expected, |index| mask.is_none_or(|mask| mask.get(index / width) == Some(&1))))
    }
}
