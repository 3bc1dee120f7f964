//! Inputs of the graphs, and what the model definition makes of them.

use std::collections::HashMap;

use laps_model::{
    array::Array, encoder::ModelEncoder, models::config::ModelConfig, params::Parameter, random::SplitMix64,
};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use super::Drift;
use crate::{
    Result,
    record::Part,
    runtime::{Input, RuntimeError, Session},
};

const SEED: u64 = 7;
const IMAGES: usize = 2;
/// Tokens of each caption.
const LENGTHS: [usize; 3] = [9, 5, 7];

/// Values of one input.
#[derive(Clone, Debug, PartialEq)]
pub enum Sample {
    /// Single precision.
    Float(Array),
    /// Sizes and 64-bit integers.
    Whole(Vec<usize>, Vec<i64>),
}

impl Sample {
    /// As a session takes it.
    pub fn input(&self) -> Input<'_> {
        match self {
            Self::Float(array) => Input::Float(array.dims(), array.values()),
            Self::Whole(shape, values) => Input::Whole(shape, values),
        }
    }

    fn bytes(&self) -> (Dtype, &[usize], Vec<u8>) {
        match self {
            Self::Float(array) => {
                (Dtype::F32, array.dims(), array.values().iter().flat_map(|value| value.to_le_bytes()).collect())
            }
            Self::Whole(shape, values) => {
                (Dtype::I64, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect())
            }
        }
    }
}

/// What one graph is fed, in its order, and the output that is expected; each with its name.
#[derive(Clone, Debug)]
struct Expected {
    part: Part,
    inputs: Vec<(&'static str, Sample)>,
    output: (&'static str, Array),
}

/// Inputs of every graph, and what the model definition makes of them.
#[derive(Clone, Debug)]
pub struct Golden {
    parts: Vec<Expected>,
}

impl Golden {
    /// Computes the model of `config` by the tensor in pure Rust, on random pixels and identifiers of a fixed seed.
    ///
    /// # Errors
    /// [`laps_model::Error`] for whatever `read` refuses.
    pub fn compute(
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
        let places = || lengths.iter().flat_map(|&own| (0..length).map(move |place| place < own));
        let mask: Vec<i64> = places().map(i64::from).collect();
        // The first entry of a vocabulary is padding.
        let mut identifier = || 1 + random.below(config.text.vocab_size.saturating_sub(1)) as i64;
        let identifiers: Vec<i64> = places().map(|word| if word { identifier() } else { 0 }).collect();
        let float = |values: &[i64]| Array::new(&shape, values.iter().map(|&value| value as f32).collect());
        let words = model.text.forward(&float(&identifiers)?, &float(&mask)?)?;

        let similarities = model.alignment.forward(&patches, &words, &float(&mask)?)?;
        let lengths = lengths.map(|length| length as i64).to_vec();
        let whole = |values| Sample::Whole(shape.clone(), values);
        let image = Expected {
            part: Part::Image,
            inputs: vec![("pixel_values", Sample::Float(pixels))],
            output: ("patch_embeddings", patches.clone()),
        };
        let text = Expected {
            part: Part::Text,
            inputs: vec![("input_ids", whole(identifiers)), ("attention_mask", whole(mask))],
            output: ("word_embeddings", words.clone()),
        };
        let score = Expected {
            part: Part::Score,
            inputs: vec![
                ("patch_embeddings", Sample::Float(patches)),
                ("word_embeddings", Sample::Float(words)),
                ("lengths", Sample::Whole(vec![lengths.len()], lengths)),
            ],
            output: ("similarities", similarities),
        };
        Ok(Self { parts: vec![image, text, score] })
    }

    /// As safetensors; names are `PART.NAME`.
    ///
    /// # Errors
    /// What the writer refuses.
    pub fn encode(&self) -> Result<Vec<u8>, safetensors::SafeTensorError> {
        let mut tensors = Vec::new();
        for Expected { part, inputs, output: (name, output) } in &self.parts {
            for (name, sample) in inputs {
                tensors.push((format!("{part}.{name}"), sample.clone()));
            }
            tensors.push((format!("{part}.{name}"), Sample::Float(output.clone())));
        }
        let data: Vec<_> = tensors.iter().map(|(name, sample)| (name, sample.bytes())).collect();
        let views = data
            .iter()
            .map(|(name, (dtype, shape, bytes))| Ok((name.as_str(), TensorView::new(*dtype, shape.to_vec(), bytes)?)));
        let views = views.collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
        safetensors::serialize(views, None::<HashMap<String, String>>)
    }

    /// Names of the tensors in a file of them.
    ///
    /// # Errors
    /// What the reader refuses.
    pub fn names(bytes: &[u8]) -> Result<Vec<String>, safetensors::SafeTensorError> {
        Ok(SafeTensors::deserialize(bytes)?.names().into_iter().map(str::to_owned).collect())
    }

    /// What a graph is fed, in its order.
    pub fn inputs(&self, part: Part) -> impl Iterator<Item = &(&'static str, Sample)> {
        self.parts.iter().filter(move |own| own.part == part).flat_map(|own| &own.inputs)
    }

    /// Runs the graph of `part` and compares its output; word embeddings where there is a word.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn drift(&self, part: Part, session: &Session) -> Result<Option<Drift>, RuntimeError> {
        let inputs: Vec<Input<'_>> = self.inputs(part).map(|(_, sample)| sample.input()).collect();
        let found = session.run(&inputs)?;
        let Some(Expected { inputs, output: (_, expected), .. }) = self.parts.iter().find(|own| own.part == part)
        else {
            return Ok(None);
        };
        let width = expected.dims().last().copied().unwrap_or(1).max(1);
        let mask = match (part, inputs.get(1)) {
            (Part::Text, Some((_, Sample::Whole(_, mask)))) => Some(mask),
            _ => None,
        };
        Ok(Drift::of(&found, expected, |place| mask.is_none_or(|mask| mask.get(place / width) == Some(&1))))
    }
}
