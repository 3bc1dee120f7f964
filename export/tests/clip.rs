//! Graphs of CLIP's encoders in ONNX Runtime against tensors of Hugging Face transformers 4.46.3.
#![allow(clippy::unwrap_used, clippy::panic)] // tests

mod support;

use laps_model::{array::Array, models::config::ModelConfig, params::Parameter, tensor::Tensor as _};
use laps_onnx::{
    graph::{Flavour, Graph, GraphKind},
    record::record,
};
use support::{
    CaseInput, GraphCase, Tensors, difference, encode,
    models::{clip_text, clip_vision},
    open, runtime, second_engine, store, target, vit_tiny,
};

/// See `zoo/model/tests/clip/cases.rs`.
const TOLERANCE: f32 = 3e-5;

/// The encoder graph `kind`, with the width of its backbone, so that it needs no projection.
fn graph(kind: GraphKind, flavour: Flavour, opset: u32) -> Graph {
    let (file, prefix) = match kind {
        GraphKind::Image => ("clip_vision_tiny.safetensors", "img_enc.visual_encoder."),
        _ => ("clip_text_tiny.safetensors", "txt_enc.clip."),
    };
    let embed_size = if kind == GraphKind::Image { 32 } else { 24 };
    let config = ModelConfig { image: clip_vision(), text: clip_text(), embed_size, ..vit_tiny() };
    let golden = Tensors::open(file);
    let read = move |parameter: &Parameter| Ok(golden.get(parameter.name.strip_prefix(prefix).unwrap()));
    record(kind, &config, target(flavour, opset), read).unwrap()
}

/// Runs a graph on `inputs`.
fn run(graph: &Graph, inputs: &[CaseInput]) -> Array {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("graph.onnx");
    std::fs::write(&path, encode(graph)).unwrap();
    let inputs: Vec<_> = inputs.iter().map(CaseInput::input).collect();
    open(&path).run(&inputs).unwrap()
}

/// The integers `name`, which [`Tensors`] reads as f32.
fn integers(golden: &Tensors, name: &str) -> CaseInput {
    let array = golden.get(name);
    CaseInput::I64(array.dims().to_vec(), array.values().iter().map(|&value| value as i64).collect())
}

#[test]
fn clip_graphs_agree_with_the_reference() {
    if !runtime() {
        return;
    }
    let [vision, text] = ["clip_vision_tiny.safetensors", "clip_text_tiny.safetensors"].map(Tensors::open);
    for flavour in Flavour::ALL {
        for opset in [17, 18, 20, 23] {
            let image = graph(GraphKind::Image, flavour, opset);
            let tokens = run(&image, &[CaseInput::F32(vision.get("pixel_values"))]);
            let image_drift = difference(&tokens, &vision.get("last_hidden_state_post_layernorm"));
            let inputs = ["input_ids", "attention_mask"].map(|name| integers(&text, name));
            let words = run(&graph(GraphKind::Text, flavour, opset), &inputs);
            let mut text_drift = difference(&words, &text.get("last_hidden_state_without_mask"));
            let masked = text.get("last_hidden_state");
            for (row, &length) in text.get("lengths").values().iter().enumerate() {
                let row = |array: &Array| array.rows(row..row + 1).unwrap().narrow(1, 0, length as usize).unwrap();
                text_drift = text_drift.max(difference(&row(&words), &row(&masked)));
            }
            println!("{flavour} opset {opset}: images {image_drift:e}, captions {text_drift:e}");
            assert!(image_drift <= TOLERANCE && text_drift <= TOLERANCE, "{flavour} {opset}");
        }
    }
}

/// Runs the checker of the ONNX project on the graphs, and its reference evaluator on the inputs of the reference.
#[test]
fn clip_graphs_pass_the_checker_and_agree_in_the_reference_evaluator() {
    let Some(python) = second_engine() else { return };
    let folder = tempfile::tempdir().unwrap();
    let targets = [(Flavour::Portable, 17), (Flavour::Portable, 18), (Flavour::Portable, 23), (Flavour::Ort, 18)];
    for (flavour, opset) in targets {
        let target_folder = folder.path().join(format!("clip-{flavour}-{opset}"));
        std::fs::create_dir(&target_folder).unwrap();
        for kind in [GraphKind::Image, GraphKind::Text] {
            std::fs::write(target_folder.join(kind.file()), encode(&graph(kind, flavour, opset))).unwrap();
        }
    }
    let [vision, text] = ["clip_vision_tiny.safetensors", "clip_text_tiny.safetensors"].map(Tensors::open);
    let images = GraphCase {
        inputs: vec![("pixel_values", CaseInput::F32(vision.get("pixel_values")))],
        output: ("patch_embeddings", vision.get("last_hidden_state_post_layernorm")),
        mask: None,
    };
    let captions = GraphCase {
        inputs: ["input_ids", "attention_mask"].map(|name| (name, integers(&text, name))).into(),
        output: ("word_embeddings", text.get("last_hidden_state_without_mask")),
        mask: None,
    };
    let cases_folder = folder.path().join("clip-cases");
    std::fs::create_dir(&cases_folder).unwrap();
    for (kind, case) in [(GraphKind::Image, images), (GraphKind::Text, captions)] {
        store(&case, &cases_folder.join(format!("{kind}-0.safetensors")));
    }
    let text = python.run(folder.path(), TOLERANCE);
    // Four targets of two encoders.
    assert_eq!(text.lines().filter(|line| line.ends_with(" ok")).count(), 4 * 2, "{text}");
}

/// Two blocks with one fused attention each, which takes the causal mask as its bias.
#[test]
fn attention_of_both_encoders_is_fused_for_onnx_runtime() {
    for kind in [GraphKind::Image, GraphKind::Text] {
        let count = |flavour, name: &str| {
            graph(kind, flavour, 18).nodes().iter().filter(|node| node.operator.name == name).count()
        };
        assert_eq!(count(Flavour::Ort, "MultiHeadAttention"), 2);
        assert_eq!(count(Flavour::Ort, "Softmax"), 0);
        assert_eq!(count(Flavour::Portable, "MultiHeadAttention"), 0);
        assert_eq!(count(Flavour::Portable, "Softmax"), 2);
    }
}
