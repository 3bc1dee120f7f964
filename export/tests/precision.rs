//! Products in fewer bits: which of them, and what each of them does.
#![allow(clippy::unwrap_used, clippy::panic)] // a helper of tests is a test

mod support;

use std::{collections::BTreeSet, path::Path, rc::Rc};

use laps_hub::{checkpoint::Checkpoint, registry};
use laps_model::array::Array;
use laps_onnx::{
    file::encode,
    graph::{Flavour, Graph, Node},
    package::{Precision, Request, at_fault, export},
    passes::{self, Rounding},
    record::Part,
    runtime::{Input, Session, SessionOptions},
};
use support::{Case, Tiny, difference, image_case, runtime, target, text_case, tiny};

fn session(graph: &Graph, folder: &Path) -> Session {
    let path = folder.join("graph.onnx");
    std::fs::write(&path, encode(graph, &[]).unwrap()).unwrap();
    // 8 bits are those of the processor.
    Session::open(&path, &SessionOptions::cpu(1)).unwrap()
}

fn switched(case: &Case, session: &Session, switches: &[i64]) -> Array {
    let shape = [switches.len()];
    let inputs: Vec<Input<'_>> =
        case.inputs.iter().map(|(_, value)| value.input()).chain([Input::Whole(&shape, switches)]).collect();
    session.run(&inputs).unwrap()
}

/// Three images and three captions.
fn cases(model: &Tiny) -> [(Part, Case); 2] {
    let eager = model.eager();
    [(Part::Image, image_case(model, &eager, 3)), (Part::Text, text_case(model, &eager, 3, 9))]
}

/// With every switch off it is the graph itself, with all on the one in 8 bits, and with one on the one in 8 bits that
/// leaves all others out.
#[test]
fn a_probe_is_each_of_the_graphs_it_stands_for() {
    if !runtime() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for model in tiny() {
        for (part, case) in cases(&model) {
            for flavour in [Flavour::Portable, Flavour::Ort] {
                let graph = model.graph(part, target(flavour, 18));
                let mut probe = graph.clone();
                let names = passes::probe(&mut probe, Rounding::Int8).unwrap();
                let products = graph.nodes().iter().filter(|node| {
                    node.is("MatMul") && node.input(1).is_some_and(|id| graph.fact(id).content.is_some())
                });
                assert_eq!(names.len(), products.count());
                let probe = session(&probe, folder.path());
                let in_eight = |left_out: &BTreeSet<String>| {
                    let mut graph = graph.clone();
                    passes::int8(&mut graph, left_out).unwrap();
                    case.run(&session(&graph, folder.path()))
                };
                let exact = case.run(&session(&graph, folder.path()));
                let mut switches = vec![0; names.len()];
                // The same kernels; ONNX Runtime may fuse a bias into one product and not into the other.
                let same = 1e-5;
                assert!(difference(&switched(&case, &probe, &switches), &exact) <= same);
                let all = in_eight(&BTreeSet::new());
                assert!(difference(&all, &exact) > 1e-4, "8 bits are seen");
                switches.fill(1);
                // A value on the border of two levels may fall to either side of it.
                let border = difference(&all, &exact) / 4.0;
                assert!(difference(&switched(&case, &probe, &switches), &all) <= border);
                switches.fill(0);
                // The projection, which nothing behind it hides.
                let last = names.len() - 1;
                switches[last] = 1;
                let others: BTreeSet<String> = names
                    .iter()
                    .enumerate()
                    .filter(|&(index, _)| index != last)
                    .map(|(_, name)| name.clone())
                    .collect();
                let one = in_eight(&others);
                assert!(difference(&one, &exact) > same, "{} {part}: {}", model.name, names[last]);
                assert!(difference(&switched(&case, &probe, &switches), &one) <= difference(&one, &exact) / 4.0);
            }
        }
    }
}

/// Each token has a scale of its own: pictures and captions become the same beside others as alone.
#[test]
fn items_are_rounded_the_same_beside_others() {
    if !runtime() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for model in tiny() {
        for (part, mut case) in cases(&model) {
            let graph = model.graph(part, target(Flavour::Portable, 18));
            let mut rounded = graph.clone();
            passes::int8(&mut rounded, &BTreeSet::new()).unwrap();
            let [exact, rounded] = [graph, rounded].map(|graph| session(&graph, folder.path()));
            let beside = case.run(&rounded).rows(0..2).unwrap();
            // The last one becomes far larger, or goes.
            for (_, value) in &mut case.inputs {
                if let support::Value::Float(pixels) = value {
                    let mut values = pixels.values().to_vec();
                    let rest = values.len() / 3 * 2;
                    values[rest..].iter_mut().for_each(|value| *value *= 100.0);
                    *pixels = Array::new(pixels.dims(), values).unwrap();
                } else if let support::Value::Whole(shape, values) = value {
                    shape[0] -= 1;
                    values.truncate(shape[0] * shape[1]);
                }
            }
            let other = case.run(&rounded).rows(0..2).unwrap();
            let rounding = difference(&other, &case.run(&exact).rows(0..2).unwrap());
            // A value on the border of two levels may fall to either side of it.
            let moved = difference(&beside, &other);
            assert!(moved <= rounding / 4.0, "{} {part}: {moved} of {rounding}", model.name);
        }
    }
}

/// What stands behind a GELU has most of its levels above 0, however the GELU is written.
#[test]
fn the_floor_of_a_gelu_is_known() {
    for model in tiny() {
        for part in [Part::Image, Part::Text] {
            for (flavour, opset) in [(Flavour::Portable, 17), (Flavour::Portable, 20), (Flavour::Ort, 18)] {
                let mut graph = model.graph(part, target(flavour, opset));
                let is_gelu = |node: &&Node| matches!(node.operator.name, "Erf" | "Gelu" | "BiasGelu");
                let gelus = graph.nodes().iter().filter(is_gelu).count();
                passes::int8(&mut graph, &BTreeSet::new()).unwrap();
                let products = graph.nodes().iter().filter(|node| node.is("MatMulInteger"));
                let zeros: Vec<_> = products.map(|node| graph.fact(node.input(2).unwrap())).collect();
                let low = zeros.iter().filter(|zero| zero.content.as_ref().unwrap().bytes()[0] < 64).count();
                assert_eq!(low, gelus, "{} {part} {flavour} {opset}", model.name);
                assert!(0 < low && low < zeros.len());
            }
        }
    }
}

/// Channels of a norm are made uneven, which changes nothing in single precision and harms 8 bits; by their sizes, which a
/// run finds, they are made even again.
#[test]
fn uneven_channels_are_evened_out() {
    if !runtime() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for model in tiny() {
        for (part, case) in cases(&model) {
            for flavour in [Flavour::Portable, Flavour::Ort] {
                let label = format!("{} {part} {flavour}", model.name);
                let graph = model.graph(part, target(flavour, 18));
                let exact = case.run(&session(&graph, folder.path()));
                let sizes = |graph: &Graph| {
                    let mut channels = graph.clone();
                    assert!(passes::channels(&mut channels), "{label}");
                    let inputs: Vec<Input<'_>> = case.inputs.iter().map(|(_, value)| value.input()).collect();
                    session(&channels, folder.path()).run(&inputs).unwrap()
                };
                let rounded = |graph: &Graph| {
                    let mut graph = graph.clone();
                    passes::int8(&mut graph, &BTreeSet::new()).unwrap();
                    difference(&case.run(&session(&graph, folder.path())), &exact)
                };
                let mut uneven = graph.clone();
                let count = sizes(&graph).values().len();
                // Every seventh channel becomes a hundred times as large as the rest.
                let odd: Vec<f32> = (0..count).map(|channel| if channel % 7 == 0 { 1e-4 } else { 1.0 }).collect();
                passes::smooth(&mut uneven, &odd).unwrap();
                // Sums of numbers that are a hundred times as large, whose digits go.
                let same = 1e-5;
                assert!(difference(&case.run(&session(&uneven, folder.path())), &exact) <= same, "{label}");
                let mut even = uneven.clone();
                passes::smooth(&mut even, sizes(&uneven).values()).unwrap();
                assert!(difference(&case.run(&session(&even, folder.path())), &exact) <= same, "{label}");
                let [harmed, mended] = [rounded(&uneven), rounded(&even)];
                assert!(mended * 3.0 < harmed, "{label}: {mended} after {harmed}");
            }
        }
    }
}

fn request(precision: Precision) -> Request {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../checkpoints/shapes_vit.safetensors");
    Request {
        entry: registry::find("shapes_vit").unwrap(),
        checkpoint: Rc::new(Checkpoint::open(path).unwrap()),
        target: target(Flavour::Ort, 18),
        precision,
        threads: 1,
        vocabulary: None,
    }
}

/// The most sensitive are left out, the manifest names them, and the file has no product in 8 bits of their names.
#[test]
fn sensitive_products_are_left_out_and_named() {
    if !runtime() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("graphs");
    let request = request(Precision::Int8);
    let exported = export(&request, &folder).unwrap();
    for part in [Part::Image, Part::Text] {
        let products = &exported.manifest.graphs[part.name()].products;
        assert!(products.is_sorted_by(|a, b| a.turn >= b.turn) && products.len() > 10, "{products:#?}");
        assert!(products.is_sorted_by(|a, b| a.left_out >= b.left_out), "{products:#?}");
        assert!(!products[products.len() / 2].left_out, "most are in 8 bits: {products:#?}");
        let file = std::fs::read(folder.join(part.file())).unwrap();
        for product in products {
            let name = format!("{}.integer", product.node);
            let inside = file.windows(name.len()).any(|window| window == name.as_bytes());
            assert_eq!(inside, !product.left_out, "{name}");
        }
        let worst = products.iter().find(|product| !product.left_out).unwrap();
        let line = format!("  {part}: `{}` alone turns the output by {:.1e}\n", worst.node, worst.turn);
        let text = at_fault(&request, &exported.manifest).unwrap();
        assert!(text.contains(&line), "{text}");
    }
    assert!(exported.manifest.graphs["score"].products.is_empty());
}

/// Half precision turns an output far less than 8 bits do, by every node.
#[test]
fn nodes_at_fault_in_half_precision_are_measured() {
    if !runtime() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let request = request(Precision::Fp16);
    let exported = export(&request, &root.path().join("graphs")).unwrap();
    let text = at_fault(&request, &exported.manifest).unwrap();
    assert_eq!(text.lines().count(), 2 * 5, "{text}");
    for line in text.lines() {
        let turn: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        // Eleven bits: a relative error of 2^-12 at most, whose square this is about.
        assert!(turn < 1e-5, "{line}");
    }
}
