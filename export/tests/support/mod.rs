//! What the tests of graphs share: the tiny models with their golden weights, inputs, and the model in pure Rust.
#![allow(dead_code, unused_imports)] // each test binary uses its own part
#![allow(clippy::unwrap_used, clippy::panic)] // only tests use it

use std::path::{Path, PathBuf};

use laps_hub::checkpoint::Checkpoint;
use laps_model::{
    array::Array, encoder::ModelEncoder, models::config::ModelConfig, params::Parameter, random::SplitMix64,
};
use laps_onnx::{
    file::encode,
    graph::{Flavour, Graph, Opset, Target},
    record::{Part, record},
    runtime::{Input, Place, ProviderChoice, Session, SessionOptions, environment},
};

#[path = "../../../zoo/model/tests/support/mod.rs"]
pub mod models;

pub use models::{Tensors, device, difference, golden, swin_tiny, vit_tiny};

/// Two correct f32 implementations of models of this size: sums in another order.
pub const NEAR: f32 = 1e-4;

/// A model whose weights are golden.
pub struct Tiny {
    pub name: &'static str,
    pub config: ModelConfig,
}

pub fn tiny() -> [Tiny; 2] {
    [Tiny { name: "vit", config: vit_tiny() }, Tiny { name: "swin", config: swin_tiny() }]
}

pub fn target(flavour: Flavour, opset: u32) -> Target {
    Target { flavour, opset: Opset::new(opset).unwrap() }
}

impl Tiny {
    pub fn read(&self) -> impl Fn(&Parameter) -> laps_model::Result<Array> + 'static {
        let checkpoint = Checkpoint::open(golden(&format!("{}_tiny.safetensors", self.name))).unwrap();
        move |parameter| Ok(checkpoint.read(&parameter.name)?)
    }

    pub fn eager(&self) -> ModelEncoder<Array> {
        ModelEncoder::new(&self.config, (), self.read()).unwrap()
    }

    pub fn graph(&self, part: Part, target: Target) -> Graph {
        record(part, &self.config, target, self.read()).unwrap()
    }

    /// Writes the graph of `part` to `folder` and gives its path.
    pub fn write(&self, part: Part, target: Target, folder: &Path) -> PathBuf {
        let path = folder.join(part.file());
        std::fs::write(&path, encode(&self.graph(part, target), &[]).unwrap()).unwrap();
        path
    }
}

/// Whether ONNX Runtime is there; says so where it is not.
pub fn runtime() -> bool {
    let found = environment();
    if let Err(error) = &found {
        println!("skipped: {error}");
    }
    found.is_ok()
}

pub fn open(path: &Path) -> Session {
    let place = Place::of(ProviderChoice::Auto, device()).unwrap();
    Session::open(path, &SessionOptions { place, ..SessionOptions::cpu(1) }).unwrap()
}

/// Inputs of one part, and what the model in pure Rust makes of them.
pub struct Case {
    pub inputs: Vec<(&'static str, Value)>,
    pub output: (&'static str, Array),
    /// Places of the output that count.
    pub mask: Option<Vec<bool>>,
}

pub enum Value {
    Float(Array),
    Whole(Vec<usize>, Vec<i64>),
}

impl Value {
    pub fn input(&self) -> Input<'_> {
        match self {
            Self::Float(array) => Input::Float(array.dims(), array.values()),
            Self::Whole(shape, values) => Input::Whole(shape, values),
        }
    }
}

impl Case {
    pub fn run(&self, session: &Session) -> Array {
        let inputs: Vec<Input<'_>> = self.inputs.iter().map(|(_, value)| value.input()).collect();
        session.run(&inputs).unwrap()
    }
}

fn normal(shape: &[usize], random: &mut SplitMix64) -> Array {
    let count = shape.iter().product();
    Array::new(shape, (0..count).map(|_| random.normal() as f32).collect()).unwrap()
}

pub fn image_case(model: &Tiny, eager: &ModelEncoder<Array>, batch: usize) -> Case {
    let size = model.config.image.image_size();
    let pixels = normal(&[batch, 3, size, size], &mut SplitMix64::named(batch as u64, "pixels"));
    let output = eager.model().image.forward(&pixels).unwrap();
    Case { inputs: vec![("pixel_values", Value::Float(pixels))], output: ("patch_embeddings", output), mask: None }
}

/// Captions of different lengths, the longest of `length` tokens.
fn lengths(batch: usize, length: usize) -> Vec<usize> {
    (0..batch).map(|row| length - (row * 3) % (length - 2)).collect()
}

fn masks(lengths: &[usize], length: usize) -> Vec<i64> {
    lengths.iter().flat_map(|&own| (0..length).map(move |place| i64::from(place < own))).collect()
}

fn floats(shape: &[usize], values: &[i64]) -> Array {
    Array::new(shape, values.iter().map(|&value| value as f32).collect()).unwrap()
}

pub fn text_case(model: &Tiny, eager: &ModelEncoder<Array>, batch: usize, length: usize) -> Case {
    let mut random = SplitMix64::named((batch * 1000 + length) as u64, "tokens");
    let mask = masks(&lengths(batch, length), length);
    let vocabulary = model.config.text.vocab_size;
    let tokens: Vec<i64> = mask.iter().map(|&word| word * (1 + random.below(vocabulary - 1) as i64)).collect();
    let shape = [batch, length];
    let output = eager.model().text.forward(&floats(&shape, &tokens), &floats(&shape, &mask)).unwrap();
    let width = model.config.embed_size;
    let counts = mask.iter().flat_map(|&word| std::iter::repeat_n(word == 1, width)).collect();
    Case {
        inputs: vec![
            ("input_ids", Value::Whole(shape.to_vec(), tokens)),
            ("attention_mask", Value::Whole(shape.to_vec(), mask)),
        ],
        output: ("word_embeddings", output),
        mask: Some(counts),
    }
}

pub fn score_case(model: &Tiny, eager: &ModelEncoder<Array>, images: usize, captions: usize, words: usize) -> Case {
    let mut random = SplitMix64::named((images * 10_000 + captions * 100 + words) as u64, "embeddings");
    let width = model.config.embed_size;
    let tokens = model.config.image.num_patches() + usize::from(model.config.image.has_class_token());
    let patches = normal(&[images, tokens, width], &mut random);
    // The padding holds numbers too: they must not matter.
    let embeddings = normal(&[captions, words, width], &mut random);
    let lengths = lengths(captions, words);
    let mask = floats(&[captions, words], &masks(&lengths, words));
    let output = eager.model().alignment.forward(&patches, &embeddings, &mask).unwrap();
    let lengths: Vec<i64> = lengths.into_iter().map(|length| length as i64).collect();
    Case {
        inputs: vec![
            ("patch_embeddings", Value::Float(patches)),
            ("word_embeddings", Value::Float(embeddings)),
            ("lengths", Value::Whole(vec![captions], lengths)),
        ],
        output: ("similarities", output),
        mask: None,
    }
}

/// Every part at batch 1, 3, 5 x length 8, 33 x images 1, 7.
pub fn cases(model: &Tiny, eager: &ModelEncoder<Array>) -> Vec<(Part, Case)> {
    let mut cases = Vec::new();
    for batch in [1, 3, 5] {
        cases.push((Part::Image, image_case(model, eager, batch)));
        for length in [8, 33] {
            cases.push((Part::Text, text_case(model, eager, batch, length)));
            for images in [1, 7] {
                cases.push((Part::Score, score_case(model, eager, images, batch, length)));
            }
        }
    }
    cases
}
