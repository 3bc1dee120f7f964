//! The parts of a model as graphs.

use std::{cell::RefCell, fmt, rc::Rc};

use laps_model::{
    array::Array,
    dim::Dim,
    models::{ImageEncoder, TextEncoder, alignment::Alignment, config::ModelConfig},
    params::Parameter,
    tensor::Tensor,
};

use crate::{
    Result,
    graph::{Element, Graph, Target, Value},
    passes,
};

/// A part of a model that has a graph of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// `pixel_values` `(batch, 3, size, size)` to `patch_embeddings` `(batch, tokens, width)`.
    Image,
    /// `input_ids` and `attention_mask` `(batch, length)` to `word_embeddings` `(batch, length, width)`.
    Text,
    /// `patch_embeddings` `(images, tokens, width)`, `word_embeddings` `(captions, words, width)` and their `lengths`
    /// `(captions)` to `similarities` `(images, captions)`.
    Score,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Image, Self::Text, Self::Score];

    /// Name of the graph.
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Text => "text",
            Self::Score => "score",
        }
    }

    /// Name of its file.
    pub fn file(self) -> String {
        format!("{}.onnx", self.name())
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Records a part of the model of `config`, whose parameters `read` gives. The graph is complete for its target, in single
/// precision.
///
/// # Errors
/// [`laps_model::Error`] for a configuration that describes no model and for whatever `read` refuses.
pub fn record(
    part: Part,
    config: &ModelConfig,
    target: Target,
    read: impl Fn(&Parameter) -> laps_model::Result<Array> + 'static,
) -> Result<Graph> {
    config.check()?;
    let graph = Rc::new(RefCell::new(Graph::new(part.name(), target)));
    let root = Value::parameters(&graph, read);
    let width = config.embed_size;
    let input = |name: &str, element, shape: &[Dim]| Value::input(&graph, name, element, shape);
    match part {
        Part::Image => {
            let size = Dim::from(config.image.image_size());
            let pixels = input("pixel_values", Element::F32, &[Dim::symbol("batch"), 3.into(), size, size])?;
            let encoder = ImageEncoder::new(&config.image, width, &root.sub("img_enc"))?;
            encoder.forward(&pixels)?.output("patch_embeddings")?;
        }
        Part::Text => {
            let shape = ["batch", "length"].map(Dim::symbol);
            let identifiers = input("input_ids", Element::I64, &shape)?;
            let mask = input("attention_mask", Element::I64, &shape)?.to_float();
            let encoder = TextEncoder::new(&config.text, width, &root.sub("txt_enc"))?;
            encoder.forward(&identifiers, &mask)?.output("word_embeddings")?;
        }
        Part::Score => {
            let tokens = config.image.num_patches() + usize::from(config.image.has_class_token());
            let [images, captions, words] = ["images", "captions", "words"].map(Dim::symbol);
            let patches = input("patch_embeddings", Element::F32, &[images, tokens.into(), width.into()])?;
            let embeddings = input("word_embeddings", Element::F32, &[captions, words, width.into()])?;
            let lengths = input("lengths", Element::I64, &[captions])?;
            let alignment = Alignment::new(config, &root.sub("cross_net"))?;
            let mask = word_mask(&embeddings, &lengths)?;
            alignment.forward(&patches, &embeddings, &mask)?.output("similarities")?;
        }
    }
    // The parameters hold the graph: they have to go first.
    drop(root);
    let mut graph = graph.borrow().clone();
    passes::prune(&mut graph);
    passes::fuse(&mut graph);
    passes::lower(&mut graph);
    passes::prune(&mut graph);
    Ok(graph)
}

/// Embeddings `(captions, words, width)` and lengths `(captions)` to 1 where there is a word, `(captions, words)`. The
/// places are counted along the embeddings themselves, which have to be finite in the padding too.
fn word_mask(embeddings: &Value, lengths: &Value) -> laps_model::Result<Value> {
    let [captions, words, _] = embeddings.sizes()?;
    embeddings.module("cross_net", || {
        let ones = embeddings.narrow(2, 0, 1)?.affine(0.0, 1.0)?.reshape(&[captions, words])?;
        ones.cumulative_sum()?.at_most(&lengths.to_float().reshape(&[captions, 1.into()])?)
    })
}
