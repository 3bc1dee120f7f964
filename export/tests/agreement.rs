//! Graphs against the model that they were recorded from, in ONNX Runtime and in a second engine, at sizes that no graph
//! knows: what is recorded has symbols.
#![allow(clippy::unwrap_used, clippy::panic)] // a helper of tests is a test

mod support;

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
    process::Command,
};

use laps_model::tensor::Tensor as _;
use laps_onnx::{file::encode, graph::Flavour, passes, record::Part};
use safetensors::{Dtype, tensor::TensorView};
use support::{Case, NEAR, Tensors, Tiny, Value, cases, difference, open, runtime, target, tiny};

/// The standard's versions whose operators are written differently: axes as an input from 18, `Gelu` from 20.
const OPSETS: [u32; 4] = [17, 18, 20, 23];

#[test]
fn graphs_in_onnx_runtime_agree_with_the_model_in_pure_rust() {
    if !runtime() {
        return;
    }
    for model in tiny() {
        let eager = model.eager();
        let cases = cases(&model, &eager);
        for flavour in [Flavour::Portable, Flavour::Ort] {
            for opset in OPSETS {
                let folder = tempfile::tempdir().unwrap();
                let mut largest = 0.0f32;
                for part in Part::ALL {
                    let session = open(&model.write(part, target(flavour, opset), folder.path()));
                    for (_, case) in cases.iter().filter(|(own, _)| *own == part) {
                        let found = case.run(&session);
                        let drift = drift(case, found.values());
                        assert_eq!(found.dims(), case.output.1.dims());
                        assert!(drift <= NEAR, "{} {part} {flavour} {opset}: {drift}", model.name);
                        largest = largest.max(drift);
                    }
                }
                println!("{} {flavour} opset {opset}: {largest:.1e} at most", model.name);
            }
        }
    }
}

/// Largest difference where it counts.
fn drift(case: &Case, found: &[f32]) -> f32 {
    let expected = case.output.1.values();
    assert_eq!(found.len(), expected.len());
    let counts = |place: usize| case.mask.as_ref().is_none_or(|mask| mask[place]);
    let places = (0..found.len()).filter(|&place| counts(place));
    places.map(|place| (found[place] - expected[place]).abs()).fold(0.0, |all, difference| {
        assert!(difference.is_finite());
        all.max(difference)
    })
}

/// The tensors that the authors' code and Hugging Face's models gave, without the model in pure Rust between.
#[test]
fn graphs_in_onnx_runtime_agree_with_the_golden_tensors() {
    if !runtime() {
        return;
    }
    for model in tiny() {
        let golden = Tensors::open(&format!("{}_forward.safetensors", model.name));
        let whole = |name: &str| {
            let array = golden.get(name);
            Value::Whole(array.dims().to_vec(), array.values().iter().map(|&value| value as i64).collect())
        };
        let folder = tempfile::tempdir().unwrap();
        for flavour in [Flavour::Portable, Flavour::Ort] {
            let [image, text, score] =
                Part::ALL.map(|part| open(&model.write(part, target(flavour, 18), folder.path())));
            let patches = image.run(&[Value::Float(golden.get("images")).input()]).unwrap();
            assert!(difference(&patches, &golden.get("img_emb")) <= NEAR);
            let tokens = golden.get("tokens");
            let mask: Vec<i64> = tokens.values().iter().map(|&token| i64::from(token != 0.0)).collect();
            let mask = Value::Whole(tokens.dims().to_vec(), mask);
            let words = text.run(&[whole("tokens").input(), mask.input()]).unwrap();
            let expected = golden.get("cap_emb");
            for (row, &length) in golden.get("lengths").values().iter().enumerate() {
                let part = |array: &laps_model::array::Array| {
                    array.rows(row..row + 1).unwrap().narrow(1, 0, length as usize).unwrap()
                };
                assert!(difference(&part(&words), &part(&expected)) <= NEAR);
            }
            let inputs = [Value::Float(patches), Value::Float(words), whole("lengths")];
            let similarities = score.run(&inputs.each_ref().map(Value::input)).unwrap();
            assert!(difference(&similarities, &golden.get("sims")) <= NEAR);
        }
    }
}

/// Writes a case as safetensors for a program that compares it.
fn store(case: &Case, path: &Path) {
    let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    for (name, value) in &case.inputs {
        tensors.push(match value {
            Value::Float(array) => (format!("input.{name}"), Dtype::F32, array.dims().to_vec(), bytes(array.values())),
            Value::Whole(shape, values) => {
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

/// The checker of the ONNX project on every graph, and its reference evaluator on every case.
#[test]
fn graphs_pass_the_checker_and_agree_in_the_reference_evaluator() {
    let python = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.runtime/real/venv/bin/python"));
    if !python.exists() {
        println!("skipped: there is no `{}` with onnx; `.ci/run reference_data` makes it", python.display());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for model in tiny() {
        second_engine(&model, folder.path());
        rounded(&model, folder.path());
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/second_engine.py");
    let output = Command::new(python).arg(script).arg(folder.path()).arg(NEAR.to_string()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    // Two models; the portable flavour by opset 17, 18 and 23, that of ONNX Runtime by 18; three graphs each.
    assert_eq!(text.lines().filter(|line| line.ends_with(" ok")).count(), 2 * (3 + 1) * 3, "{text}");
    // Two models, two flavours, two precisions, two encoders.
    assert_eq!(text.lines().filter(|line| line.ends_with(": checked")).count(), 2 * 2 * 2 * 2, "{text}");
}

/// Encoders in half precision and in 8 bits, by the oldest and the newest opset.
fn rounded(model: &Tiny, folder: &Path) {
    for (flavour, opset) in [(Flavour::Portable, 17), (Flavour::Ort, 23)] {
        for precision in ["fp16", "int8"] {
            let place = folder.join(format!("checked/{}-{flavour}-{precision}", model.name));
            std::fs::create_dir_all(&place).unwrap();
            for part in [Part::Image, Part::Text] {
                let mut graph = model.graph(part, target(flavour, opset));
                match precision {
                    "fp16" => passes::half(&mut graph),
                    _ => passes::int8(&mut graph, &BTreeSet::new()).unwrap(),
                }
                passes::lower(&mut graph);
                std::fs::write(place.join(part.file()), encode(&graph, &[]).unwrap()).unwrap();
            }
        }
    }
}

fn second_engine(model: &Tiny, folder: &Path) {
    let eager = model.eager();
    let targets = [(Flavour::Portable, 17), (Flavour::Portable, 18), (Flavour::Portable, 23), (Flavour::Ort, 18)];
    for (flavour, opset) in targets {
        let place = folder.join(format!("{}-{flavour}-{opset}", model.name));
        std::fs::create_dir(&place).unwrap();
        for part in Part::ALL {
            model.write(part, target(flavour, opset), &place);
        }
    }
    let cases_folder = folder.join(format!("{}-cases", model.name));
    std::fs::create_dir(&cases_folder).unwrap();
    for (index, (part, case)) in cases(model, &eager).iter().enumerate() {
        store(case, &cases_folder.join(format!("{part}-{index}.safetensors")));
    }
}
