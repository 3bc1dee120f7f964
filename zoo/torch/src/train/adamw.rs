//! AdamW, with a state that can be saved.
//!
//! Loshchilov, Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, as PyTorch computes it. Its defaults: betas 0.9
//! and 0.999, epsilon 1e-8.

use tch::Tensor as Tch;

use super::weights::{Weights, download};
use crate::{Error, Result, Torch};
use laps_model::{array::Array, tensor::Eager};

const BETAS: [f64; 2] = [0.9, 0.999];
const EPSILON: f64 = 1e-8;

/// The optimizer. It holds two tensors for each weight, on the device of the weights.
pub struct AdamW {
    weight_decay: f64,
    /// Running means of the gradients and of their squares, in the order of the weights.
    moments: [Vec<Tch>; 2],
    /// The same memory, in the order of the buckets.
    buckets: [Vec<Tch>; 2],
    /// Steps that each group has made.
    pub(super) steps: [u64; 2],
}

/// What a weight, or a bucket of them, is moved by. All of it shares its values with what it is of.
struct Move {
    weight: Tch,
    gradient: Tch,
    moments: [Tch; 2],
    step: u64,
    rate: f64,
}

impl Move {
    fn make(self, factor: f64, decay: f64) -> Result<()> {
        let Self { mut weight, gradient, moments: [mut first, mut second], step, rate } = self;
        let gradient = gradient.f_mul_scalar(factor)?;
        let corrections = BETAS.map(|beta| 1.0 - beta.powf(step as f64));
        let _ = first.f_mul_scalar_(BETAS[0])?.f_add_(&gradient.f_mul_scalar(1.0 - BETAS[0])?)?;
        let _ = second.f_mul_scalar_(BETAS[1])?.f_add_(&gradient.f_square()?.f_mul_scalar(1.0 - BETAS[1])?)?;
        let mut divisor = second.f_sqrt()?;
        let _ = divisor.f_div_scalar_(corrections[1].sqrt())?.f_add_scalar_(EPSILON)?;
        let direction = first.f_mul_scalar(-rate / corrections[0])?;
        let _ = weight.f_mul_scalar_(1.0 - rate * decay)?.f_addcdiv_(&direction, &divisor)?;
        Ok(())
    }
}

/// Names of the two moments in a file.
const MOMENTS: [&str; 2] = ["exp_avg", "exp_avg_sq"];

impl AdamW {
    /// Before the first step.
    pub fn new(weights: &Weights, weight_decay: f64) -> Result<Self> {
        let zeros =
            || -> Result<Vec<Tch>> { weights.buckets.iter().map(|bucket| Ok(bucket.values.f_zeros_like()?)).collect() };
        let buckets = [zeros()?, zeros()?];
        let of_weights = |flat: &[Tch]| -> Result<Vec<Tch>> {
            let mut all = Vec::with_capacity(weights.list.len());
            for (bucket, flat) in weights.buckets.iter().zip(flat) {
                all.extend(bucket.parts(flat, &weights.list)?);
            }
            Ok(all)
        };
        let moments = [of_weights(&buckets[0])?, of_weights(&buckets[1])?];
        Ok(Self { weight_decay, buckets, moments, steps: [0; 2] })
    }

    /// Moves the weights of each group that has gradients at its learning rate; the gradients are multiplied by `factor`
    /// first. `rates` are those of [`Group::Heads`](super::Group) and of the backbones. `in_halves` moves half of the weights
    /// on another thread, which pays where they are many and small; otherwise those of a bucket move together.
    pub fn step(&mut self, weights: &Weights, rates: [f64; 2], factor: f64, in_halves: bool) -> Result<()> {
        let mut moved = [false; 2];
        let steps = self.steps.map(|steps| steps + 1);
        let mut moves = Vec::with_capacity(weights.list.len());
        let decay = self.weight_decay;
        for (place, bucket) in weights.buckets.iter().enumerate() {
            let group = bucket.group.index();
            let mut moving = |weight: &Tch, gradient, moments: &[Vec<Tch>; 2], place: usize| {
                moved[group] = true;
                Move {
                    weight: weight.shallow_clone(),
                    gradient,
                    moments: [0, 1].map(|moment| moments[moment][place].shallow_clone()),
                    step: steps[group],
                    rate: rates[group],
                }
            };
            let whole = if in_halves { None } else { bucket.gradient(&weights.list)? };
            if let Some(gradient) = whole {
                // At once: the gradient is a copy.
                let _guard = tch::no_grad_guard();
                moving(&bucket.values, gradient, &self.buckets, place).make(factor, decay)?;
                continue;
            }
            for (weight, place) in weights.list[bucket.members.clone()].iter().zip(bucket.members.clone()) {
                if let Some(gradient) = weight.gradient()?.filter(|_| weight.tensor.requires_grad()) {
                    moves.push(moving(&weight.tensor, gradient, &self.moments, place));
                }
            }
        }
        let make = |moves: Vec<Move>| {
            move || {
                let _guard = tch::no_grad_guard();
                moves.into_iter().try_for_each(|one| one.make(factor, decay))
            }
        };
        // What a weight becomes hangs on no other.
        let second = if in_halves { moves.split_off(moves.len() / 2) } else { Vec::new() };
        if second.is_empty() {
            make(moves)()?;
        } else {
            let (first, second) = rayon::join(make(moves), make(second));
            first.and(second)?;
        }
        for (steps, moved) in self.steps.iter_mut().zip(moved) {
            *steps += u64::from(moved);
        }
        Ok(())
    }

    /// Names and values of the state.
    pub fn arrays(&self, weights: &Weights) -> impl Iterator<Item = Result<(String, Array)>> {
        let names = MOMENTS.into_iter().zip(&self.moments);
        names.flat_map(|(moment, tensors)| {
            let named = weights.list.iter().zip(tensors);
            named.map(move |(weight, tensor)| Ok((format!("{moment}.{}", weight.name), download(tensor)?)))
        })
    }

    /// The state that [`arrays`](Self::arrays) gave, `steps` being the steps that each group had made.
    pub fn restore(
        &mut self,
        weights: &Weights,
        steps: [u64; 2],
        mut read: impl FnMut(&str) -> Result<Array>,
    ) -> Result<()> {
        for (moment, tensors) in MOMENTS.into_iter().zip(&mut self.moments) {
            for (weight, tensor) in weights.list.iter().zip(tensors) {
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
