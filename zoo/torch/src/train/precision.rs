//! Training precision and loss scaling.

use tch::Kind;

use crate::{Result, TorchDevice};
pub use laps_hub::registry::TrainPrecision;

/// A recipe's precision on libtorch.
pub(super) trait TorchPrecision {
    /// Rejects a precision that the device does not support.
    fn check(self, device: TorchDevice) -> Result<()>;

    /// libtorch's dtype.
    fn kind(self) -> Kind;
}

impl TorchPrecision for TrainPrecision {
    fn check(self, device: TorchDevice) -> Result<()> {
        if self != Self::Fp16 || device.is_cuda() {
            return Ok(());
        }
        Err(laps_model::Error::Device {
            device: device.to_string(),
            reason: "precision `fp16` needs a GPU".to_owned(),
            hint: "use `f32` or `bf16`, or a GPU".to_owned(),
        }
        .into())
    }

    fn kind(self) -> Kind {
        match self {
            Self::F32 => Kind::Float,
            Self::Bf16 => Kind::BFloat16,
            Self::Fp16 => Kind::Half,
        }
    }
}

/// Dynamic loss scale, which keeps small gradients in the range of fp16: halved after a gradient that is not finite,
/// doubled after many finite ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct LossScale {
    pub(super) factor: f64,
    pub(super) steps: u64,
}

impl LossScale {
    /// Number of consecutive finite steps after which the factor is doubled.
    const GROWTH_INTERVAL: u64 = 2000;
    const MAX_FACTOR: f64 = 16_777_216.0;

    pub(super) fn new(precision: TrainPrecision) -> Self {
        Self { factor: if precision == TrainPrecision::Fp16 { 65536.0 } else { 1.0 }, steps: 0 }
    }

    /// Updates the scale after a step.
    pub(super) fn update(&mut self, precision: TrainPrecision, finite: bool) {
        if precision != TrainPrecision::Fp16 {
            return;
        }
        if !finite {
            *self = Self { factor: (self.factor / 2.0).max(1.0), steps: 0 };
            return;
        }
        self.steps += 1;
        if self.steps == Self::GROWTH_INTERVAL {
            *self = Self { factor: (self.factor * 2.0).min(Self::MAX_FACTOR), steps: 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{LossScale, TrainPrecision};

    #[test]
    fn loss_scale_halves_at_once_and_doubles_after_the_growth_interval() {
        let mut scale = LossScale::new(TrainPrecision::Fp16);
        scale.update(TrainPrecision::Fp16, false);
        assert_eq!(scale.factor, 32768.0);
        for _ in 0..LossScale::GROWTH_INTERVAL {
            scale.update(TrainPrecision::Fp16, true);
        }
        assert_eq!(scale, LossScale { factor: 65536.0, steps: 0 });
        let mut none = LossScale::new(TrainPrecision::Bf16);
        none.update(TrainPrecision::Bf16, false);
        assert_eq!(none.factor, 1.0);
    }
}
