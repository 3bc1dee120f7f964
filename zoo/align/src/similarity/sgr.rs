//! Similarities of `sgr` for one image with a block of captions.
//!
//! The features of one image or one caption alone come from the definition in laps-model. The rest is one matrix product a
//! layer over all words of the block, and small sums for each caption:
//!
//! - The attended vector of a word is normalised, so the softmax needs no denominator.
//! - Query and key of a step are one product: a softmax does not see what all its entries share, so the logit of the nodes
//!   `i` and `j` is `(A u_i + a).u_j` with `A = W_k^T W_q` and `a = W_k^T b_q`.
//! - Of the last step only the global node is needed.
//!
//! A pair of ViT-224 and 14 words takes 9.1 million multiply-adds at 256 dimensions and three steps; the definition takes 14.0
//! million.

use std::ops::Range;

use laps_model::array::Array;

use super::{
    packed::PackedRows,
    simd::{Kernel, MAX_LANES, Simd, SimdLevel},
};
use crate::Result;

/// Added to a norm.
const SOFT_NORM_EPS: f32 = laps_model::heads::SOFT_NORM_EPS as f32;
/// Logit behind the nodes of a caption.
const NO_LOGIT: f32 = -1e30;

/// A layer with packed weights, padded to whole panels with zeros.
struct PackedLinear {
    weight: PackedRows,
    bias: Vec<f32>,
}

impl PackedLinear {
    /// `weight` `(outputs, inputs)` for inputs that are padded to `padded_inputs`.
    fn new(weight: &[f32], bias: &[f32], padded_inputs: usize, level: SimdLevel) -> Result<Self> {
        let inputs = weight.len() / bias.len().max(1);
        let mut rows = Vec::with_capacity(bias.len() * padded_inputs);
        for row in weight.chunks_exact(inputs) {
            rows.extend_from_slice(row);
            rows.resize(rows.len() + padded_inputs - inputs, 0.0);
        }
        let weight = PackedRows::new(&rows, padded_inputs, level)?;
        let mut bias = bias.to_vec();
        bias.resize(weight.columns(), 0.0);
        Ok(Self { weight, bias })
    }

    /// Products of `rows` without the bias, `(rows, columns)`. `packed` is a buffer of the size of `rows`.
    fn multiply(&self, rows: &[f32], packed: &mut Vec<f32>, output: &mut [f32]) {
        packed.resize(rows.len().max(packed.len()), 0.0);
        self.weight.multiply_block(rows, &mut packed[..rows.len()], output);
    }
}

/// A reasoning step: the product that replaces query and key, and the layer after the weighted sum of nodes.
struct PackedStep {
    logits: PackedLinear,
    graph: PackedLinear,
}

/// The weights of what is computed for each pair.
pub(super) struct PairWeights {
    local: PackedLinear,
    global: PackedLinear,
    steps: Vec<PackedStep>,
    output: Vec<f32>,
    output_bias: f32,
    level: SimdLevel,
    /// Width of the embeddings, and what it is padded to.
    width: usize,
    padded_width: usize,
}

impl PairWeights {
    /// `read` returns the parameters of the head by name.
    pub(super) fn new(
        width: usize,
        steps: usize,
        level: SimdLevel,
        read: impl Fn(&str) -> Result<Array>,
    ) -> Result<Self> {
        let panel = 2 * level.lanes();
        let padded_width = width.next_multiple_of(panel);
        let values = |name: String| Ok::<_, crate::Error>(read(&format!("sim_enc.{name}"))?.values().to_vec());
        let both =
            |name: &str| Ok::<_, crate::Error>((values(format!("{name}.weight"))?, values(format!("{name}.bias"))?));
        let linear = |name: &str, padded| {
            let (weight, bias) = both(name)?;
            PackedLinear::new(&weight, &bias, padded, level)
        };
        let local = linear("sim_tranloc_w", padded_width)?;
        let size = local.weight.columns();
        let step = |index: usize| {
            let (query, query_bias) = both(&format!("SGR_module.{index}.graph_query_w"))?;
            let (key, _) = both(&format!("SGR_module.{index}.graph_key_w"))?;
            let count = query_bias.len();
            // In f64, so that the product is not less exact than two products of f32.
            let mut logits = vec![0.0_f64; count * count];
            let mut bias = vec![0.0_f64; count];
            for ((query, key), &query_bias) in query.chunks_exact(count).zip(key.chunks_exact(count)).zip(&query_bias) {
                for ((row, bias), &key) in logits.chunks_exact_mut(count).zip(&mut bias).zip(key) {
                    *bias += f64::from(key) * f64::from(query_bias);
                    for (sum, &query) in row.iter_mut().zip(query) {
                        *sum += f64::from(key) * f64::from(query);
                    }
                }
            }
            let [logits, bias] = [logits, bias].map(|sums| sums.into_iter().map(|sum| sum as f32).collect::<Vec<_>>());
            Ok(PackedStep {
                logits: PackedLinear::new(&logits, &bias, size, level)?,
                graph: linear(&format!("SGR_module.{index}.sim_graph_w"), size)?,
            })
        };
        let (mut output, output_bias) = both("sim_eval_w")?;
        output.resize(size, 0.0);
        Ok(Self {
            global: linear("sim_tranglo_w", padded_width)?,
            steps: (0..steps).map(step).collect::<Result<_>>()?,
            output,
            output_bias: output_bias.first().copied().unwrap_or(0.0),
            local,
            level,
            width,
            padded_width,
        })
    }

    /// Columns of a node.
    fn size(&self) -> usize {
        self.local.weight.columns()
    }

    /// Values of the buffers for a block of `words` words.
    pub(super) fn buffer_values(&self, words: usize) -> usize {
        // A caption has a word at least, so there are at most twice as many nodes as words.
        let widest = self.padded_width.max(self.size());
        words * (3 * self.padded_width + 2 * widest + 8 * self.size())
    }

    /// Values of a [`PreparedGraph`] whose products have `columns` columns.
    pub(super) fn image_values(&self, columns: usize) -> usize {
        self.padded_width * (columns + 1)
    }
}

/// An image as `sgr` needs it.
pub(super) struct PreparedGraph {
    /// The normalised tokens, transposed: `(width, columns of the tokens)`.
    pub(super) transposed: PackedRows,
    /// The pooled vector, padded.
    pub(super) pooled: Vec<f32>,
}

impl PreparedGraph {
    /// `tokens` `(tokens, width)`, whose products have `columns` columns.
    pub(super) fn new(weights: &PairWeights, tokens: &[f32], columns: usize, pooled: &[f32]) -> Result<Self> {
        let mut transposed = vec![0.0; weights.width * columns];
        for (token, values) in tokens.chunks_exact(weights.width).enumerate() {
            for (row, &value) in transposed.chunks_exact_mut(columns).zip(values) {
                row[token] = value;
            }
        }
        let mut pooled = pooled.to_vec();
        pooled.resize(weights.padded_width, 0.0);
        Ok(Self { transposed: PackedRows::new(&transposed, columns, weights.level)?, pooled })
    }
}

/// Buffers of one thread.
#[derive(Default)]
pub(super) struct GraphBuffers {
    packed: Vec<f32>,
    words: Vec<f32>,
    attended: Vec<f32>,
    products: Vec<f32>,
    nodes: Vec<f32>,
    queries: Vec<f32>,
    mixed: Vec<f32>,
    logits: Vec<f32>,
}

/// Sets the size of a buffer that keeps its memory.
fn sized(buffer: &mut Vec<f32>, size: usize) -> &mut [f32] {
    buffer.resize(size.max(buffer.len()), 0.0);
    &mut buffer[..size]
}

/// The captions of a block.
pub(super) struct GraphBlock<'a> {
    /// Words of each caption, from 0, without gaps.
    pub(super) spans: &'a [Range<usize>],
    /// Normalised words `(words, width)`.
    pub(super) words: &'a [f32],
    /// Pooled vectors `(captions, width)`.
    pub(super) pooled: &'a [f32],
    /// Weights of the words to the tokens, `(words, columns)`.
    pub(super) attention: &'a [f32],
}

impl GraphBlock<'_> {
    /// The similarities of the captions with an image.
    pub(super) fn similarities(
        &self,
        weights: &PairWeights,
        image: &PreparedGraph,
        buffers: &mut GraphBuffers,
        output: &mut [f32],
    ) {
        let (level, width, padded, size) = (weights.level, weights.width, weights.padded_width, weights.size());
        let (rows, captions) = (self.words.len() / width, self.spans.len());
        let GraphBuffers { packed, words, attended, products, nodes, queries, mixed, logits } = buffers;

        let words = sized(words, rows * padded);
        pad(self.words, width, words, padded);
        let attended = sized(attended, (rows + captions) * padded);
        let (attended, pooled) = attended.split_at_mut(rows * padded);
        image.transposed.multiply_block(self.attention, sized(packed, self.attention.len()), attended);
        for (vector, word) in attended.chunks_exact_mut(padded).zip(words.chunks_exact(padded)) {
            level.run(SquaredDifference { vector, normalise: true, other: word });
        }
        pad(self.pooled, width, pooled, padded);
        for vector in pooled.chunks_exact_mut(padded) {
            level.run(SquaredDifference { vector, normalise: false, other: &image.pooled });
        }

        let products = sized(products, (rows + captions) * size);
        let (local, global) = products.split_at_mut(rows * size);
        for (layer, input, output) in [(&weights.local, attended, local), (&weights.global, pooled, global)] {
            layer.multiply(input, packed, output);
            level.run(AddBias { rows: output, bias: &layer.bias, then: Activation::Normalise });
        }
        // The rows of a caption are its global node and its words.
        let nodes = sized(nodes, (rows + captions) * size);
        let of_caption =
            |caption: usize, span: &Range<usize>| (span.start + caption) * size..(span.end + caption + 1) * size;
        for (caption, span) in self.spans.iter().enumerate() {
            let (first, others) = nodes[of_caption(caption, span)].split_at_mut(size);
            first.copy_from_slice(&products[(rows + caption) * size..][..size]);
            others.copy_from_slice(&products[span.start * size..span.end * size]);
        }

        let last = weights.steps.len().saturating_sub(1);
        for (index, step) in weights.steps.iter().enumerate() {
            // Rows that the step computes: all nodes, and at last the global ones.
            let (count, computed) = if index < last { (rows + captions, None) } else { (captions, Some(size)) };
            let mixed = sized(mixed, count * size);
            let queries = sized(queries, count * size);
            match computed {
                None => step.logits.multiply(nodes, packed, queries),
                Some(_) => {
                    for ((caption, span), row) in self.spans.iter().enumerate().zip(mixed.chunks_exact_mut(size)) {
                        row.copy_from_slice(&nodes[of_caption(caption, span)][..size]);
                    }
                    step.logits.multiply(mixed, packed, queries);
                }
            }
            level.run(AddBias { rows: queries, bias: &step.logits.bias, then: Activation::None });
            for (caption, span) in self.spans.iter().enumerate() {
                let all = of_caption(caption, span);
                let range = if computed.is_none() { all.clone() } else { caption * size..(caption + 1) * size };
                let logits = sized(logits, (span.len() + 1).next_multiple_of(MAX_LANES));
                let (queries, mixed) = (&queries[range.clone()], &mut mixed[range]);
                level.run(MixNodes { queries, nodes: &nodes[all], size, logits, mixed });
            }
            let nodes = &mut nodes[..count * size];
            step.graph.multiply(mixed, packed, nodes);
            level.run(AddBias { rows: nodes, bias: &step.graph.bias, then: Activation::Relu });
        }
        for ((caption, span), output) in self.spans.iter().enumerate().zip(output) {
            let first = if weights.steps.is_empty() { of_caption(caption, span).start } else { caption * size };
            let logit = level.run(Dot { left: &nodes[first..first + size], right: &weights.output });
            *output = 1.0 / (1.0 + (-(logit + weights.output_bias)).exp());
        }
    }
}

/// Copies rows of `width` to rows of `padded`, with zeros behind them.
fn pad(rows: &[f32], width: usize, output: &mut [f32], padded: usize) {
    for (row, output) in rows.chunks_exact(width).zip(output.chunks_exact_mut(padded)) {
        output[..width].copy_from_slice(row);
        output[width..].fill(0.0);
    }
}

#[inline(always)]
fn square<S: Simd>(simd: S, vector: &[f32]) -> f32 {
    let mut sum = simd.splat(0.0);
    for part in vector.chunks_exact(S::LANES) {
        let value = simd.load(part);
        sum = simd.mul_add(value, value, sum);
    }
    simd.sum(sum)
}

/// Replaces a vector by its squared differences from another one in each dimension.
struct SquaredDifference<'a> {
    vector: &'a mut [f32],
    /// Whether the vector is normalised first.
    normalise: bool,
    other: &'a [f32],
}

impl Kernel for SquaredDifference<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        // Without the denominator of its softmax a vector is longer or shorter than with it, so its norm has a lower bound
        // instead of an addend.
        let factor = if self.normalise { 1.0 / square(simd, self.vector).sqrt().max(f32::MIN_POSITIVE) } else { 1.0 };
        let factor = simd.splat(factor);
        for (vector, other) in self.vector.chunks_exact_mut(S::LANES).zip(self.other.chunks_exact(S::LANES)) {
            let negative = simd.mul(simd.load(other), simd.splat(-1.0));
            let difference = simd.mul_add(simd.load(vector), factor, negative);
            simd.store(simd.mul(difference, difference), vector);
        }
    }
}

/// Activation applied after the bias.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Activation {
    None,
    /// `x / (|x| + eps)` of each row.
    Normalise,
    Relu,
}

/// Adds a bias to each row, and applies an activation.
struct AddBias<'a> {
    rows: &'a mut [f32],
    bias: &'a [f32],
    then: Activation,
}

impl Kernel for AddBias<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let zero = simd.splat(0.0);
        for row in self.rows.chunks_exact_mut(self.bias.len()) {
            for (values, bias) in row.chunks_exact_mut(S::LANES).zip(self.bias.chunks_exact(S::LANES)) {
                let sum = simd.add(simd.load(values), simd.load(bias));
                simd.store(if self.then == Activation::Relu { simd.max(sum, zero) } else { sum }, values);
            }
            if self.then == Activation::Normalise {
                let factor = simd.splat(1.0 / (square(simd, row).sqrt() + SOFT_NORM_EPS));
                for values in row.chunks_exact_mut(S::LANES) {
                    simd.store(simd.mul(simd.load(values), factor), values);
                }
            }
        }
    }
}

/// Weighted sums of the nodes of a caption, by the softmax of the products of queries and nodes.
struct MixNodes<'a> {
    /// `(rows, size)`
    queries: &'a [f32],
    /// `(nodes, size)`
    nodes: &'a [f32],
    size: usize,
    /// Buffer for the logits of a row.
    logits: &'a mut [f32],
    /// Receives the sums, `(rows, size)`.
    mixed: &'a mut [f32],
}

impl Kernel for MixNodes<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { queries, nodes, size, logits, mixed } = self;
        let count = nodes.len() / size;
        for (query, mixed) in queries.chunks_exact(size).zip(mixed.chunks_exact_mut(size)) {
            for (logit, node) in logits.iter_mut().zip(nodes.chunks_exact(size)) {
                *logit = dot(simd, query, node);
            }
            let largest = logits[..count].iter().copied().fold(f32::NEG_INFINITY, f32::max);
            logits[count..].fill(NO_LOGIT);
            let mut total = 0.0;
            for values in logits.chunks_exact_mut(S::LANES) {
                let weight = simd.exp_negative(simd.add(simd.load(values), simd.splat(-largest)));
                simd.store(weight, values);
            }
            for weight in &logits[..count] {
                total += weight;
            }
            let factor = simd.splat(1.0 / total);
            for start in (0..size).step_by(S::LANES) {
                let mut sum = simd.splat(0.0);
                for (node, &weight) in nodes.chunks_exact(size).zip(&logits[..count]) {
                    sum = simd.mul_add(simd.splat(weight), simd.load(&node[start..]), sum);
                }
                simd.store(simd.mul(sum, factor), &mut mixed[start..]);
            }
        }
    }
}

#[inline(always)]
fn dot<S: Simd>(simd: S, left: &[f32], right: &[f32]) -> f32 {
    let mut sum = simd.splat(0.0);
    for (left, right) in left.chunks_exact(S::LANES).zip(right.chunks_exact(S::LANES)) {
        sum = simd.mul_add(simd.load(left), simd.load(right), sum);
    }
    simd.sum(sum)
}

/// The inner product.
struct Dot<'a> {
    left: &'a [f32],
    right: &'a [f32],
}

impl Kernel for Dot<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        dot(simd, self.left, self.right)
    }
}
