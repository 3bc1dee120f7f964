//! How far two results are apart.

use laps_model::array::Array;
use serde::{Deserialize, Serialize};

/// How far the output of a graph is from that of the model definition.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drift {
    /// Largest difference of two values.
    pub largest: f64,
    /// Mean of the absolute differences.
    pub mean: f64,
    /// Cosine of the two outputs, each taken as one vector.
    pub cosine: f64,
}

/// How far it may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// Largest difference of two values, where it is bounded.
    pub largest: Option<f64>,
    /// Smallest cosine.
    pub cosine: f64,
    /// Points of the sum of recalls that may be lost on a data set.
    pub rsum: f64,
}

impl Drift {
    /// Of `found` from `expected`, where `counts` holds for the place of a value. None where the shapes differ or a value
    /// is not a number.
    pub fn of(found: &Array, expected: &Array, counts: impl Fn(usize) -> bool) -> Option<Self> {
        if found.dims() != expected.dims() {
            return None;
        }
        let (mut largest, mut sum, mut count) = (0.0f64, 0.0, 0usize);
        let [mut product, mut own, mut other] = [0.0f64; 3];
        for (place, (&a, &b)) in found.values().iter().zip(expected.values()).enumerate() {
            if !counts(place) {
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
    /// Whether `drift` lies within.
    pub fn holds(&self, drift: &Drift) -> bool {
        drift.cosine >= self.cosine && self.largest.is_none_or(|largest| drift.largest <= largest)
    }
}

#[cfg(test)]
mod tests {
    use super::{Drift, Tolerance};
    use laps_model::array::Array;

    #[test]
    fn drift_is_measured_where_it_counts_and_never_passes_what_is_no_number() {
        let array = |values: [f32; 4]| Array::new(&[4], values.to_vec()).unwrap();
        let (found, expected) = (array([1.0, 2.5, 0.0, 9.0]), array([1.0, 2.0, 0.0, 0.0]));
        let drift = Drift::of(&found, &expected, |place| place < 3).unwrap();
        assert_eq!((drift.largest, drift.mean), (0.5, 0.5 / 3.0));
        // (1 + 5) / sqrt(7.25 * 5)
        assert!((drift.cosine - 6.0 / 36.25f64.sqrt()).abs() < 1e-12);
        let tolerance = Tolerance { largest: Some(0.4), cosine: 0.9, rsum: 0.0 };
        assert!(!tolerance.holds(&drift));
        assert!(Tolerance { largest: None, ..tolerance }.holds(&drift));
        assert!(Drift::of(&array([f32::NAN, 0.0, 0.0, 0.0]), &expected, |_| true).is_none());
        assert!(Drift::of(&Array::new(&[1], vec![0.0]).unwrap(), &expected, |_| true).is_none());
    }
}
