//! The graph `score` of every head besides LAPS's, against tensors of the original implementations and the definition.
#![allow(clippy::unwrap_used, clippy::panic)] // tests and their helpers

#[path = "../../zoo/model/tests/heads/configs.rs"]
mod configs;
mod support;

use std::rc::Rc;

use laps_model::{
    array::Array,
    heads::{Ablation, D2sVseConfig, Head, HeadConfig},
    models::config::{ImageConfig, ModelConfig, SwinConfig, TextConfig, VitConfig},
    params::{ParamPath, Parameter},
    random::SplitMix64,
};
use laps_onnx::{
    graph::{Flavour, Graph, GraphKind, Opset},
    record::record,
};
use support::{
    CaseInput, GraphCase, Tensors, difference, encode, head_case, open, runtime, second_engine, store, swin_tiny,
    target, vit_tiny,
};

/// Two correct f32 implementations differ by up to 8e-7; mistakes move a similarity by 7e-5 or more.
const TOLERANCE: f32 = 1e-5;
/// Numbers of images, captions and words that no graph is recorded with.
const SHAPES: [[usize; 3]; 3] = [[1, 1, 1], [3, 5, 17], [7, 2, 33]];
/// The operators of these opsets differ: axes are an input from 18 on.
const TARGETS: [(Flavour, u32); 3] = [(Flavour::Portable, 17), (Flavour::Portable, 23), (Flavour::Ort, 18)];

/// Each head's name in the golden files and its configuration at the sizes of these.
fn heads() -> Vec<(&'static str, HeadConfig)> {
    [vec![("cosine", HeadConfig::Cosine { embed_size: 48 })], configs::heads()].concat()
}

type Read = Rc<dyn Fn(&Parameter) -> laps_model::Result<Array>>;

/// A head on encoders of width 64 with its parameters.
struct HeadModel {
    config: ModelConfig,
    read: Read,
}

impl HeadModel {
    fn new(head: HeadConfig, image: ImageConfig, read: Read) -> Self {
        let text = TextConfig { hidden_size: 64, max_position_embeddings: 40, ..vit_tiny().text };
        let embed_size = match head {
            HeadConfig::Cosine { embed_size } | HeadConfig::D2sVse(D2sVseConfig { embed_size, .. }) => embed_size,
            _ => 64,
        };
        // Of 9 patches 5 are kept, in 2 groups.
        let (sparse_ratio, aggr_ratio) = if head.has_ratios() { (0.5, 0.6) } else { (0.0, 0.0) };
        let config = ModelConfig { image, text, embed_size, sparse_ratio, aggr_ratio, head };
        Self { config, read }
    }

    /// On the 49 tokens without a class token of the golden tensors, and with their parameters.
    fn golden(name: &str, head: HeadConfig) -> Option<Self> {
        let ImageConfig::Swin(swin) = swin_tiny().image else { panic!("Swin") };
        let image = ImageConfig::Swin(SwinConfig { embed_dim: 8, num_heads: vec![1, 2, 2, 2], ..swin });
        let golden = (name != "cosine").then(|| Tensors::open(&format!("head_{name}_swin.safetensors")))?;
        Some(Self::new(head, image, Rc::new(move |parameter: &Parameter| Ok(golden.get(&parameter.name)))))
    }

    /// On 9 tokens and a class token, with random parameters.
    fn random(head: HeadConfig) -> Self {
        let ImageConfig::Vit(vit) = vit_tiny().image else { panic!("ViT") };
        let image = ImageConfig::Vit(VitConfig { image_size: 48, hidden_size: 64, ..vit });
        let read = |parameter: &Parameter| {
            let mut random = SplitMix64::named(5, &parameter.name);
            let is_variance = parameter.name.ends_with("running_var");
            let value = |value: f32| if is_variance { 0.5 + value.abs() } else { 0.2 * value };
            Array::new(&parameter.shape, (0..parameter.elements()).map(|_| value(random.normal() as f32)).collect())
        };
        Self::new(head, image, Rc::new(read))
    }

    fn definition(&self) -> Head<Array> {
        let read = Rc::clone(&self.read);
        Head::of(&self.config, &ParamPath::root(Rc::new(move |parameter: Parameter| read(&parameter)))).unwrap()
    }

    fn graph(&self, flavour: Flavour, opset: u32) -> Graph {
        let read = Rc::clone(&self.read);
        record(GraphKind::Score, &self.config, target(flavour, opset), move |parameter| read(parameter)).unwrap()
    }

    fn cases(&self) -> Vec<GraphCase> {
        let definition = self.definition();
        SHAPES.map(|[images, captions, words]| head_case(&self.config, &definition, images, captions, words)).into()
    }
}

/// The golden inputs and the similarities `key` of a head.
fn golden_case(name: &str, key: &str) -> GraphCase {
    let golden = Tensors::open(&format!("head_{name}_swin.safetensors"));
    let lengths: Vec<i64> = golden.get("lengths").values().iter().map(|&length| length as i64).collect();
    GraphCase {
        inputs: vec![
            ("patch_embeddings", CaseInput::F32(golden.get("images"))),
            ("word_embeddings", CaseInput::F32(golden.get("words"))),
            ("lengths", CaseInput::I64(vec![lengths.len()], lengths)),
        ],
        output: ("similarities", golden.get(key)),
        mask: None,
    }
}

/// Each head on both encoders, with the cases that its graph is checked with.
fn models() -> Vec<(String, HeadModel, Vec<GraphCase>)> {
    let mut models = Vec::new();
    for (name, head) in heads() {
        if let Some(model) = HeadModel::golden(name, head) {
            let mut cases = model.cases();
            cases.push(golden_case(name, "sims"));
            models.push((format!("{name}_golden"), model, cases));
        }
        let model = HeadModel::random(head);
        let cases = model.cases();
        models.push((format!("{name}_random"), model, cases));
    }
    if let Some(model) = HeadModel::golden("d2s_vse", configs::d2s_vse_pretrain()) {
        let mut cases = model.cases();
        cases.push(golden_case("d2s_vse", "sims_pretrain"));
        models.push(("d2s_vse_pretrain_golden".to_owned(), model, cases));
    }
    // The ablations have no original.
    for ablation in Ablation::ALL {
        let model = HeadModel::random(HeadConfig::LapsAblation { ablation });
        let cases = model.cases();
        models.push((format!("{ablation:?}_random"), model, cases));
    }
    models
}

#[test]
fn score_graphs_agree_with_the_originals_and_the_definition() {
    if !runtime() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("score.onnx");
    for (name, model, cases) in models() {
        for (flavour, opset) in TARGETS {
            std::fs::write(&path, encode(&model.graph(flavour, opset))).unwrap();
            let session = open(&path);
            let drifts = cases.iter().map(|case| difference(&case.run(&session), &case.output.1));
            let largest = drifts.fold(0.0, f32::max);
            println!("{name} {flavour} opset {opset}: {largest:.1e} at most");
            assert!(largest <= TOLERANCE, "{name} {flavour} {opset}: {largest:e}");
        }
    }
}

#[test]
fn score_graphs_pass_the_checker_and_agree_in_the_reference_evaluator() {
    let Some(python) = second_engine() else { return };
    let folder = tempfile::tempdir().unwrap();
    let models = models();
    for (name, model, cases) in &models {
        for (flavour, opset) in [(Flavour::Portable, 18), (Flavour::Ort, 17)] {
            let target_folder = folder.path().join(format!("{name}-{flavour}-{opset}"));
            std::fs::create_dir(&target_folder).unwrap();
            std::fs::write(target_folder.join("score.onnx"), encode(&model.graph(flavour, opset))).unwrap();
        }
        let cases_folder = folder.path().join(format!("{name}-cases"));
        std::fs::create_dir(&cases_folder).unwrap();
        for (index, case) in cases.iter().enumerate() {
            store(case, &cases_folder.join(format!("score-{index}.safetensors")));
        }
    }
    let text = python.run(folder.path(), TOLERANCE);
    assert_eq!(text.lines().filter(|line| line.ends_with(" ok")).count(), 2 * models.len(), "{text}");
}

/// The pooling of captions needs the number of words, of which nothing but the shape of the input says something; the
/// weights of all lengths are a table, so the graph has no GRU.
#[test]
fn only_sorting_of_words_computes_with_a_shape() {
    for (name, head) in heads() {
        let graph = HeadModel::random(head).graph(Flavour::Portable, Opset::default().number());
        let count = |operator: &str| graph.nodes().iter().filter(|node| node.is(operator)).count();
        let sorts = usize::from(matches!(name, "vsepp_gpo" | "d2s_vse"));
        assert_eq!((count("Shape"), count("TopK"), count("Gather")), (sorts, 2 * sorts, sorts), "{name}");
        assert!(graph.nodes().iter().all(|node| !["GRU", "Loop", "Scan", "Expand"].iter().any(|name| node.is(name))));
        println!("{name}: {} nodes", graph.nodes().len());
        assert_eq!(format!("{:?}", graph.outputs()[0].shape), "[images, captions]");
    }
}
