//! Records the encoders and the similarity of a model as graphs.

use std::{cell::RefCell, rc::Rc};

use laps_model::{
    array::Array,
    dim::Dim,
    heads::Head,
    models::{ImageEncoder, TextEncoder, config::ModelConfig},
    params::Parameter,
    tensor::Tensor,
};

use crate::{
    Result,
    graph::{ElementType, Graph, GraphKind, GraphTensor, Target},
    passes,
};

/// Records one graph of the model of `config` in single precision; `read` returns the parameters.
///
/// # Errors
/// [`laps_model::Error`] for an invalid configuration, and the errors of `read`.
pub fn record(
    kind: GraphKind,
    config: &ModelConfig,
    target: Target,
    read: impl Fn(&Parameter) -> laps_model::Result<Array> + 'static,
) -> Result<Graph> {
    config.check()?;
    let graph = Rc::new(RefCell::new(Graph::new(kind.name(), target)));
    let root = GraphTensor::parameters(&graph, read);
    let [width, word_width] = config.embedding_widths();
    let input = |name: &str, element, shape: &[Dim]| GraphTensor::input(&graph, name, element, shape);
    match kind {
        GraphKind::Image => {
            let size = Dim::from(config.image.image_size());
            let pixels = input("pixel_values", ElementType::F32, &[Dim::symbol("batch"), 3.into(), size, size])?;
            let encoder = ImageEncoder::new(&config.image, width, &root.sub("img_enc"))?;
            encoder.forward(&pixels)?.output("patch_embeddings")?;
        }
        GraphKind::Text => {
            let shape = ["batch", "length"].map(Dim::symbol);
            let input_ids = input("input_ids", ElementType::I64, &shape)?;
            let mask = input("attention_mask", ElementType::I64, &shape)?.to_float();
            let encoder = TextEncoder::new(&config.text, word_width, &root.sub("txt_enc"))?;
            encoder.forward(&input_ids, &mask)?.output("word_embeddings")?;
        }
        GraphKind::Score => {
            let tokens = config.image.num_patches() + usize::from(config.image.has_class_token());
            let [images, captions] = ["images", "captions"].map(Dim::symbol);
            let words = Dim::bounded("words", config.text.max_position_embeddings);
            let patches = input("patch_embeddings", ElementType::F32, &[images, tokens.into(), width.into()])?;
            let embeddings = input("word_embeddings", ElementType::F32, &[captions, words, word_width.into()])?;
            let lengths = input("lengths", ElementType::I64, &[captions])?;
            let head = Head::of(config, &root)?;
            let mask = word_mask(&embeddings, &lengths)?;
            head.forward(&patches, &embeddings, &mask)?.output("similarities")?;
        }
    }
    // The parameters hold a reference to the graph.
    drop(root);
    let mut graph = graph.borrow().clone();
    passes::prune(&mut graph);
    passes::fuse(&mut graph);
    passes::lower(&mut graph);
    passes::prune(&mut graph);
    Ok(graph)
}

/// The word mask `(captions, words)` of embeddings `(captions, words, width)` and lengths `(captions)`: 1 for words, 0 for
/// padding. Positions are counted along the embeddings, so the padding must be finite too.
fn word_mask(embeddings: &GraphTensor, lengths: &GraphTensor) -> laps_model::Result<GraphTensor> {
    let [captions, words, _] = embeddings.sizes()?;
    embeddings.module("cross_net", || {
        let ones = embeddings.narrow(2, 0, 1)?.affine(0.0, 1.0)?.reshape(&[captions, words])?;
        ones.cumulative_sum()?.at_most(&lengths.to_float().reshape(&[captions, 1.into()])?)
    })
}
