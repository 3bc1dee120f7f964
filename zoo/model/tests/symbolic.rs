//! Every `forward` accepts symbolic sizes: a tensor without values traces the models.
#![allow(clippy::unwrap_used)] // test helpers may panic

#[allow(dead_code)] // the list of heads is not used here
#[path = "heads/configs.rs"]
mod configs;
mod support;

use configs::heads_of;
use laps_model::{Error, Result};
use laps_model::{
    dim::Dim,
    heads::{Ablation, D2sVseConfig, HeadConfig},
    models::{Laps, config::ModelConfig},
    params::{ParamPath, Parameter},
    tensor::Tensor,
};
use support::{clip_text, clip_vision, swin_tiny, vit_tiny};

/// A shape without values. Operations check shapes as for tensors with values.
#[derive(Clone, Debug)]
struct Outline(Vec<Dim>);

fn refused<T>(operation: &'static str, found: impl std::fmt::Debug) -> Result<T> {
    Err(Error::Operation { operation, expected: "shapes that fit".to_owned(), found: format!("{found:?}") })
}

fn broadcast(operation: &'static str, left: &[Dim], right: &[Dim]) -> Result<Vec<Dim>> {
    let rank = left.len().max(right.len());
    let size = |shape: &[Dim], axis: usize| (axis + shape.len()).checked_sub(rank).map_or(1.into(), |at| shape[at]);
    let one = Dim::from(1);
    (0..rank)
        .map(|axis| match (size(left, axis), size(right, axis)) {
            (a, b) if a == b || b == one => Ok(a),
            (a, b) if a == one => Ok(b),
            pair => refused(operation, pair),
        })
        .collect()
}

/// The product of the sizes, as a number and the symbols and sums that are its factors.
fn elements(shape: &[Dim]) -> (usize, Vec<String>) {
    let mut others = Vec::new();
    let mut factor = |size: &Dim| match size.parts() {
        Some((factor, symbol)) => {
            others.extend(symbol.map(str::to_owned));
            factor
        }
        None => {
            others.push(size.to_string());
            1
        }
    };
    let number = shape.iter().map(&mut factor).product();
    others.sort_unstable();
    (number, others)
}

impl Outline {
    fn same(&self) -> Result<Self> {
        Ok(self.clone())
    }

    fn joined(&self, operation: &'static str, other: &Self) -> Result<Self> {
        Ok(Self(broadcast(operation, &self.0, &other.0)?))
    }

    fn with(&self, axis: usize, size: Dim) -> Result<Self> {
        let mut shape = self.0.clone();
        match shape.get_mut(axis) {
            Some(old) => *old = size,
            None => return refused("axis", (axis, &self.0)),
        }
        Ok(Self(shape))
    }
}

impl Tensor for Outline {
    fn shape(&self) -> Vec<Dim> {
        self.0.clone()
    }
    fn constant(&self, values: &[f32], shape: &[usize]) -> Result<Self> {
        if values.len() != shape.iter().product::<usize>() {
            return refused("constant", shape);
        }
        Ok(Self(shape.iter().map(|&size| size.into()).collect()))
    }
    fn add(&self, other: &Self) -> Result<Self> {
        self.joined("add", other)
    }
    fn sub(&self, other: &Self) -> Result<Self> {
        self.joined("sub", other)
    }
    fn mul(&self, other: &Self) -> Result<Self> {
        self.joined("mul", other)
    }
    fn div(&self, other: &Self) -> Result<Self> {
        self.joined("div", other)
    }
    fn affine(&self, _: f64, _: f64) -> Result<Self> {
        self.same()
    }
    fn matmul(&self, other: &Self) -> Result<Self> {
        let ([left @ .., rows, inner], [right @ .., other_inner, columns]) = (&self.0[..], &other.0[..]) else {
            return refused("matmul", (self, other));
        };
        if inner != other_inner {
            return refused("matmul", (self, other));
        }
        let mut shape = broadcast("matmul", left, right)?;
        shape.extend([rows, columns]);
        Ok(Self(shape))
    }
    fn matmul_each(&self, other: &Self) -> Result<Self> {
        let [outer, inner, columns] = other.sizes()?;
        self.matmul(&other.reshape(&[outer, 1.into(), inner, columns])?)
    }
    fn matmul_shared(&self, other: &Self) -> Result<Self> {
        self.matmul_each(other)
    }
    fn linear(&self, weight: &Self, bias: Option<&Self>) -> Result<Self> {
        let [out, inner] = weight.sizes()?;
        if self.0.last() != Some(&inner) || bias.is_some_and(|bias| bias.0 != [out]) {
            return refused("linear", (self, weight, bias));
        }
        self.with(self.0.len() - 1, out)
    }
    fn embedding(&self, input_ids: &Self) -> Result<Self> {
        let [_, width] = self.sizes()?;
        Ok(Self([&input_ids.0[..], &[width]].concat()))
    }
    fn reshape(&self, shape: &[Dim]) -> Result<Self> {
        if elements(&self.0) != elements(shape) {
            return refused("reshape", (self, shape));
        }
        Ok(Self(shape.to_vec()))
    }
    fn permute(&self, order: &[usize]) -> Result<Self> {
        Ok(Self(order.iter().map(|&axis| self.0[axis]).collect()))
    }
    fn narrow(&self, axis: usize, start: usize, length: usize) -> Result<Self> {
        if self.0[axis].smallest() < start + length {
            return refused("narrow", (self, axis, start, length));
        }
        self.with(axis, length.into())
    }
    fn select(&self, axis: usize, indices: &[usize]) -> Result<Self> {
        let size = self.0[axis].fixed()?;
        if indices.iter().any(|&index| index >= size) {
            return refused("select", (self, axis));
        }
        self.with(axis, indices.len().into())
    }
    fn concat(parts: &[&Self], axis: usize) -> Result<Self> {
        let total = parts.iter().try_fold(Dim::from(0), |total, part| total.plus(part.0[axis]))?;
        let joined = parts[0].with(axis, total)?;
        for part in parts {
            if part.with(axis, total)?.0 != joined.0 {
                return refused("concat", parts);
            }
        }
        Ok(joined)
    }
    fn expand(&self, shape: &[Dim]) -> Result<Self> {
        if broadcast("expand", &self.0, shape)? != shape {
            return refused("expand", (self, shape));
        }
        Ok(Self(shape.to_vec()))
    }
    fn softmax(&self) -> Result<Self> {
        self.same()
    }
    fn layer_norm(&self, weight: &Self, bias: &Self, _: f64) -> Result<Self> {
        let width = self.0.last().copied();
        if weight.sizes::<1>()?.first() != width.as_ref() || weight.0 != bias.0 {
            return refused("layer_norm", (self, weight, bias));
        }
        self.same()
    }
    fn gelu(&self) -> Result<Self> {
        self.same()
    }
    fn exp(&self) -> Result<Self> {
        self.same()
    }
    fn ln(&self) -> Result<Self> {
        self.same()
    }
    fn sqrt(&self) -> Result<Self> {
        self.same()
    }
    fn tanh(&self) -> Result<Self> {
        self.same()
    }
    fn sort_descending(&self, axis: usize) -> Result<Self> {
        self.with(axis, self.0[axis])
    }
    fn leaky_relu(&self, _: f64) -> Result<Self> {
        self.same()
    }
    fn normalize(&self, _: f64) -> Result<Self> {
        self.same()
    }
    fn sum(&self, axis: usize) -> Result<Self> {
        self.with(axis, 1.into())
    }
    fn max(&self, axis: usize) -> Result<Self> {
        self.with(axis, 1.into())
    }
    fn cumulative_sum(&self) -> Result<Self> {
        self.same()
    }
    fn top_k_mask(&self, count: usize) -> Result<Self> {
        match self.0.last().map(|size| size.fixed()) {
            Some(Ok(size)) if count <= size => self.same(),
            _ => refused("top_k_mask", (self, count)),
        }
    }
}

fn trace(config: &ModelConfig, tokens: usize) {
    let path = ParamPath::root(std::rc::Rc::new(|parameter: Parameter| {
        Ok(Outline(parameter.shape.iter().map(|&size| size.into()).collect()))
    }));
    let model = Laps::<Outline>::new(config, &path).unwrap();
    let [batch, length, images, captions] = ["batch", "length", "images", "captions"].map(Dim::symbol);
    let words = Dim::bounded("words", 12);
    let [width, word_width] = config.embedding_widths().map(Dim::from);

    let size = Dim::from(config.image.image_size());
    let pixels = Outline(vec![batch, 3.into(), size, size]);
    assert_eq!(model.image.forward(&pixels).unwrap().0, [batch, tokens.into(), width]);

    let input_ids = Outline(vec![batch, length]);
    assert_eq!(model.text.forward(&input_ids, &input_ids).unwrap().0, [batch, length, word_width]);

    let patches = Outline(vec![images, tokens.into(), width]);
    let embeddings = Outline(vec![captions, words, word_width]);
    let mask = Outline(vec![captions, words]);
    assert_eq!(model.head.forward(&patches, &embeddings, &mask).unwrap().0, [images, captions]);
}

#[test]
fn vit_accepts_symbolic_sizes() {
    trace(&vit_tiny(), 197);
}

#[test]
fn swin_accepts_symbolic_sizes() {
    trace(&swin_tiny(), 49);
}

#[test]
fn clip_accepts_symbolic_sizes() {
    trace(&ModelConfig { image: clip_vision(), text: clip_text(), ..vit_tiny() }, 37);
}

#[test]
fn every_head_accepts_symbolic_sizes() {
    let sgr = HeadConfig::Sgr { sim_dim: 8, steps: 2 };
    let d2s_vse = D2sVseConfig { embed_size: 96, mlp_size: 8, prompt_tokens: 3, blocks: 1, heads: 2 };
    // It needs a class token.
    let cosine = HeadConfig::Cosine { embed_size: 24 };
    trace(&ModelConfig { head: cosine, sparse_ratio: 0.0, aggr_ratio: 0.0, ..vit_tiny() }, 197);
    for (_, head) in heads_of(sgr, d2s_vse) {
        trace(&ModelConfig { head, sparse_ratio: 0.0, aggr_ratio: 0.0, ..swin_tiny() }, 49);
    }
    for ablation in Ablation::ALL {
        let head = HeadConfig::LapsAblation { ablation };
        trace(&ModelConfig { head, ..vit_tiny() }, 197);
        trace(&ModelConfig { head, ..swin_tiny() }, 49);
    }
}
