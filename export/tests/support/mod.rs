//! Shared helpers of the graph tests: tiny models with golden weights, inputs, and the pure-Rust model.
#![allow(dead_code, unused_imports)] // each test binary uses some of the helpers
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::Command,
};

use laps_hub::checkpoint::Checkpoint;
use laps_model::{
    array::Array,
    encoder::ModelEncoder,
    heads::{Head, HeadSizes},
    models::config::ModelConfig,
    params::Parameter,
    random::SplitMix64,
};
use laps_onnx::{
    file,
    graph::{Flavour, Graph, GraphKind, Opset, Target},
    record::record,
    runtime::{ExecutionDevice, InputTensor, ProviderChoice, Session, SessionOptions, environment},
};

use safetensors::{Dtype, tensor::TensorView};

#[path = "../../../zoo/model/tests/support/mod.rs"]
pub mod models;

pub use models::{Tensors, device, difference, golden, swin_tiny, vit_tiny};

/// Tolerance between two correct f32 implementations of models of this size, which sum in different orders.
pub const TOLERANCE: f32 = 1e-4;

/// A tiny model with golden weights.
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

    pub fn model(&self) -> ModelEncoder<Array> {
        ModelEncoder::new(&self.config, (), self.read()).unwrap()
    }

    pub fn graph(&self, kind: GraphKind, target: Target) -> Graph {
        record(kind, &self.config, target, self.read()).unwrap()
    }

    /// Writes the graph `kind` to `folder` and returns its path.
    pub fn write(&self, kind: GraphKind, target: Target, folder: &Path) -> PathBuf {
        let path = folder.join(kind.file());
        std::fs::write(&path, encode(&self.graph(kind, target))).unwrap();
        path
    }
}

/// The ONNX file of a graph without metadata.
pub fn encode(graph: &Graph) -> Vec<u8> {
    let mut bytes = Vec::new();
    file::write(graph, &[], &mut bytes).unwrap();
    bytes
}

/// Returns true if ONNX Runtime is available, and prints a note if not.
pub fn runtime() -> bool {
    let found = environment();
    if let Err(error) = &found {
        println!("skipped: {error}");
    }
    found.is_ok()
}

pub fn open(path: &Path) -> Session {
    let device = ExecutionDevice::new(ProviderChoice::Auto, device()).unwrap();
    Session::open(path, &SessionOptions { device, ..SessionOptions::cpu(1) }).unwrap()
}

/// Inputs of one graph, and the output of the pure-Rust model.
pub struct GraphCase {
    pub inputs: Vec<(&'static str, CaseInput)>,
    pub output: (&'static str, Array),
    /// Which values of the output are compared; None for all.
    pub mask: Option<Vec<bool>>,
}

/// An input tensor with its values.
pub enum CaseInput {
    F32(Array),
    I64(Vec<usize>, Vec<i64>),
}

impl CaseInput {
    pub fn input(&self) -> InputTensor<'_> {
        match self {
            Self::F32(array) => InputTensor::F32(array.dims(), array.values()),
            Self::I64(shape, values) => InputTensor::I64(shape, values),
        }
    }
}

impl GraphCase {
    pub fn run(&self, session: &Session) -> Array {
        let inputs: Vec<InputTensor<'_>> = self.inputs.iter().map(|(_, value)| value.input()).collect();
        session.run(&inputs).unwrap()
    }
}

fn normal(shape: &[usize], random: &mut SplitMix64) -> Array {
    let count = shape.iter().product();
    Array::new(shape, (0..count).map(|_| random.normal() as f32).collect()).unwrap()
}

pub fn image_case(model: &Tiny, encoder: &ModelEncoder<Array>, batch: usize) -> GraphCase {
    let size = model.config.image.image_size();
    let pixels = normal(&[batch, 3, size, size], &mut SplitMix64::named(batch as u64, "pixels"));
    let output = encoder.model().image.forward(&pixels).unwrap();
    GraphCase {
        inputs: vec![("pixel_values", CaseInput::F32(pixels))],
        output: ("patch_embeddings", output),
        mask: None,
    }
}

/// Lengths of `batch` captions, the longest of `length` tokens.
fn lengths(batch: usize, length: usize) -> Vec<usize> {
    (0..batch).map(|row| length - (row * 3) % length.saturating_sub(2).max(1)).collect()
}

fn masks(lengths: &[usize], length: usize) -> Vec<i64> {
    lengths.iter().flat_map(|&own| (0..length).map(move |token| i64::from(token < own))).collect()
}

fn floats(shape: &[usize], values: &[i64]) -> Array {
    Array::new(shape, values.iter().map(|&value| value as f32).collect()).unwrap()
}

pub fn text_case(model: &Tiny, encoder: &ModelEncoder<Array>, batch: usize, length: usize) -> GraphCase {
    let mut random = SplitMix64::named((batch * 1000 + length) as u64, "tokens");
    let mask = masks(&lengths(batch, length), length);
    let vocabulary = model.config.text.vocab_size;
    let tokens: Vec<i64> = mask.iter().map(|&word| word * (1 + random.below(vocabulary - 1) as i64)).collect();
    let shape = [batch, length];
    let output = encoder.model().text.forward(&floats(&shape, &tokens), &floats(&shape, &mask)).unwrap();
    let width = model.config.embed_size;
    let counts = mask.iter().flat_map(|&word| std::iter::repeat_n(word == 1, width)).collect();
    GraphCase {
        inputs: vec![
            ("input_ids", CaseInput::I64(shape.to_vec(), tokens)),
            ("attention_mask", CaseInput::I64(shape.to_vec(), mask)),
        ],
        output: ("word_embeddings", output),
        mask: Some(counts),
    }
}

pub fn score_case(
    model: &Tiny,
    encoder: &ModelEncoder<Array>,
    images: usize,
    captions: usize,
    words: usize,
) -> GraphCase {
    head_case(&model.config, &encoder.model().head, images, captions, words)
}

/// Random embeddings, and their similarities by `head`, which is that of `config`.
pub fn head_case(config: &ModelConfig, head: &Head<Array>, images: usize, captions: usize, words: usize) -> GraphCase {
    let mut random = SplitMix64::named((images * 10_000 + captions * 100 + words) as u64, "embeddings");
    let HeadSizes { tokens, width, word_width, .. } = HeadSizes::of(config);
    let patches = normal(&[images, tokens, width], &mut random);
    // The padding holds values too, which must not affect the result.
    let embeddings = normal(&[captions, words, word_width], &mut random);
    let lengths = lengths(captions, words);
    let mask = floats(&[captions, words], &masks(&lengths, words));
    let output = head.forward(&patches, &embeddings, &mask).unwrap();
    let lengths: Vec<i64> = lengths.into_iter().map(|length| length as i64).collect();
    GraphCase {
        inputs: vec![
            ("patch_embeddings", CaseInput::F32(patches)),
            ("word_embeddings", CaseInput::F32(embeddings)),
            ("lengths", CaseInput::I64(vec![captions], lengths)),
        ],
        output: ("similarities", output),
        mask: None,
    }
}

/// Every graph at batch 1, 3, 5 x length 8, 33 x images 1, 7.
pub fn cases(model: &Tiny, encoder: &ModelEncoder<Array>) -> Vec<(GraphKind, GraphCase)> {
    let mut cases = Vec::new();
    for batch in [1, 3, 5] {
        cases.push((GraphKind::Image, image_case(model, encoder, batch)));
        for length in [8, 33] {
            cases.push((GraphKind::Text, text_case(model, encoder, batch, length)));
            for images in [1, 7] {
                cases.push((GraphKind::Score, score_case(model, encoder, images, batch, length)));
            }
        }
    }
    cases
}

/// Writes a case as safetensors for `second_engine.py`.
pub fn store(case: &GraphCase, path: &Path) {
    let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    for (name, value) in &case.inputs {
        tensors.push(match value {
            CaseInput::F32(array) => {
                (format!("input.{name}"), Dtype::F32, array.dims().to_vec(), bytes(array.values()))
            }
            CaseInput::I64(shape, values) => {
                let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                (format!("input.{name}"), Dtype::I64, shape.clone(), bytes)
            }
        });
    }
    let (name, output) = &case.output;
    tensors.push((format!("output.{name}"), Dtype::F32, output.dims().to_vec(), bytes(output.values())));
    if let Some(mask) = &case.mask {
        let mask = mask.iter().map(|&counts| u8::from(counts)).collect();
        tensors.push(("mask".to_owned(), Dtype::U8, output.dims().to_vec(), mask));
    }
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    std::fs::write(path, safetensors::serialize(views, None::<HashMap<String, String>>).unwrap()).unwrap();
}

/// Python with the reference evaluator of the ONNX project.
pub struct SecondEngine(PathBuf);

/// The second engine, or None with a note if it is not installed.
pub fn second_engine() -> Option<SecondEngine> {
    let python = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.runtime/real/venv/bin/python"));
    if python.exists() {
        return Some(SecondEngine(python));
    }
    println!("skipped: `{}` with onnx is missing; `.ci/run reference_data` installs it", python.display());
    None
}

impl SecondEngine {
    /// Runs `second_engine.py` on the graphs and cases of `folder`, and returns what it prints.
    pub fn run(&self, folder: &Path, tolerance: f32) -> String {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/second_engine.py");
        let output = Command::new(&self.0).arg(script).arg(folder).arg(tolerance.to_string()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        println!("{text}");
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }
}
