//! The aggregation network: the logit of a patch in each group.

use super::{captions::sum_of, packed::PackedRows, simd::SimdLevel};
use crate::{Error, Result};
use laps_model::{array::Array, models::alignment::AGGREGATION_NORM_EPS};

/// Prefix of the parameter names in a checkpoint.
const PREFIX: &str = "cross_net.aggr_net.";

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
    /// Loads the parameters from `get`, which receives their full names in a checkpoint, `cross_net.aggr_net.*`.
    ///
    /// # Errors
    /// Those of `get`.
    pub fn load(mut get: impl FnMut(&str) -> Result<Array>) -> Result<Self> {
        let mut parameter = |name: &str| get(&format!("{PREFIX}{name}"));
        Ok(Self {
            norm_weight: parameter("weight.0.weight")?,
            norm_bias: parameter("weight.0.bias")?,
            hidden_weight: parameter("weight.1.weight")?,
            hidden_bias: parameter("weight.1.bias")?,
            group_weight: parameter("weight.3.weight")?,
            group_bias: parameter("weight.3.bias")?,
            scale: parameter("scale")?,
        })
    }

    /// The parameter with a full name, `cross_net.aggr_net.*`.
    pub fn parameter(&self, name: &str) -> Option<&Array> {
        match name.strip_prefix(PREFIX)? {
            "weight.0.weight" => Some(&self.norm_weight),
            "weight.0.bias" => Some(&self.norm_bias),
            "weight.1.weight" => Some(&self.hidden_weight),
            "weight.1.bias" => Some(&self.hidden_bias),
            "weight.3.weight" => Some(&self.group_weight),
            "weight.3.bias" => Some(&self.group_bias),
            "scale" => Some(&self.scale),
            _ => None,
        }
    }
}

/// The network with packed weights.
#[derive(Debug)]
pub(super) struct PackedAggregation {
    norm: Vec<(f32, f32)>,
    hidden: PackedRows,
    hidden_bias: Vec<f32>,
    groups: PackedRows,
    group_bias: Vec<f32>,
    scale: f32,
}

impl PackedAggregation {
    pub(super) fn new(weights: &AggregationWeights, width: usize, groups: usize, level: SimdLevel) -> Result<Self> {
        let hidden = weights.hidden_bias.values().len();
        if hidden == 0 {
            return Err(Error::Parameter {
                name: format!("{PREFIX}weight.1.bias"),
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
            hidden: PackedRows::new(weights.hidden_weight.values(), width, level)?,
            hidden_bias: weights.hidden_bias.values().to_vec(),
            groups: PackedRows::new(weights.group_weight.values(), hidden, level)?,
            group_bias: weights.group_bias.values().to_vec(),
            scale,
        })
    }

    /// Bytes of `logits` while it runs.
    pub(super) fn scratch_bytes(&self, patches: usize) -> usize {
        4 * patches * (2 * self.norm.len() + self.hidden.columns() + self.hidden.rows() + self.groups.columns())
    }

    /// Patches `(patches, width)` to logits `(patches, stride)`, of which the first `groups` of a row are set.
    pub(super) fn logits(&self, patches: &[f32], stride: usize) -> Vec<f32> {
        let width = self.norm.len();
        let count = patches.len() / width;
        let mut normed = Vec::with_capacity(patches.len());
        for patch in patches.chunks_exact(width) {
            layer_norm(patch, &self.norm, &mut normed);
        }
        let hidden_width = self.hidden.rows();
        let mut hidden = Vec::with_capacity(count * hidden_width);
        let product = self.hidden.product(&normed);
        for row in product.chunks_exact(self.hidden.columns()) {
            hidden.extend(row.iter().zip(&self.hidden_bias).map(|(value, bias)| gelu(value + bias)));
        }
        let product = self.groups.product(&hidden);
        let mut logits = vec![0.0; count * stride];
        for (row, to) in product.chunks_exact(self.groups.columns()).zip(logits.chunks_exact_mut(stride)) {
            for ((slot, value), bias) in to.iter_mut().zip(row).zip(&self.group_bias) {
                *slot = (value + bias) * self.scale;
            }
        }
        logits
    }
}

/// Layer normalisation, with the variance over all values and sums in f64.
fn layer_norm(values: &[f32], weights: &[(f32, f32)], output: &mut Vec<f32>) {
    let count = values.len() as f64;
    let mean = sum_of(values, f64::from) / count;
    let variance = sum_of(values, |value| (f64::from(value) - mean) * (f64::from(value) - mean)) / count;
    let factor = 1.0 / (variance + AGGREGATION_NORM_EPS).sqrt();
    output.extend(
        values
            .iter()
            .zip(weights)
            .map(|(&value, &(weight, bias))| ((f64::from(value) - mean) * factor) as f32 * weight + bias),
    );
}

/// GELU with the error function.
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
    Error::Parameter { name: format!("{PREFIX}{name}"), expected, found }
}
