//! What the graphs consist of.
#![allow(clippy::unwrap_used, clippy::panic)] // a helper of tests is a test

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
    graph::{Domain, Element, Flavour, Graph, Target, Value},
    passes,
    record::{Part, record},
};
use support::{swin_tiny, target, tiny, vit_tiny};

fn count(graph: &Graph) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    graph.nodes().iter().for_each(|node| *counts.entry(node.operator.name).or_default() += 1);
    counts
}

/// Operators that compute with shapes, and those that change nothing.
const FORBIDDEN: [&str; 9] =
    ["Shape", "Size", "ConstantOfShape", "Range", "Expand", "Identity", "Constant", "Unsqueeze", "Squeeze"];

#[test]
fn nothing_computes_with_shapes_and_nothing_is_idle() {
    for model in tiny() {
        for flavour in [Flavour::Portable, Flavour::Ort] {
            for part in Part::ALL {
                let graph = model.graph(part, target(flavour, 18));
                let counts = count(&graph);
                assert!(FORBIDDEN.iter().all(|name| !counts.contains_key(name)), "{counts:?}");
                let portable = graph.nodes().iter().all(|node| node.operator.domain == Domain::Onnx);
                assert!(portable || flavour == Flavour::Ort);
                for node in graph.nodes() {
                    // What depends on no input is a constant already.
                    assert!(node.inputs.iter().flatten().any(|&id| graph.fact(id).content.is_none()), "{node:?}");
                }
            }
        }
    }
}

/// Two blocks: each operator of a block twice, what is around them once.
#[test]
fn a_vit_is_what_one_would_write_by_hand() {
    let [vit, _] = tiny();
    insta::assert_debug_snapshot!(count(&vit.graph(Part::Image, target(Flavour::Portable, 20))), @r#"
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
    insta::assert_debug_snapshot!(count(&vit.graph(Part::Image, target(Flavour::Ort, 18))), @r#"
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

/// Each block of BERT and of Swin has its attention fused; the shift of a Swin block is a constant of the graph.
#[test]
fn attention_is_fused_in_bert_and_in_swin() {
    let [vit, swin] = tiny();
    let text = count(&vit.graph(Part::Text, target(Flavour::Ort, 18)));
    assert_eq!((text["MultiHeadAttention"], text["SkipLayerNormalization"], text["BiasGelu"]), (2, 5, 2), "{text:?}");
    assert!(!text.contains_key("Softmax"), "{text:?}");
    let graph = swin.graph(Part::Image, target(Flavour::Ort, 18));
    let image = count(&graph);
    assert_eq!((image["MultiHeadAttention"], image["BiasGelu"]), (8, 8), "{image:?}");
    assert!(!image.contains_key("Softmax"), "{image:?}");
    for node in graph.nodes().iter().filter(|node| node.operator.name == "MultiHeadAttention") {
        let bias = graph.fact(node.input(5).unwrap());
        assert!(bias.content.is_some(), "the relative-position bias is constant");
    }
}

#[test]
fn axes_of_reductions_are_attributes_before_opset_18_and_gelu_is_one_from_20() {
    let [vit, _] = tiny();
    let reductions = |opset| {
        let graph = vit.graph(Part::Score, target(Flavour::Portable, opset));
        let inputs = |name: &str| graph.nodes().iter().find(|node| node.is(name)).unwrap().inputs.len();
        (inputs("ReduceMax"), inputs("ReduceL2"), inputs("ReduceSum"))
    };
    assert_eq!((reductions(17), reductions(18)), ((1, 1, 2), (2, 2, 2)));
    let text = |opset| count(&vit.graph(Part::Text, target(Flavour::Portable, opset)));
    assert_eq!((text(19).get("Gelu"), text(19).get("Erf")), (None, Some(&2)));
    assert_eq!((text(20).get("Gelu"), text(20).get("Erf")), (Some(&2), None));
}

/// Every data axis is a symbol, and nothing else is.
#[test]
fn inputs_and_outputs_have_symbols_for_data() {
    let ports = |part| {
        let graph = tiny()[0].graph(part, Target::default());
        let line = |port: &laps_onnx::graph::Port| format!("{} {} {:?}", port.name, port.element.name(), port.shape);
        let [inputs, outputs] = [graph.inputs(), graph.outputs()];
        inputs.iter().chain(&outputs).map(line).collect::<Vec<_>>()
    };
    assert_eq!(
        ports(Part::Image),
        ["pixel_values float32 [batch, 3, 224, 224]", "patch_embeddings float32 [batch, 197, 24]"]
    );
    assert_eq!(
        ports(Part::Text),
        [
            "input_ids int64 [batch, length]",
            "attention_mask int64 [batch, length]",
            "word_embeddings float32 [batch, length, 24]"
        ]
    );
    assert_eq!(
        ports(Part::Score),
        [
            "patch_embeddings float32 [images, 197, 24]",
            "word_embeddings float32 [captions, words, 24]",
            "lengths int64 [captions]",
            "similarities float32 [images, captions]"
        ]
    );
}

/// Values are named after the modules of the checkpoint, so that a viewer shows the structure of the model.
#[test]
fn values_are_named_after_modules() {
    let [vit, swin] = tiny();
    let image = vit.graph(Part::Image, target(Flavour::Portable, 18));
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
        for part in Part::ALL {
            let graph = model.graph(part, Target::default());
            let owner = ["img_enc", "txt_enc", "cross_net"][part as usize];
            let outside = |name: &&str| !name.starts_with(owner);
            let names = graph.nodes().iter().filter_map(|node| Some(graph.fact(node.output()?).name.as_str()));
            // The output has the name that it is asked for by, and masks are cast before a module has them.
            assert!(names.filter(outside).count() <= 2, "{part}");
        }
    }
}

fn values() -> (Rc<RefCell<Graph>>, Value) {
    let graph = Rc::new(RefCell::new(Graph::new("test", Target::default())));
    let shape = [Dim::symbol("batch"), 6.into()];
    let input = Value::input(&graph, "x", Element::F32, &shape).unwrap();
    (graph, input)
}

#[test]
fn a_name_that_is_taken_is_refused() {
    let (graph, x) = values();
    let error = Value::input(&graph, "x", Element::F32, &[1.into()]).unwrap_err();
    insta::assert_snapshot!(error, @r"
    `name` can not be computed
      expected: a name that is not taken
      found: `x` a second time
    ");
    let read = |parameter: &Parameter| Array::new(&parameter.shape, vec![0.0; parameter.elements()]);
    let root = Value::parameters(&graph, read);
    root.get("weight", &[2], Init::Zeros).unwrap();
    assert!(root.get("weight", &[2], Init::Zeros).is_err());
    let sum = x.add(&x).unwrap();
    assert!(sum.output("x").is_err());
    sum.output("sum").unwrap();
    assert!(sum.output("again").is_err());
    assert!(x.output("input").is_err());
}

#[test]
fn an_operation_that_does_not_fit_is_refused_with_the_module() {
    let (_, x) = values();
    let error = x.module("encoder.layer.3", || x.module("encoder.layer.3.mlp", || x.matmul(&x))).unwrap_err();
    assert!(matches!(&error, Error::Module { name, .. } if name == "encoder.layer.3.mlp"), "{error:?}");
    assert_eq!(error.to_string(), "module `encoder.layer.3.mlp` can not be wired");
    let source = std::error::Error::source(&error).unwrap().to_string();
    insta::assert_snapshot!(source, @r"
    `matmul` can not be computed
      expected: an inner size that is the same
      found: (`x` [batch, 6], `x` [batch, 6])
    ");
    assert!(x.reshape(&[Dim::symbol("batch").times(2), 2.into()]).is_err());
    assert!(x.narrow(0, 0, 1).is_err(), "a symbol has no first entry that is known to be there");
    assert!(x.expand(&[Dim::symbol("images"), 6.into()]).is_err());
    assert!(x.dropout(0.1).is_err(), "a graph does not train");
}

#[test]
fn what_changes_nothing_is_not_recorded() {
    let (graph, x) = values();
    let batch = Dim::symbol("batch");
    let same = |value: &Value| format!("{value:?}") == format!("{x:?}");
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

/// A parameter of another shape than the model's is named before anything is written.
#[test]
fn a_parameter_of_another_shape_is_refused() {
    for config in [vit_tiny(), swin_tiny()] {
        let error = record(Part::Text, &config, Target::default(), |_| Array::new(&[1], vec![0.0])).unwrap_err();
        assert!(error.to_string().starts_with("parameter `txt_enc."), "{error}");
    }
}
