//! Sessions of ONNX Runtime: executed operators, providers, and rejected inputs.
#![allow(clippy::unwrap_used, clippy::panic)] // tests and their helpers

mod support;

use std::{collections::BTreeSet, error::Error as _};

use laps_model::{
    encoder::{Device, Encoder as _},
    random::SplitMix64,
};
use laps_onnx::{
    graph::{Flavour, Graph, GraphKind},
    passes,
    runtime::{ExecutionDevice, InputTensor, OrtEncoder, Provider, RuntimeError, Session, SessionOptions, environment},
};
use support::{TOLERANCE, Tiny, difference, encode, image_case, runtime, target, tiny};

/// The `operators` in the profile of a run on the CPU.
fn executed<'a>(model: &Tiny, kind: GraphKind, graph: &Graph, operators: &[&'a str]) -> Vec<&'a str> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(kind.file());
    std::fs::write(&path, encode(graph)).unwrap();
    let options = SessionOptions { profile: Some(folder.path().join("profile")), ..SessionOptions::cpu(1) };
    let session = Session::open(&path, &options).unwrap();
    let encoder = model.model();
    match kind {
        GraphKind::Image => drop(image_case(model, &encoder, 2).run(&session)),
        _ => drop(support::text_case(model, &encoder, 2, 8).run(&session)),
    }
    let profile = std::fs::read_to_string(session.end_profiling().unwrap()).unwrap();
    let named = |operator: &&&str| profile.contains(&format!("\"op_name\" : \"{operator}\""));
    operators.iter().filter(named).copied().collect()
}

#[test]
fn fused_operators_run() {
    if !runtime() {
        return;
    }
    let [vit, swin] = tiny();
    for (model, kind) in [(&vit, GraphKind::Image), (&vit, GraphKind::Text), (&swin, GraphKind::Image)] {
        let graph = model.graph(kind, target(Flavour::Ort, 18));
        let found =
            executed(model, kind, &graph, &["MultiHeadAttention", "SkipLayerNormalization", "BiasGelu", "Softmax"]);
        // Some of Swin's norms follow a residual addition of the same shape.
        assert_eq!(found, ["MultiHeadAttention", "SkipLayerNormalization", "BiasGelu"], "{} {kind}", model.name);
    }
}

/// Operators that are faster unfused on a CPU stay separate; an int8 product is fused with its scale.
#[test]
fn cpu_runs_the_faster_operators() {
    if !runtime() {
        return;
    }
    let operators = ["SkipLayerNormalization", "BiasGelu", "MatMulInteger", "LayerNormalization", "Gelu"];
    let [vit, swin] = tiny();
    for (model, kind) in [(&vit, GraphKind::Image), (&vit, GraphKind::Text), (&swin, GraphKind::Image)] {
        let mut graph = model.graph(kind, target(Flavour::Portable, 18));
        let found = executed(model, kind, &graph, &operators);
        assert_eq!(found, ["LayerNormalization", "Gelu"], "{} {kind}", model.name);
        passes::int8(&mut graph, &BTreeSet::new()).unwrap();
        let found = executed(model, kind, &graph, &[operators.as_slice(), &["MatMulIntegerToFloat"]].concat());
        assert_eq!(found, ["LayerNormalization", "Gelu", "MatMulIntegerToFloat"], "{} {kind}", model.name);
    }
}

/// There is no silent fallback: the library has no such provider, or there is no GPU of this number.
#[test]
fn missing_gpu_is_an_error() {
    if !runtime() {
        return;
    }
    let [vit, _] = tiny();
    let folder = tempfile::tempdir().unwrap();
    let path = vit.write(GraphKind::Image, target(Flavour::Portable, 18), folder.path());
    let (_, library, build) = environment().unwrap();
    for provider in [Provider::Cuda, Provider::TensorRt] {
        let options = SessionOptions { device: ExecutionDevice::Gpu(provider, 4000), ..SessionOptions::cpu(1) };
        let Err(error) = Session::open(&path, &options) else { panic!("ran on another device") };
        println!("{error}");
        if library.path.with_file_name(provider.file().unwrap()).exists() {
            assert!(matches!(&error, RuntimeError::Provider { device, .. } if device == "cuda:4000"), "{error:?}");
            println!("{}", error.source().unwrap());
        } else {
            assert!(error.to_string().contains(provider.file().unwrap()), "{error}");
        }
        assert!(error.hint().unwrap().contains("make setup CUDA=1"), "{:?}", error.hint());
    }

    // `auto` uses what is available and reports it.
    let session =
        Session::open(&path, &SessionOptions { device: ExecutionDevice::Auto, ..SessionOptions::cpu(1) }).unwrap();
    if !build.providers.contains(&Provider::Cuda) {
        assert_eq!((session.device(), session.provider()), (Device::Cpu, Provider::Cpu));
        assert_eq!(ExecutionDevice::Auto.provider(), Provider::Cpu);
    }
}

/// All executed nodes are counted by their provider.
#[test]
fn placement_counts_executed_nodes() {
    if !runtime() {
        return;
    }
    let [vit, _] = tiny();
    let folder = tempfile::tempdir().unwrap();
    for kind in [GraphKind::Image, GraphKind::Text] {
        vit.write(kind, target(Flavour::Ort, 18), folder.path());
    }
    let (size, length) = (vit.config.image.image_size(), vit.config.text.max_position_embeddings);
    let encoder = OrtEncoder::open(folder.path(), size, length, &SessionOptions::cpu(1)).unwrap();
    assert_eq!(encoder.provider(), Provider::Cpu);
    for kind in ["image", "text"] {
        let placement = &encoder.placement().unwrap()[kind];
        assert_eq!(placement.keys().collect::<Vec<_>>(), ["CPUExecutionProvider"]);
        // Two blocks of six products each, two of them in the fused attention.
        assert!((20..100).contains(&placement["CPUExecutionProvider"]), "{placement:?}");
    }
    assert!(folder.path().read_dir().unwrap().count() == 2, "no profile is left next to the graphs");
}

/// Inputs that do not match are errors, and the session stays usable.
#[test]
fn mismatched_inputs_are_errors() {
    if !runtime() {
        return;
    }
    let [vit, _] = tiny();
    let folder = tempfile::tempdir().unwrap();
    let session = support::open(&vit.write(GraphKind::Image, target(Flavour::Portable, 18), folder.path()));
    let encoder = vit.model();
    let (two, three) = (image_case(&vit, &encoder, 2), image_case(&vit, &encoder, 3));
    let expected = two.run(&session);
    let size = vit.config.image.image_size();
    let (shape, values) = ([2, 3, size, size], vec![0.0; 2 * 3 * size * size]);
    let integers = vec![0; values.len()];
    for (inputs, cause) in [
        (vec![InputTensor::F32(&shape, &values[1..])], "values"),
        (vec![], "the graph has 1 inputs, not 0"),
        (vec![InputTensor::F32(&shape, &values), InputTensor::F32(&shape, &values)], "the graph has 1 inputs, not 2"),
        (vec![InputTensor::I64(&shape, &integers)], "expected: (tensor(float))"),
        (vec![InputTensor::F32(&shape[..2], &values[..6])], "pixel_values"),
    ] {
        let error = session.run(&inputs).unwrap_err();
        assert!(error.source().unwrap().to_string().contains(cause), "{:?}", error.source());
        // Other shapes and back: earlier content of the buffers has no effect.
        assert_eq!(three.run(&session).dims()[0], 3);
        assert!(two.run(&session) == expected && two.run(&session) == expected);
    }
}

#[test]
fn file_that_is_not_a_graph_is_an_error() {
    if !runtime() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.onnx");
    std::fs::write(&path, b"not a graph").unwrap();
    for path in [path, folder.path().join("absent.onnx")] {
        let error = Session::open(&path, &SessionOptions::cpu(1)).err().unwrap();
        assert!(matches!(error, RuntimeError::Graph { .. }), "{error:?}");
    }
}

/// Neither padding nor the other captions of a batch change an embedding.
#[test]
fn captions_of_any_length_agree_with_the_pure_rust_model() {
    if !runtime() {
        return;
    }
    for model in tiny() {
        let folder = tempfile::tempdir().unwrap();
        for kind in [GraphKind::Image, GraphKind::Text] {
            model.write(kind, target(Flavour::Ort, 18), folder.path());
        }
        let longest = model.config.text.max_position_embeddings;
        let encoder =
            OrtEncoder::open(folder.path(), model.config.image.image_size(), longest, &SessionOptions::cpu(1)).unwrap();
        let reference = model.model();
        let mut random = SplitMix64::named(7, "captions");
        let lengths = [3, 8, 21, 5, 1, longest];
        let captions: Vec<Vec<u32>> =
            lengths.iter().map(|&length| (0..length).map(|_| 1 + random.below(1000) as u32).collect()).collect();
        for batch in [&captions[..1], &captions[..4], &captions[4..5], &captions[4..]] {
            let rows: Vec<&[u32]> = batch.iter().map(Vec::as_slice).collect();
            let (found, expected) =
                (encoder.encode_captions(&rows).unwrap(), reference.encode_captions(&rows).unwrap());
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                assert!(difference(found, expected) <= TOLERANCE);
            }
            // Padded positions have embeddings too.
            let (found, expected) = (encoder.encode_padded(&rows).unwrap(), reference.encode_padded(&rows).unwrap());
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                assert!(difference(found, expected) <= TOLERANCE);
            }
        }
        assert!(encoder.encode_captions(&[]).unwrap().is_empty());
    }
}
