//! Sessions: what runs, and what is refused.
#![allow(clippy::unwrap_used, clippy::panic)] // a helper of tests is a test

mod support;

use std::{collections::BTreeSet, error::Error as _};

use laps_model::{
    encoder::{Device, Encoder as _},
    random::SplitMix64,
};
use laps_onnx::{
    file::encode,
    graph::{Flavour, Graph},
    passes,
    record::Part,
    runtime::{Input, OrtEncoder, Place, Provider, RuntimeError, Session, SessionOptions, environment},
};
use support::{NEAR, Tiny, difference, image_case, runtime, target, tiny};

/// Which of `operators` the profile of a run on the processor has.
fn executed<'a>(model: &Tiny, part: Part, graph: &Graph, operators: &[&'a str]) -> Vec<&'a str> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(part.file());
    std::fs::write(&path, encode(graph, &[]).unwrap()).unwrap();
    let options = SessionOptions { profile: Some(folder.path().join("profile")), ..SessionOptions::cpu(1) };
    let session = Session::open(&path, &options).unwrap();
    let eager = model.eager();
    match part {
        Part::Image => drop(image_case(model, &eager, 2).run(&session)),
        _ => drop(support::text_case(model, &eager, 2, 8).run(&session)),
    }
    let profile = std::fs::read_to_string(session.end_profiling().unwrap()).unwrap();
    let named = |operator: &&&str| profile.contains(&format!("\"op_name\" : \"{operator}\""));
    operators.iter().filter(named).copied().collect()
}

#[test]
fn the_fused_operators_run() {
    if !runtime() {
        return;
    }
    let [vit, swin] = tiny();
    for (model, part) in [(&vit, Part::Image), (&vit, Part::Text), (&swin, Part::Image)] {
        let graph = model.graph(part, target(Flavour::Ort, 18));
        let found =
            executed(model, part, &graph, &["MultiHeadAttention", "SkipLayerNormalization", "BiasGelu", "Softmax"]);
        // Swin's norms do not follow a residual addition of the same shape everywhere, but some do.
        assert_eq!(found, ["MultiHeadAttention", "SkipLayerNormalization", "BiasGelu"], "{} {part}", model.name);
    }
}

/// What the processor computes faster apart stays apart; a product in 8 bits is one operation with its scale.
#[test]
fn the_processor_runs_what_is_faster_there() {
    if !runtime() {
        return;
    }
    let operators = ["SkipLayerNormalization", "BiasGelu", "MatMulInteger", "LayerNormalization", "Gelu"];
    let [vit, swin] = tiny();
    for (model, part) in [(&vit, Part::Image), (&vit, Part::Text), (&swin, Part::Image)] {
        let mut graph = model.graph(part, target(Flavour::Portable, 18));
        let found = executed(model, part, &graph, &operators);
        assert_eq!(found, ["LayerNormalization", "Gelu"], "{} {part}", model.name);
        passes::int8(&mut graph, &BTreeSet::new()).unwrap();
        let found = executed(model, part, &graph, &[operators.as_slice(), &["MatMulIntegerToFloat"]].concat());
        assert_eq!(found, ["LayerNormalization", "Gelu", "MatMulIntegerToFloat"], "{} {part}", model.name);
    }
}

/// Never a silent fallback: this library has no such provider, or there is no GPU so high.
#[test]
fn a_gpu_that_is_not_there_is_an_error() {
    if !runtime() {
        return;
    }
    let [vit, _] = tiny();
    let folder = tempfile::tempdir().unwrap();
    let path = vit.write(Part::Image, target(Flavour::Portable, 18), folder.path());
    let (_, library, build) = environment().unwrap();
    for provider in [Provider::Cuda, Provider::TensorRt] {
        let options = SessionOptions { place: Place::Gpu(provider, 4000), ..SessionOptions::cpu(1) };
        let Err(error) = Session::open(&path, &options) else { panic!("ran on something else") };
        println!("{error}");
        if library.path.with_file_name(provider.file().unwrap()).exists() {
            assert!(matches!(&error, RuntimeError::Provider { device, .. } if device == "cuda:4000"), "{error:?}");
            println!("{}", error.source().unwrap());
        } else {
            assert!(error.to_string().contains(provider.file().unwrap()), "{error}");
        }
        assert!(error.hint().unwrap().contains("make setup CUDA=1"), "{:?}", error.hint());
    }

    // `auto` takes what is there, and says what that is.
    let session = Session::open(&path, &SessionOptions { place: Place::Best, ..SessionOptions::cpu(1) }).unwrap();
    if !build.providers.contains(&Provider::Cuda) {
        assert_eq!((session.device(), session.provider()), (Device::Cpu, Provider::Cpu));
        assert_eq!(Place::Best.provider(), Provider::Cpu);
    }
}

/// The provider is that of the nodes which ran, and all of them are counted.
#[test]
fn what_ran_where_is_read_off_a_run() {
    if !runtime() {
        return;
    }
    let [vit, _] = tiny();
    let folder = tempfile::tempdir().unwrap();
    for part in [Part::Image, Part::Text] {
        vit.write(part, target(Flavour::Ort, 18), folder.path());
    }
    let sizes = (vit.config.image.image_size(), vit.config.text.max_position_embeddings);
    let encoder = OrtEncoder::open(folder.path(), sizes, &SessionOptions::cpu(1)).unwrap();
    assert_eq!(encoder.provider(), Provider::Cpu);
    for part in ["image", "text"] {
        let placement = &encoder.placement()[part];
        assert_eq!(placement.keys().collect::<Vec<_>>(), ["CPUExecutionProvider"]);
        // Two blocks of six products each, two of them in the fused attention.
        assert!((20..100).contains(&placement["CPUExecutionProvider"]), "{placement:?}");
    }
    assert!(folder.path().read_dir().unwrap().count() == 2, "no profile is left beside the graphs");
}

/// A session that was told to stop runs nothing more; others do.
#[test]
fn a_run_can_be_ended_from_another_thread() {
    if !runtime() {
        return;
    }
    let [vit, _] = tiny();
    let folder = tempfile::tempdir().unwrap();
    let path = vit.write(Part::Image, target(Flavour::Portable, 18), folder.path());
    let (session, other) = (support::open(&path), support::open(&path));
    let case = image_case(&vit, &vit.eager(), 1);
    case.run(&session);
    let stopper = session.stopper();
    std::thread::spawn(move || stopper.stop().unwrap()).join().unwrap();
    let inputs: Vec<_> = case.inputs.iter().map(|(_, value)| value.input()).collect();
    let error = session.run(&inputs).unwrap_err();
    assert!(matches!(&error, RuntimeError::Run { .. }), "{error:?}");
    assert!(error.source().unwrap().to_string().contains("terminate"), "{:?}", error.source());
    case.run(&other);
}

/// What is copied into kept memory fits it, and a session goes on after what did not.
#[test]
fn inputs_that_do_not_fit_are_errors() {
    if !runtime() {
        return;
    }
    let [vit, _] = tiny();
    let folder = tempfile::tempdir().unwrap();
    let session = support::open(&vit.write(Part::Image, target(Flavour::Portable, 18), folder.path()));
    let eager = vit.eager();
    let (two, three) = (image_case(&vit, &eager, 2), image_case(&vit, &eager, 3));
    let expected = two.run(&session);
    let size = vit.config.image.image_size();
    let (shape, values) = ([2, 3, size, size], vec![0.0; 2 * 3 * size * size]);
    let whole = vec![0; values.len()];
    for (inputs, cause) in [
        (vec![Input::Float(&shape, &values[1..])], "values"),
        (vec![], "0 inputs for a graph of 1"),
        (vec![Input::Float(&shape, &values), Input::Float(&shape, &values)], "2 inputs for a graph of 1"),
        (vec![Input::Whole(&shape, &whole)], "expected: (tensor(float))"),
        (vec![Input::Float(&shape[..2], &values[..6])], "pixel_values"),
    ] {
        let error = session.run(&inputs).unwrap_err();
        assert!(error.source().unwrap().to_string().contains(cause), "{:?}", error.source());
        // Other sizes and back: what the memory held before leaves no trace.
        assert_eq!(three.run(&session).dims()[0], 3);
        assert!(two.run(&session) == expected && two.run(&session) == expected);
    }
}

#[test]
fn a_file_that_is_no_graph_is_an_error() {
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

/// Padding to a bucket, and other captions beside it, change no embedding.
#[test]
fn captions_of_any_length_agree_with_the_model_in_pure_rust() {
    if !runtime() {
        return;
    }
    for model in tiny() {
        let folder = tempfile::tempdir().unwrap();
        for part in [Part::Image, Part::Text] {
            model.write(part, target(Flavour::Ort, 18), folder.path());
        }
        let longest = model.config.text.max_position_embeddings;
        let encoder =
            OrtEncoder::open(folder.path(), (model.config.image.image_size(), longest), &SessionOptions::cpu(1))
                .unwrap();
        let eager = model.eager();
        let mut random = SplitMix64::named(7, "captions");
        let lengths = [3, 8, 21, 5, 1, longest];
        let captions: Vec<Vec<u32>> =
            lengths.iter().map(|&length| (0..length).map(|_| 1 + random.below(1000) as u32).collect()).collect();
        for batch in [&captions[..1], &captions[..4], &captions[4..5], &captions[4..]] {
            let rows: Vec<&[u32]> = batch.iter().map(Vec::as_slice).collect();
            let (found, expected) = (encoder.encode_captions(&rows).unwrap(), eager.encode_captions(&rows).unwrap());
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                assert!(difference(found, expected) <= NEAR);
            }
        }
        assert!(encoder.encode_captions(&[]).unwrap().is_empty());
    }
}
