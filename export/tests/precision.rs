//! Reduced precision: selection of products, and the effect of each.
#![allow(clippy::unwrap_used, clippy::panic)] // tests and their helpers

mod support;

use std::{collections::BTreeSet, path::Path, rc::Rc};

use laps_hub::{checkpoint::Checkpoint, registry};
use laps_model::array::Array;
use laps_onnx::{
    graph::{Flavour, Graph, GraphKind, GraphPrecision, Node},
    package::{ExportRequest, export, worst_nodes},
    passes::{self, Rounding},
    runtime::{InputTensor, Session, SessionOptions},
};
use support::{GraphCase, Tiny, difference, encode, image_case, runtime, target, text_case, tiny};

fn session(graph: &Graph, folder: &Path) -> Session {
    let path = folder.join("graph.onnx");
    std::fs::write(&path, encode(graph)).unwrap();
    // Only the CPU runs int8 graphs.
    Session::open(&path, &SessionOptions::cpu(1)).unwrap()
}

fn switched(case: &GraphCase, session: &Session, switches: &[i64]) -> Array {
    let shape = [switches.len()];
    let inputs: Vec<InputTensor<'_>> =
        case.inputs.iter().map(|(_, value)| value.input()).chain([InputTensor::I64(&shape, switches)]).collect();
    session.run(&inputs).unwrap()
}

/// Three images and three captions.
fn cases(model: &Tiny) -> [(GraphKind, GraphCase); 2] {
    let encoder = model.model();
    [(GraphKind::Image, image_case(model, &encoder, 3)), (GraphKind::Text, text_case(model, &encoder, 3, 9))]
}

/// Calls `check` for both encoders of every tiny model in both flavours: a label, the graph, its inputs and its output.
fn for_each_graph(folder: &Path, check: impl Fn(&str, &Graph, &GraphCase, &Array)) {
    for model in tiny() {
        for (kind, case) in cases(&model) {
            for flavour in [Flavour::Portable, Flavour::Ort] {
                let graph = model.graph(kind, target(flavour, 18));
                let exact = case.run(&session(&graph, folder));
                check(&format!("{} {kind} {flavour}", model.name), &graph, &case, &exact);
            }
        }
    }
}

/// The graph with int8 products, except those of `left_out`.
fn int8(graph: &Graph, left_out: &BTreeSet<String>) -> Graph {
    let mut graph = graph.clone();
    passes::int8(&mut graph, left_out).unwrap();
    graph
}

/// With all switches off, a probe equals the fp32 graph; with all on, the int8 graph; with one on, the int8 graph that
/// leaves out all other products.
#[test]
fn probe_equals_the_graphs_that_its_switches_select() {
    if !runtime() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for_each_graph(folder.path(), |label, graph, case, exact| {
        let mut probe = graph.clone();
        let names = passes::probe(&mut probe, Rounding::Int8).unwrap();
        let products = graph
            .nodes()
            .iter()
            .filter(|node| node.is("MatMul") && node.input(1).is_some_and(|id| graph.fact(id).data.is_some()));
        assert_eq!(names.len(), products.count());
        let probe = session(&probe, folder.path());
        let in_eight = |left_out: &BTreeSet<String>| case.run(&session(&int8(graph, left_out), folder.path()));
        let mut switches = vec![0; names.len()];
        // The kernels are the same, but ONNX Runtime may fuse a bias into one product and not into the other.
        let same = 1e-5;
        assert!(difference(&switched(case, &probe, &switches), exact) <= same);
        let all = in_eight(&BTreeSet::new());
        assert!(difference(&all, exact) > 1e-4, "int8 has an effect");
        switches.fill(1);
        // A value between two levels may be rounded to either.
        let border = difference(&all, exact) / 4.0;
        assert!(difference(&switched(case, &probe, &switches), &all) <= border);
        switches.fill(0);
        // The projection comes last, so nothing hides its effect.
        let last = names.len() - 1;
        switches[last] = 1;
        let others: BTreeSet<String> =
            names.iter().enumerate().filter(|&(index, _)| index != last).map(|(_, name)| name.clone()).collect();
        let one = in_eight(&others);
        assert!(difference(&one, exact) > same, "{label}: {}", names[last]);
        assert!(difference(&switched(case, &probe, &switches), &one) <= difference(&one, exact) / 4.0);
    });
}

/// Each token has its own scale, so the rest of the batch does not change the result of an item.
#[test]
fn int8_results_do_not_depend_on_the_batch() {
    if !runtime() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for model in tiny() {
        for (kind, mut case) in cases(&model) {
            let graph = model.graph(kind, target(Flavour::Portable, 18));
            let rounded = int8(&graph, &BTreeSet::new());
            let [exact, rounded] = [graph, rounded].map(|graph| session(&graph, folder.path()));
            let first = case.run(&rounded).rows(0..2).unwrap();
            // The last image becomes far larger, and the last caption is removed.
            for (_, value) in &mut case.inputs {
                if let support::CaseInput::F32(pixels) = value {
                    let mut values = pixels.values().to_vec();
                    let rest = values.len() / 3 * 2;
                    values[rest..].iter_mut().for_each(|value| *value *= 100.0);
                    *pixels = Array::new(pixels.dims(), values).unwrap();
                } else if let support::CaseInput::I64(shape, values) = value {
                    shape[0] -= 1;
                    values.truncate(shape[0] * shape[1]);
                }
            }
            let other = case.run(&rounded).rows(0..2).unwrap();
            let rounding = difference(&other, &case.run(&exact).rows(0..2).unwrap());
            // A value between two levels may be rounded to either.
            let moved = difference(&first, &other);
            assert!(moved <= rounding / 4.0, "{} {kind}: {moved} of {rounding}", model.name);
        }
    }
}

/// Activations after a GELU have most levels above 0, in every form of GELU.
#[test]
fn gelu_outputs_have_a_low_zero_point() {
    for model in tiny() {
        for kind in [GraphKind::Image, GraphKind::Text] {
            for (flavour, opset) in [(Flavour::Portable, 17), (Flavour::Portable, 20), (Flavour::Ort, 18)] {
                let mut graph = model.graph(kind, target(flavour, opset));
                let is_gelu = |node: &&Node| matches!(node.operator.name, "Erf" | "Gelu" | "BiasGelu");
                let gelus = graph.nodes().iter().filter(is_gelu).count();
                passes::int8(&mut graph, &BTreeSet::new()).unwrap();
                let products = graph.nodes().iter().filter(|node| node.is("MatMulInteger"));
                let zeros: Vec<_> = products.map(|node| graph.fact(node.input(2).unwrap())).collect();
                let low = zeros.iter().filter(|zero| zero.data.as_ref().unwrap().bytes()[0] < 64).count();
                assert_eq!(low, gelus, "{} {kind} {flavour} {opset}", model.name);
                assert!(0 < low && low < zeros.len());
            }
        }
    }
}

/// Uneven channels of a norm change nothing in fp32 and harm int8; smoothing with measured channel magnitudes restores
/// int8.
#[test]
fn smoothing_restores_int8_with_uneven_channels() {
    if !runtime() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for_each_graph(folder.path(), |label, graph, case, exact| {
        let sizes = |graph: &Graph| {
            let mut channels = graph.clone();
            assert!(passes::channels(&mut channels), "{label}");
            let inputs: Vec<InputTensor<'_>> = case.inputs.iter().map(|(_, value)| value.input()).collect();
            session(&channels, folder.path()).run(&inputs).unwrap()
        };
        let rounded =
            |graph: &Graph| difference(&case.run(&session(&int8(graph, &BTreeSet::new()), folder.path())), exact);
        let mut uneven = graph.clone();
        let count = sizes(graph).values().len();
        // Every seventh channel becomes a hundred times larger than the rest.
        let odd: Vec<f32> = (0..count).map(|channel| if channel % 7 == 0 { 1e-4 } else { 1.0 }).collect();
        passes::smooth(&mut uneven, &odd).unwrap();
        // Sums of values that are a hundred times larger lose digits.
        let same = 1e-5;
        assert!(difference(&case.run(&session(&uneven, folder.path())), exact) <= same, "{label}");
        let mut even = uneven.clone();
        passes::smooth(&mut even, sizes(&uneven).values()).unwrap();
        assert!(difference(&case.run(&session(&even, folder.path())), exact) <= same, "{label}");
        let [without, with] = [rounded(&uneven), rounded(&even)];
        assert!(with * 3.0 < without, "{label}: {with} after {without}");
    });
}

fn request(precision: GraphPrecision) -> ExportRequest {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../checkpoints/shapes_vit.safetensors");
    ExportRequest {
        entry: registry::find("shapes_vit").unwrap(),
        checkpoint: Rc::new(Checkpoint::open(path).unwrap()),
        target: target(Flavour::Ort, 18),
        precision,
        threads: 1,
        vocabulary: None,
    }
}

/// The most sensitive products stay in fp32, the manifest names them, and the file has no int8 products of their names.
#[test]
fn sensitive_products_stay_in_fp32() {
    if !runtime() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("graphs");
    let request = request(GraphPrecision::Int8);
    let exported = export(&request, &folder).unwrap();
    for kind in [GraphKind::Image, GraphKind::Text] {
        let products = &exported.manifest.graphs[kind.name()].products;
        assert!(
            products.is_sorted_by(|a, b| a.cosine_distance >= b.cosine_distance) && products.len() > 10,
            "{products:#?}"
        );
        assert!(products.is_sorted_by(|a, b| a.left_out >= b.left_out), "{products:#?}");
        assert!(!products[products.len() / 2].left_out, "most are in int8: {products:#?}");
        let file = std::fs::read(folder.join(kind.file())).unwrap();
        for product in products {
            let name = format!("{}.integer", product.node);
            let is_int8 = file.windows(name.len()).any(|window| window == name.as_bytes());
            assert_eq!(is_int8, !product.left_out, "{name}");
        }
        let worst = products.iter().find(|product| !product.left_out).unwrap();
        let (node, distance) = (&worst.node, worst.cosine_distance);
        let line = format!("  {kind}: `{node}` alone changes the output by a cosine distance of {distance:.1e}\n");
        let text = worst_nodes(&request, &exported.manifest).unwrap();
        assert!(text.contains(&line), "{text}");
    }
    assert!(exported.manifest.graphs["score"].products.is_empty());
}

/// Every node changes the output far less in fp16 than in int8.
#[test]
fn worst_nodes_in_fp16_are_measured() {
    if !runtime() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let request = request(GraphPrecision::Fp16);
    let exported = export(&request, &root.path().join("graphs")).unwrap();
    let text = worst_nodes(&request, &exported.manifest).unwrap();
    assert_eq!(text.lines().count(), 2 * 5, "{text}");
    for line in text.lines() {
        let distance: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        // 11 bits: the relative error is at most 2^-12, and the distance is about its square.
        assert!(distance < 1e-5, "{line}");
    }
}
