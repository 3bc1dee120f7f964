//! Structure of recorded graphs: operators, names, shapes.
#![allow(clippy::unwrap_used, clippy::panic)] // tests and their helpers

mod support;

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use laps_model::Error;
use laps_model::{
    array::Array,
    dim::Dim,
    params::{Init, Parameter},
    tensor::Tensor,
};
use laps_onnx::{
    graph::{Domain, ElementType, Flavour, Graph, GraphKind, GraphTensor, Target},
    passes,
    record::record,
};
use support::{swin_tiny, target, tiny, vit_tiny};

fn count(graph: &Graph) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    graph.nodes().iter().for_each(|node| *counts.entry(node.operator.name).or_default() += 1);
    counts
}

/// Operators that compute with shapes, and operators without an effect.
const FORBIDDEN: [&str; 9] =
    ["Shape", "Size", "ConstantOfShape", "Range", "Expand", "Identity", "Constant", "Unsqueeze", "Squeeze"];

#[test]
fn graphs_have_no_shape_operators_and_no_operators_without_effect() {
    for model in tiny() {
        for flavour in [Flavour::Portable, Flavour::Ort] {
            for kind in GraphKind::ALL {
                let graph = model.graph(kind, target(flavour, 18));
                let counts = count(&graph);
                assert!(FORBIDDEN.iter().all(|name| !counts.contains_key(name)), "{counts:?}");
                let portable = graph.nodes().iter().all(|node| node.operator.domain == Domain::Onnx);
                assert!(portable || flavour == Flavour::Ort);
                for node in graph.nodes() {
                    // Nodes with constant operands only are folded.
                    assert!(node.inputs.iter().flatten().any(|&id| graph.fact(id).data.is_none()), "{node:?}");
                }
            }
        }
    }
}

/// The model has two blocks, so each operator of a block occurs twice.
#[test]
fn vit_graph_has_the_expected_operators() {
    let [vit, _] = tiny();
    insta::assert_debug_snapshot!(count(&vit.graph(GraphKind::Image, target(Flavour::Portable, 20))), @r#"
    {
        "Add": 20,
        "Concat": 1,
        "Gelu": 2,
        "LayerNormalization": 5,
        "MatMul": 18,
        "Mul": 3,
        "Reshape": 11,
        "Slice": 1,
        "Softmax": 2,
        "Transpose": 9,
    }
    "#);
    insta::assert_debug_snapshot!(count(&vit.graph(GraphKind::Image, target(Flavour::Ort, 18))), @r#"
    {
        "Add": 10,
        "BiasGelu": 2,
        "Concat": 1,
        "LayerNormalization": 1,
        "MatMul": 14,
        "Mul": 1,
        "MultiHeadAttention": 2,
        "Reshape": 3,
        "SkipLayerNormalization": 4,
        "Slice": 1,
        "Transpose": 1,
    }
    "#);
}

/// The attention of each block is fused; the shift of a Swin block is a constant.
#[test]
fn attention_is_fused_in_bert_and_in_swin() {
    let [vit, swin] = tiny();
    let text = count(&vit.graph(GraphKind::Text, target(Flavour::Ort, 18)));
    assert_eq!((text["MultiHeadAttention"], text["SkipLayerNormalization"], text["BiasGelu"]), (2, 5, 2), "{text:?}");
    assert!(!text.contains_key("Softmax"), "{text:?}");
    let graph = swin.graph(GraphKind::Image, target(Flavour::Ort, 18));
    let image = count(&graph);
    assert_eq!((image["MultiHeadAttention"], image["BiasGelu"]), (8, 8), "{image:?}");
    assert!(!image.contains_key("Softmax"), "{image:?}");
    for node in graph.nodes().iter().filter(|node| node.operator.name == "MultiHeadAttention") {
        let bias = graph.fact(node.input(5).unwrap());
        assert!(bias.data.is_some(), "the relative-position bias is constant");
    }
}

#[test]
fn reduction_axes_are_attributes_before_opset_18_and_gelu_exists_from_20() {
    let [vit, _] = tiny();
    let reductions = |opset| {
        let graph = vit.graph(GraphKind::Score, target(Flavour::Portable, opset));
        let inputs = |name: &str| graph.nodes().iter().find(|node| node.is(name)).unwrap().inputs.len();
        (inputs("ReduceMax"), inputs("ReduceL2"), inputs("ReduceSum"))
    };
    assert_eq!((reductions(17), reductions(18)), ((1, 1, 2), (2, 2, 2)));
    let text = |opset| count(&vit.graph(GraphKind::Text, target(Flavour::Portable, opset)));
    assert_eq!((text(19).get("Gelu"), text(19).get("Erf")), (None, Some(&2)));
    assert_eq!((text(20).get("Gelu"), text(20).get("Erf")), (Some(&2), None));
}

/// Axes that depend on the input are symbols, all others are numbers.
#[test]
fn inputs_and_outputs_have_symbolic_data_axes() {
    let ports = |kind| {
        let graph = tiny()[0].graph(kind, Target::default());
        let line =
            |port: &laps_onnx::graph::ValueInfo| format!("{} {} {:?}", port.name, port.element.name(), port.shape);
        let [inputs, outputs] = [graph.inputs(), graph.outputs()];
        inputs.iter().chain(&outputs).map(line).collect::<Vec<_>>()
    };
    assert_eq!(
        ports(GraphKind::Image),
        ["pixel_values float32 [batch, 3, 224, 224]", "patch_embeddings float32 [batch, 197, 24]"]
    );
    assert_eq!(
        ports(GraphKind::Text),
        [
            "input_ids int64 [batch, length]",
            "attention_mask int64 [batch, length]",
            "word_embeddings float32 [batch, length, 24]"
        ]
    );
    assert_eq!(
        ports(GraphKind::Score),
        [
            "patch_embeddings float32 [images, 197, 24]",
            "word_embeddings float32 [captions, words, 24]",
            "lengths int64 [captions]",
            "similarities float32 [images, captions]"
        ]
    );
}

/// Values are named after the modules of the checkpoint, so that graph viewers show the structure of the model.
#[test]
fn values_are_named_after_modules() {
    let [vit, swin] = tiny();
    let image = vit.graph(GraphKind::Image, target(Flavour::Portable, 18));
    let names: Vec<&str> =
        image.nodes().iter().filter_map(|node| Some(image.fact(node.output()?).name.as_str())).collect();
    for name in [
        "img_enc.visual_encoder.embeddings.joined",
        "img_enc.visual_encoder.encoder.layer.1.attention.attention.query.matmul",
        "img_enc.visual_encoder.encoder.layer.1.attention.attention.softmax",
        "img_enc.visual_encoder.encoder.layer.0.add_2",
        "img_enc.visual_encoder.encoder.layer.0.layernorm_before.output",
        "img_enc.vision_proj.matmul",
        "patch_embeddings",
    ] {
        assert!(names.contains(&name), "{name} is not among {names:#?}");
    }
    for model in [&vit, &swin] {
        for kind in GraphKind::ALL {
            let graph = model.graph(kind, Target::default());
            let owner = ["img_enc", "txt_enc", "cross_net"][kind as usize];
            let outside = |name: &&str| !name.starts_with(owner);
            let names = graph.nodes().iter().filter_map(|node| Some(graph.fact(node.output()?).name.as_str()));
            // The output has its own name, and masks are cast outside of any module.
            assert!(names.filter(outside).count() <= 2, "{kind}");
        }
    }
}

fn graph_with_input() -> (Rc<RefCell<Graph>>, GraphTensor) {
    let graph = Rc::new(RefCell::new(Graph::new("test", Target::default())));
    let shape = [Dim::symbol("batch"), 6.into()];
    let input = GraphTensor::input(&graph, "x", ElementType::F32, &shape).unwrap();
    (graph, input)
}

#[test]
fn duplicate_name_is_rejected() {
    let (graph, x) = graph_with_input();
    let error = GraphTensor::input(&graph, "x", ElementType::F32, &[1.into()]).unwrap_err();
    insta::assert_snapshot!(error, @r"
    `name` cannot be computed
      expected: an unused name
      found: `x`, which is in use
    ");
    let read = |parameter: &Parameter| Array::new(&parameter.shape, vec![0.0; parameter.elements()]);
    let root = GraphTensor::parameters(&graph, read);
    root.get("weight", &[2], Init::Zeros).unwrap();
    assert!(root.get("weight", &[2], Init::Zeros).is_err());
    let sum = x.add(&x).unwrap();
    assert!(sum.output("x").is_err());
    sum.output("sum").unwrap();
    assert!(sum.output("again").is_err());
    assert!(x.output("input").is_err());
}

#[test]
fn mismatched_operands_are_rejected_with_the_module() {
    let (_, x) = graph_with_input();
    let error = x.module("encoder.layer.3", || x.module("encoder.layer.3.mlp", || x.matmul(&x))).unwrap_err();
    assert!(matches!(&error, Error::Module { name, .. } if name == "encoder.layer.3.mlp"), "{error:?}");
    assert_eq!(error.to_string(), "module `encoder.layer.3.mlp` cannot be built");
    let source = std::error::Error::source(&error).unwrap().to_string();
    insta::assert_snapshot!(source, @r"
    `matmul` cannot be computed
      expected: equal inner sizes
      found: (`x` [batch, 6], `x` [batch, 6])
    ");
    assert!(x.reshape(&[Dim::symbol("batch").times(2), 2.into()]).is_err());
    // A symbol is 1 or more.
    assert!(x.narrow(0, 0, 1).is_ok());
    assert!(x.narrow(0, 0, 2).is_err(), "a symbolic axis has no second entry that is known to exist");
    assert!(x.expand(&[Dim::symbol("images"), 6.into()]).is_err());
    assert!(x.dropout(0.1).is_err(), "a graph does not train");
}

#[test]
fn operations_without_effect_are_not_recorded() {
    let (graph, x) = graph_with_input();
    let batch = Dim::symbol("batch");
    let same = |value: &GraphTensor| format!("{value:?}") == format!("{x:?}");
    assert!(same(&x.affine(1.0, 0.0).unwrap()));
    assert!(same(&x.reshape(&[batch, 2.into(), 3.into()]).unwrap().reshape(&[batch, 6.into()]).unwrap()));
    assert!(same(&x.permute(&[1, 0]).unwrap().permute(&[1, 0]).unwrap()));
    assert!(same(&x.narrow(1, 0, 6).unwrap()));
    assert!(same(&x.expand(&[batch, 6.into()]).unwrap()));
    let sum = x.add(&x.constant(&[1.0; 6], &[6]).unwrap()).unwrap();
    let again = x.add(&x.constant(&[1.0; 6], &[6]).unwrap()).unwrap();
    assert_eq!(format!("{sum:?}"), format!("{again:?}"), "the same operation on the same operands");
    sum.output("sum").unwrap();
    let mut graph = graph.borrow().clone();
    passes::prune(&mut graph);
    assert_eq!(count(&graph), BTreeMap::from([("Add", 1)]));
}

/// The error names the parameter.
#[test]
fn parameter_of_another_shape_is_rejected() {
    for config in [vit_tiny(), swin_tiny()] {
        let error = record(GraphKind::Text, &config, Target::default(), |_| Array::new(&[1], vec![0.0])).unwrap_err();
        assert!(error.to_string().starts_with("parameter `txt_enc."), "{error}");
    }
}
