//! Differences between graph outputs and the model definition, and their tolerances.

use laps_model::array::Array;
use serde::{Deserialize, Serialize};

use crate::graph::GraphPrecision;

/// Difference between the output of a graph and the output of the model definition.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drift {
    /// Largest absolute difference.
    pub largest: f64,
    /// Mean absolute difference.
    pub mean: f64,
    /// Cosine of the two outputs, flattened to one vector each.
    pub cosine: f64,
}

/// Effect of reduced precision in a single product with a constant matrix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeDrift {
    /// Name of the node.
    pub node: String,
    /// Mean cosine distance of the tokens of the graph's output from the exact ones.
    #[serde(rename = "turn")]
    pub cosine_distance: f64,
    /// Whether the product stays in single precision.
    pub left_out: bool,
}

/// Allowed difference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// Largest absolute difference; None for no bound.
    pub largest: Option<f64>,
    /// Smallest cosine.
    pub cosine: f64,
    /// Largest loss in rSum, in points.
    pub rsum: f64,
}

impl Drift {
    /// The difference of `found` from `expected` at the indices for which `counts` returns true. None if the shapes differ
    /// or a value is not finite.
    pub fn of(found: &Array, expected: &Array, counts: impl Fn(usize) -> bool) -> Option<Self> {
        if found.dims() != expected.dims() {
            return None;
        }
        let (mut largest, mut sum, mut count) = (0.0f64, 0.0, 0usize);
        let [mut product, mut own, mut other] = [0.0f64; 3];
        for (index, (&a, &b)) in found.values().iter().zip(expected.values()).enumerate() {
            if !counts(index) {
                continue;
            }
            let (a, b) = (f64::from(a), f64::from(b));
            if !a.is_finite() || !b.is_finite() {
                return None;
            }
            let difference = (a - b).abs();
            largest = largest.max(difference);
            sum += difference;
            count += 1;
            product += a * b;
            own += a * a;
            other += b * b;
        }
        let norms = (own * other).sqrt();
        let cosine = if norms > 0.0 { product / norms } else { 1.0 };
        Some(Self { largest, mean: sum / count.max(1) as f64, cosine })
    }
}

impl Tolerance {
    /// Returns true if `drift` is within the tolerance.
    pub fn allows(&self, drift: &Drift) -> bool {
        drift.cosine >= self.cosine && self.largest.is_none_or(|largest| drift.largest <= largest)
    }
}

impl GraphPrecision {
    /// Tolerance for the difference from the model definition.
    pub fn tolerance(self) -> Tolerance {
        match self {
            // Another summation order.
            Self::Fp32 => Tolerance { largest: Some(1e-4), cosine: 0.999_999, rsum: 0.1 },
            // 11 bits per value; measured: 0.9999999 for a ViT of two blocks.
            Self::Fp16 => Tolerance { largest: None, cosine: 0.9995, rsum: 0.2 },
            // 8 bits per value with a scale per token; measured: 0.9997 for a ViT-S and a six-block BERT.
            Self::Int8 => Tolerance { largest: None, cosine: 0.98, rsum: 2.0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Drift, Tolerance};
    use laps_model::array::Array;

    #[test]
    fn drift_ignores_masked_values_and_rejects_nan() {
        let array = |values: [f32; 4]| Array::new(&[4], values.to_vec()).unwrap();
        let (found, expected) = (array([1.0, 2.5, 0.0, 9.0]), array([1.0, 2.0, 0.0, 0.0]));
        let drift = Drift::of(&found, &expected, |index| index < 3).unwrap();
        assert_eq!((drift.largest, drift.mean), (0.5, 0.5 / 3.0));
        // (1 + 5) / sqrt(7.25 * 5)
        assert!((drift.cosine - 6.0 / 36.25f64.sqrt()).abs() < 1e-12);
        let tolerance = Tolerance { largest: Some(0.4), cosine: 0.9, rsum: 0.0 };
        assert!(!tolerance.allows(&drift));
        assert!(Tolerance { largest: None, ..tolerance }.allows(&drift));
        assert!(Drift::of(&array([f32::NAN, 0.0, 0.0, 0.0]), &expected, |_| true).is_none());
        assert!(Drift::of(&Array::new(&[1], vec![0.0]).unwrap(), &expected, |_| true).is_none());
    }
}
