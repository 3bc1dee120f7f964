//! The network that says how much a patch gives to each group.

use super::{
    captions::sum,
    product::{Pack, Panels, Product},
    simd::Level,
};
use crate::{Error, Result};
use laps_model::array::Array;

/// Parameters of the aggregation network: layer norm, linear, GELU, linear, scale.
#[derive(Clone, Debug, PartialEq)]
pub struct AggregationWeights {
    /// Weight of the layer norm, `(width)`.
    pub norm_weight: Array,
    /// Bias of the layer norm, `(width)`.
    pub norm_bias: Array,
    /// Weight of the first linear layer, `(hidden, width)`.
    pub hidden_weight: Array,
    /// Bias of the first linear layer, `(hidden)`.
    pub hidden_bias: Array,
    /// Weight of the second linear layer, `(groups, hidden)`.
    pub group_weight: Array,
    /// Bias of the second linear layer, `(groups)`.
    pub group_bias: Array,
    /// Factor of the logits, one value.
    pub scale: Array,
}

impl AggregationWeights {
    /// Takes the parameters from wherever `get` finds them by their full name in a checkpoint, `cross_net.aggr_net.*`.
    pub fn load(mut get: impl FnMut(&str) -> Result<Array>) -> Result<Self> {
        let mut part = |name: &str| get(&format!("cross_net.aggr_net.{name}"));
        Ok(Self {
            norm_weight: part("weight.0.weight")?,
            norm_bias: part("weight.0.bias")?,
            hidden_weight: part("weight.1.weight")?,
            hidden_bias: part("weight.1.bias")?,
            group_weight: part("weight.3.weight")?,
            group_bias: part("weight.3.bias")?,
            scale: part("scale")?,
        })
    }
}

/// The network, packed for the matrix product.
#[derive(Debug)]
pub(super) struct Aggregation {
    norm: Vec<(f32, f32)>,
    hidden: Panels,
    hidden_bias: Vec<f32>,
    groups: Panels,
    group_bias: Vec<f32>,
    scale: f32,
}

impl Aggregation {
    pub(super) fn new(weights: &AggregationWeights, width: usize, groups: usize, level: Level) -> Result<Self> {
        let hidden = weights.hidden_bias.values().len();
        if hidden == 0 {
            return Err(Error::Parameter {
                name: "cross_net.aggr_net.weight.1.bias".to_owned(),
                expected: "at least one value".to_owned(),
                found: "none".to_owned(),
            });
        }
        for (name, array, shape) in [
            ("weight.0.weight", &weights.norm_weight, &[width][..]),
            ("weight.0.bias", &weights.norm_bias, &[width]),
            ("weight.1.weight", &weights.hidden_weight, &[hidden, width]),
            ("weight.1.bias", &weights.hidden_bias, &[hidden]),
            ("weight.3.weight", &weights.group_weight, &[groups, hidden]),
            ("weight.3.bias", &weights.group_bias, &[groups]),
        ] {
            if array.dims() != shape {
                return Err(parameter(name, format!("shape {shape:?}"), format!("shape {:?}", array.dims())));
            }
            finite(name, array)?;
        }
        let &[scale] = weights.scale.values() else {
            return Err(parameter("scale", "one value".to_owned(), format!("shape {:?}", weights.scale.dims())));
        };
        finite("scale", &weights.scale)?;
        Ok(Self {
            norm: weights
                .norm_weight
                .values()
                .iter()
                .copied()
                .zip(weights.norm_bias.values().iter().copied())
                .collect(),
            hidden: pack(&weights.hidden_weight, width, level),
            hidden_bias: weights.hidden_bias.values().to_vec(),
            groups: pack(&weights.group_weight, hidden, level),
            group_bias: weights.group_bias.values().to_vec(),
            scale,
        })
    }

    /// Bytes that `logits` takes for so many patches while it runs.
    pub(super) fn scratch_bytes(&self, patches: usize) -> usize {
        4 * patches * (2 * self.norm.len() + self.hidden.padded() + self.hidden.rows() + self.groups.padded())
    }

    /// Patches `(patches, width)` to logits `(patches, stride)`, of which the first `groups` of a row are set.
    pub(super) fn logits(&self, patches: &[f32], stride: usize, level: Level) -> Vec<f32> {
        let width = self.norm.len();
        let count = patches.len() / width;
        let mut normed = Vec::with_capacity(patches.len());
        for patch in patches.chunks_exact(width) {
            layer_norm(patch, &self.norm, &mut normed);
        }
        let hidden_width = self.hidden.rows();
        let mut hidden = Vec::with_capacity(count * hidden_width);
        let product = multiply(&normed, &self.hidden, level);
        for row in product.chunks_exact(self.hidden.padded()) {
            hidden.extend(row.iter().zip(&self.hidden_bias).map(|(value, bias)| gelu(value + bias)));
        }
        let product = multiply(&hidden, &self.groups, level);
        let mut logits = vec![0.0; count * stride];
        for (row, to) in product.chunks_exact(self.groups.padded()).zip(logits.chunks_exact_mut(stride)) {
            for ((slot, value), bias) in to.iter_mut().zip(row).zip(&self.group_bias) {
                *slot = (value + bias) * self.scale;
            }
        }
        logits
    }
}

fn pack(matrix: &Array, width: usize, level: Level) -> Panels {
    let mut panels = Panels::new(matrix.values().len() / width, width, level.lanes());
    for (row, values) in matrix.values().chunks_exact(width).enumerate() {
        panels.set(row, values);
    }
    panels
}

/// `(rows, width)` by packed `(columns, width)` to `(rows, columns padded to whole panels)`.
pub(super) fn multiply(left: &[f32], right: &Panels, level: Level) -> Vec<f32> {
    let stride = right.padded();
    let mut output = vec![0.0; left.len() / right.width() * stride];
    let mut packed = vec![0.0; left.len()];
    level.run(Pack { rows: left, width: right.width(), output: &mut packed });
    level.run(Product { left: &packed, right, panels: 0..stride / right.panel(), output: &mut output, stride });
    output
}

/// Layer normalisation with epsilon 1e-5, the variance over all entries; sums in f64.
fn layer_norm(values: &[f32], weights: &[(f32, f32)], output: &mut Vec<f32>) {
    let count = values.len() as f64;
    let mean = sum(values, f64::from) / count;
    let variance = sum(values, |value| (f64::from(value) - mean) * (f64::from(value) - mean)) / count;
    let factor = 1.0 / (variance + 1e-5).sqrt();
    output.extend(
        values
            .iter()
            .zip(weights)
            .map(|(&value, &(weight, bias))| ((f64::from(value) - mean) * factor) as f32 * weight + bias),
    );
}

/// GELU by the error function.
fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2))
}

fn finite(name: &str, array: &Array) -> Result<()> {
    match array.values().iter().find(|value| !value.is_finite()) {
        Some(value) => Err(parameter(name, "finite values".to_owned(), value.to_string())),
        None => Ok(()),
    }
}

fn parameter(name: &str, expected: String, found: String) -> Error {
    Error::Parameter { name: format!("cross_net.aggr_net.{name}"), expected, found }
}
