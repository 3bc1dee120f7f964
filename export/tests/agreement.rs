//! Graphs compared with the model that they were recorded from, in ONNX Runtime and in the reference evaluator of the ONNX
//! project, at several sizes: recorded graphs have symbolic sizes.
#![allow(clippy::unwrap_used, clippy::panic)] // tests and their helpers

mod support;

use std::{collections::BTreeSet, path::Path};

use laps_model::{
    heads::HeadConfig,
    models::config::{ImageConfig, ModelConfig, SwinConfig},
    tensor::Tensor as _,
};
use laps_onnx::{
    graph::{Flavour, GraphKind},
    passes,
};
use support::{
    CaseInput, GraphCase, TOLERANCE, Tensors, Tiny, cases, difference, encode, image_case, open, runtime,
    second_engine, store, swin_tiny, target, tiny,
};

/// Opsets that differ in operators: axes are an input from 18 on, `Gelu` exists from 20 on.
const OPSETS: [u32; 4] = [17, 18, 20, 23];

#[test]
fn graphs_in_onnx_runtime_agree_with_the_pure_rust_model() {
    if !runtime() {
        return;
    }
    for model in tiny() {
        let encoder = model.model();
        let cases = cases(&model, &encoder);
        for flavour in [Flavour::Portable, Flavour::Ort] {
            for opset in OPSETS {
                let folder = tempfile::tempdir().unwrap();
                let mut largest = 0.0f32;
                for kind in GraphKind::ALL {
                    let session = open(&model.write(kind, target(flavour, opset), folder.path()));
                    for (_, case) in cases.iter().filter(|(own, _)| *own == kind) {
                        let found = case.run(&session);
                        let drift = drift(case, found.values());
                        assert_eq!(found.dims(), case.output.1.dims());
                        assert!(drift <= TOLERANCE, "{} {kind} {flavour} {opset}: {drift}", model.name);
                        largest = largest.max(drift);
                    }
                }
                println!("{} {flavour} opset {opset}: {largest:.1e} at most", model.name);
            }
        }
    }
}

/// A Swin encoder whose stages, of 80, 40, 20 and 10 tokens a side, are padded for windows of 7.
#[test]
fn padded_windows_in_onnx_runtime_agree_with_the_pure_rust_model() {
    if !runtime() {
        return;
    }
    let ImageConfig::Swin(swin) = swin_tiny().image else { panic!("Swin") };
    let image = ImageConfig::Swin(SwinConfig { image_size: 320, ..swin });
    let config = ModelConfig { image, sparse_ratio: 0.0, aggr_ratio: 0.0, head: HeadConfig::MaxMean, ..swin_tiny() };
    let model = Tiny { name: "swin", config };
    let case = image_case(&model, &model.model(), 2);
    for flavour in [Flavour::Portable, Flavour::Ort] {
        let folder = tempfile::tempdir().unwrap();
        let session = open(&model.write(GraphKind::Image, target(flavour, 18), folder.path()));
        let found = case.run(&session);
        assert_eq!(found.dims(), [2, 100, 96]);
        let drift = drift(&case, found.values());
        assert!(drift <= TOLERANCE, "{flavour}: {drift}");
    }
}

/// Largest difference among the compared values.
fn drift(case: &GraphCase, found: &[f32]) -> f32 {
    let expected = case.output.1.values();
    assert_eq!(found.len(), expected.len());
    let is_compared = |index: usize| case.mask.as_ref().is_none_or(|mask| mask[index]);
    let indices = (0..found.len()).filter(|&index| is_compared(index));
    indices.map(|index| (found[index] - expected[index]).abs()).fold(0.0, |all, difference| {
        assert!(difference.is_finite());
        all.max(difference)
    })
}

/// The golden tensors come from the authors' code and Hugging Face's models.
#[test]
fn graphs_in_onnx_runtime_agree_with_the_golden_tensors() {
    if !runtime() {
        return;
    }
    for model in tiny() {
        let golden = Tensors::open(&format!("{}_forward.safetensors", model.name));
        let integers = |name: &str| {
            let array = golden.get(name);
            CaseInput::I64(array.dims().to_vec(), array.values().iter().map(|&value| value as i64).collect())
        };
        let folder = tempfile::tempdir().unwrap();
        for flavour in [Flavour::Portable, Flavour::Ort] {
            let [image, text, score] =
                GraphKind::ALL.map(|kind| open(&model.write(kind, target(flavour, 18), folder.path())));
            let patches = image.run(&[CaseInput::F32(golden.get("images")).input()]).unwrap();
            assert!(difference(&patches, &golden.get("img_emb")) <= TOLERANCE);
            let tokens = golden.get("tokens");
            let mask: Vec<i64> = tokens.values().iter().map(|&token| i64::from(token != 0.0)).collect();
            let mask = CaseInput::I64(tokens.dims().to_vec(), mask);
            let words = text.run(&[integers("tokens").input(), mask.input()]).unwrap();
            let expected = golden.get("cap_emb");
            for (row, &length) in golden.get("lengths").values().iter().enumerate() {
                let row = |array: &laps_model::array::Array| {
                    array.rows(row..row + 1).unwrap().narrow(1, 0, length as usize).unwrap()
                };
                assert!(difference(&row(&words), &row(&expected)) <= TOLERANCE);
            }
            let inputs = [CaseInput::F32(patches), CaseInput::F32(words), integers("lengths")];
            let similarities = score.run(&inputs.each_ref().map(CaseInput::input)).unwrap();
            assert!(difference(&similarities, &golden.get("sims")) <= TOLERANCE);
        }
    }
}

/// Runs the checker of the ONNX project on every graph, and its reference evaluator on every case.
#[test]
fn graphs_pass_the_checker_and_agree_in_the_reference_evaluator() {
    let Some(python) = second_engine() else { return };
    let folder = tempfile::tempdir().unwrap();
    for model in tiny() {
        write_cases(&model, folder.path());
        write_reduced(&model, folder.path());
    }
    let text = python.run(folder.path(), TOLERANCE);
    // Two models; the portable flavour with opset 17, 18 and 23, the flavour `ort` with 18; three graphs each.
    assert_eq!(text.lines().filter(|line| line.ends_with(" ok")).count(), 2 * (3 + 1) * 3, "{text}");
    // Two models, two flavours, two precisions, two encoders.
    assert_eq!(text.lines().filter(|line| line.ends_with(": checked")).count(), 2 * 2 * 2 * 2, "{text}");
}

/// Writes the encoders in fp16 and int8, with the oldest and the newest opset.
fn write_reduced(model: &Tiny, folder: &Path) {
    for (flavour, opset) in [(Flavour::Portable, 17), (Flavour::Ort, 23)] {
        for precision in ["fp16", "int8"] {
            let target_folder = folder.join(format!("checked/{}-{flavour}-{precision}", model.name));
            std::fs::create_dir_all(&target_folder).unwrap();
            for kind in [GraphKind::Image, GraphKind::Text] {
                let mut graph = model.graph(kind, target(flavour, opset));
                match precision {
                    "fp16" => passes::half(&mut graph),
                    _ => passes::int8(&mut graph, &BTreeSet::new()).unwrap(),
                }
                passes::lower(&mut graph);
                std::fs::write(target_folder.join(kind.file()), encode(&graph)).unwrap();
            }
        }
    }
}

/// Writes all graphs of a model, and its cases.
fn write_cases(model: &Tiny, folder: &Path) {
    let encoder = model.model();
    let targets = [(Flavour::Portable, 17), (Flavour::Portable, 18), (Flavour::Portable, 23), (Flavour::Ort, 18)];
    for (flavour, opset) in targets {
        let target_folder = folder.join(format!("{}-{flavour}-{opset}", model.name));
        std::fs::create_dir(&target_folder).unwrap();
        for kind in GraphKind::ALL {
            model.write(kind, target(flavour, opset), &target_folder);
        }
    }
    let cases_folder = folder.join(format!("{}-cases", model.name));
    std::fs::create_dir(&cases_folder).unwrap();
    for (index, (kind, case)) in cases(model, &encoder).iter().enumerate() {
        store(case, &cases_folder.join(format!("{kind}-{index}.safetensors")));
    }
}
