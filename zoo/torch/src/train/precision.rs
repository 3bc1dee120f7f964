//! What the encoders compute in while they train.

use tch::Kind;

use crate::{Result, TorchDevice};
pub use laps_hub::registry::Precision;

/// How libtorch computes in a precision of the recipe.
pub(super) trait TorchPrecision {
    /// Refuses a precision that the device cannot compute in.
    fn check(self, device: TorchDevice) -> Result<()>;

    /// libtorch's element type.
    fn kind(self) -> Kind;
}

impl TorchPrecision for Precision {
    fn check(self, device: TorchDevice) -> Result<()> {
        if self != Self::Fp16 || device.is_cuda() {
            return Ok(());
        }
        Err(laps_model::Error::Device {
            device: device.to_string(),
            reason: "precision `fp16` is for GPUs".to_owned(),
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

/// Factor of the loss that keeps small gradients within half precision: halved where a gradient is not finite, doubled
/// after many steps without.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct LossScale {
    pub(super) factor: f64,
    pub(super) steps: u64,
}

impl LossScale {
    /// Steps without a gradient that is not finite, after which the factor is doubled.
    const PATIENCE: u64 = 2000;
    const LARGEST: f64 = 16_777_216.0;

    pub(super) fn new(precision: Precision) -> Self {
        Self { factor: if precision == Precision::Fp16 { 65536.0 } else { 1.0 }, steps: 0 }
    }

    /// After a step whose gradient was finite or not.
    pub(super) fn update(&mut self, precision: Precision, finite: bool) {
        if precision != Precision::Fp16 {
            return;
        }
        if !finite {
            *self = Self { factor: (self.factor / 2.0).max(1.0), steps: 0 };
            return;
        }
        self.steps += 1;
        if self.steps == Self::PATIENCE {
            *self = Self { factor: (self.factor * 2.0).min(Self::LARGEST), steps: 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{LossScale, Precision};

    #[test]
    fn the_loss_scale_is_halved_at_once_and_doubled_with_patience() {
        let mut scale = LossScale::new(Precision::Fp16);
        scale.update(Precision::Fp16, false);
        assert_eq!(scale.factor, 32768.0);
        for _ in 0..LossScale::PATIENCE {
            scale.update(Precision::Fp16, true);
        }
        assert_eq!(scale, LossScale { factor: 65536.0, steps: 0 });
        let mut none = LossScale::new(Precision::Bf16);
        none.update(Precision::Bf16, false);
        assert_eq!(none.factor, 1.0);
    }
}
