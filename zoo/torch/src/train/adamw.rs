//! AdamW with a state that can be saved and restored.
//!
//! Loshchilov, Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, as PyTorch computes it. Its defaults: betas 0.9
//! and 0.999, eps 1e-8.

use tch::Tensor as Tch;

use super::weights::{Weights, download};
use crate::{Result, Torch};
use laps_model::{array::Array, tensor::DeviceTensor};

const BETAS: [f64; 2] = [0.9, 0.999];
const EPS: f64 = 1e-8;

/// The optimizer. It holds two tensors for each weight, on the same device.
pub(super) struct AdamW {
    weight_decay: f64,
    /// Running means of the gradients and of their squares, one tensor a weight.
    moments: [Vec<Tch>; 2],
    /// The same memory, one tensor a bucket.
    buckets: [Vec<Tch>; 2],
    /// Number of steps of each parameter group.
    pub(super) steps: [u64; 2],
}

/// The update of a weight or of a bucket. The tensors share their values with the weight and its moments.
struct Update {
    weight: Tch,
    gradient: Tch,
    moments: [Tch; 2],
    step: u64,
    learning_rate: f64,
}

impl Update {
    fn apply(self, factor: f64, decay: f64) -> Result<()> {
        let Self { mut weight, gradient, moments: [mut first, mut second], step, learning_rate } = self;
        let gradient = gradient.f_mul_scalar(factor)?;
        let corrections = BETAS.map(|beta| 1.0 - beta.powf(step as f64));
        let _ = first.f_mul_scalar_(BETAS[0])?.f_add_(&gradient.f_mul_scalar(1.0 - BETAS[0])?)?;
        let _ = second.f_mul_scalar_(BETAS[1])?.f_add_(&gradient.f_square()?.f_mul_scalar(1.0 - BETAS[1])?)?;
        let mut divisor = second.f_sqrt()?;
        let _ = divisor.f_div_scalar_(corrections[1].sqrt())?.f_add_scalar_(EPS)?;
        let direction = first.f_mul_scalar(-learning_rate / corrections[0])?;
        let _ = weight.f_mul_scalar_(1.0 - learning_rate * decay)?.f_addcdiv_(&direction, &divisor)?;
        Ok(())
    }
}

/// Names of the two moments in a file.
const MOMENTS: [&str; 2] = ["exp_avg", "exp_avg_sq"];

impl AdamW {
    /// An optimizer before its first step.
    pub(super) fn new(weights: &Weights, weight_decay: f64) -> Result<Self> {
        let zeros =
            || -> Result<Vec<Tch>> { weights.buckets.iter().map(|bucket| Ok(bucket.values.f_zeros_like()?)).collect() };
        let buckets = [zeros()?, zeros()?];
        let weight_views = |flat: &[Tch]| -> Result<Vec<Tch>> {
            let mut all = Vec::with_capacity(weights.list.len());
            for (bucket, flat) in weights.buckets.iter().zip(flat) {
                all.extend(bucket.member_views(flat, &weights.list)?);
            }
            Ok(all)
        };
        let moments = [weight_views(&buckets[0])?, weight_views(&buckets[1])?];
        Ok(Self { weight_decay, buckets, moments, steps: [0; 2] })
    }

    /// Updates the weights of each group that has gradients. Gradients are first multiplied by `factor`. `learning_rates`
    /// are those of heads and backbones, in the order of [`ParamGroup`](super::ParamGroup). With `in_halves`, half of the
    /// weights are updated on another thread, which is faster for many small weights; otherwise a bucket is updated at once.
    pub(super) fn step(
        &mut self,
        weights: &Weights,
        learning_rates: [f64; 2],
        factor: f64,
        in_halves: bool,
    ) -> Result<()> {
        let mut updated = [false; 2];
        let steps = self.steps.map(|steps| steps + 1);
        let mut updates = Vec::with_capacity(weights.list.len());
        let decay = self.weight_decay;
        for (index, bucket) in weights.buckets.iter().enumerate() {
            let group = bucket.group.index();
            let mut update = |weight: &Tch, gradient, moments: &[Vec<Tch>; 2], index: usize| {
                updated[group] = true;
                Update {
                    weight: weight.shallow_clone(),
                    gradient,
                    moments: [0, 1].map(|moment| moments[moment][index].shallow_clone()),
                    step: steps[group],
                    learning_rate: learning_rates[group],
                }
            };
            let whole = if in_halves { None } else { bucket.gradient(&weights.list)? };
            if let Some(gradient) = whole {
                // Applied immediately: the concatenated gradient is a copy and needs memory.
                let _guard = tch::no_grad_guard();
                update(&bucket.values, gradient, &self.buckets, index).apply(factor, decay)?;
                continue;
            }
            for (weight, index) in weights.list[bucket.members.clone()].iter().zip(bucket.members.clone()) {
                if let Some(gradient) = weight.gradient()?.filter(|_| weight.tensor.requires_grad()) {
                    updates.push(update(&weight.tensor, gradient, &self.moments, index));
                }
            }
        }
        let apply = |updates: Vec<Update>| {
            move || {
                let _guard = tch::no_grad_guard();
                updates.into_iter().try_for_each(|update| update.apply(factor, decay))
            }
        };
        // The updates of different weights are independent.
        let second = if in_halves { updates.split_off(updates.len() / 2) } else { Vec::new() };
        if second.is_empty() {
            apply(updates)()?;
        } else {
            let (first, second) = rayon::join(apply(updates), apply(second));
            first.and(second)?;
        }
        for (steps, updated) in self.steps.iter_mut().zip(updated) {
            *steps += u64::from(updated);
        }
        Ok(())
    }

    /// The moments of each bucket, as flat tensors.
    pub(super) fn flat_moments(&self) -> impl Iterator<Item = &Tch> {
        self.buckets.iter().flatten()
    }

    /// Names and values of the state.
    pub(super) fn arrays(&self, weights: &Weights) -> impl Iterator<Item = Result<(String, Array)>> {
        let names = MOMENTS.into_iter().zip(&self.moments);
        names.flat_map(|(moment, tensors)| {
            let named = weights.list.iter().zip(tensors).filter(|(weight, _)| !weight.is_running_statistic);
            named.map(move |(weight, tensor)| Ok((format!("{moment}.{}", weight.name), download(tensor)?)))
        })
    }

    /// Restores the state of [`arrays`](Self::arrays). `steps` are the steps of each parameter group.
    pub(super) fn restore(
        &mut self,
        weights: &Weights,
        steps: [u64; 2],
        mut read: impl FnMut(&str) -> Result<Array>,
    ) -> Result<()> {
        for (moment, tensors) in MOMENTS.into_iter().zip(&mut self.moments) {
            for (weight, tensor) in weights.list.iter().zip(tensors).filter(|(weight, _)| !weight.is_running_statistic)
            {
                let name = format!("{moment}.{}", weight.name);
                let array = read(&name)?;
                let restored = Torch::upload(&array, &weights.device())?.0.shallow_clone();
                if restored.size() != tensor.size() {
                    return Err(laps_model::Error::Parameter {
                        name,
                        expected: format!("shape {:?}", tensor.size()),
                        found: format!("shape {:?}", restored.size()),
                    }
                    .into());
                }
                tensor.f_copy_(&restored)?;
            }
        }
        self.steps = steps;
        Ok(())
    }
}
