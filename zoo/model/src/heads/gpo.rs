//! The generalised pooling operator (Chen et al., CVPR 2021): features sorted each on its own, weighted by position.
//!
//! The weights depend on the number of vectors alone: one vector of weights a length.

use super::MASK_LOGIT;
use crate::{
    Result,
    params::{Init, ParamPath},
    tensor::Tensor,
};

/// Width of the position encoding and of the GRU's state.
const WIDTH: usize = 32;
const TEMPERATURE: f64 = 0.1;
/// Base of the wavelengths of the position encoding.
const WAVELENGTH: f64 = 10_000.0;

/// One direction of the GRU, with PyTorch's names and gate order (reset, update, candidate).
struct Gru<T> {
    weight_ih: T,
    weight_hh: T,
    bias_ih: T,
    bias_hh: T,
}

impl<T> Gru<T> {
    fn new(suffix: &str, path: &ParamPath<T>) -> Result<Self> {
        let init = Init::Uniform { inputs: WIDTH };
        let get = |name: &str, shape: &[usize]| path.get(&format!("{name}_l0{suffix}"), shape, init);
        Ok(Self {
            weight_ih: get("weight_ih", &[3 * WIDTH, WIDTH])?,
            weight_hh: get("weight_hh", &[3 * WIDTH, WIDTH])?,
            bias_ih: get("bias_ih", &[3 * WIDTH])?,
            bias_hh: get("bias_hh", &[3 * WIDTH])?,
        })
    }
}

impl<T: Tensor> Gru<T> {
    /// The states `(1, 32)` after each of the inputs.
    fn run<'a>(&self, inputs: impl Iterator<Item = &'a T>) -> Result<Vec<T>>
    where
        T: 'a,
    {
        let mut state = self.bias_ih.constant(&[0.0; WIDTH], &[1, WIDTH])?;
        let mut states = Vec::new();
        for input in inputs {
            state = self.step(input, &state)?;
            states.push(state.clone());
        }
        Ok(states)
    }

    fn step(&self, input: &T, state: &T) -> Result<T> {
        let input = input.linear(&self.weight_ih, Some(&self.bias_ih))?;
        let hidden = state.linear(&self.weight_hh, Some(&self.bias_hh))?;
        let gate = |tensor: &T, index: usize| tensor.narrow(1, index * WIDTH, WIDTH);
        let reset = gate(&input, 0)?.add(&gate(&hidden, 0)?)?.sigmoid()?;
        let update = gate(&input, 1)?.add(&gate(&hidden, 1)?)?.sigmoid()?;
        let candidate = gate(&input, 2)?.add(&reset.mul(&gate(&hidden, 2)?)?)?.tanh()?;
        update.affine(-1.0, 1.0)?.mul(&candidate)?.add(&update.mul(state)?)
    }
}

/// A pooling operator.
pub(super) struct Gpo<T> {
    forward: Gru<T>,
    backward: Gru<T>,
    linear: T,
}

impl<T> Gpo<T> {
    pub(super) fn new(path: &ParamPath<T>) -> Result<Self> {
        let gru = path.sub("gru");
        Ok(Self {
            forward: Gru::new("", &gru)?,
            backward: Gru::new("_reverse", &gru)?,
            linear: path.sub("linear").get("weight", &[1, WIDTH], Init::Uniform { inputs: WIDTH })?,
        })
    }
}

impl<T: Tensor> Gpo<T> {
    /// All of `(items, count, width)` to `(items, width)`.
    pub(super) fn pool(&self, values: &T) -> Result<T> {
        let [items, count, width] = values.sizes()?;
        let count = count.fixed()?;
        let positions = self.positions(count)?;
        let (forward, mut backward) = (self.forward.run(positions.iter())?, self.backward.run(positions.iter().rev())?);
        backward.reverse();
        self.weights(&forward, &backward, None)?.matmul(&values.sort_descending(1)?)?.reshape(&[items, width])
    }

    /// `(items, count, width)` over the true lengths, which `mask` `(items, count)` gives, to `(items, width)`.
    pub(super) fn pool_masked(&self, values: &T, mask: &T) -> Result<T> {
        let [items, count, width] = values.sizes()?;
        let present = mask.reshape(&[items, count, 1.into()])?;
        // Padding is sorted behind all values, where the weights are zero.
        let padded = values.mul(&present)?.add(&present.affine(MASK_LOGIT, -MASK_LOGIT)?)?;
        let lengths = mask.sum(1)?;
        let weights = self.table(count.fixed()?)?.embedding(&lengths)?.reshape(&[items, 1.into(), count])?;
        // Zero weights times the value of padding are zero.
        weights.matmul(&padded.sort_descending(1)?)?.reshape(&[items, width])
    }

    /// The weights `(longest + 1, longest)` of every length, zero behind it.
    fn table(&self, longest: usize) -> Result<T> {
        let positions = self.positions(longest)?;
        // Later positions do not change the states of the forward direction.
        let forward = self.forward.run(positions.iter())?;
        // One row a length, from 1. The backward direction of a length starts at its last position.
        let column = |values: Vec<f32>| self.linear.constant(&values, &[longest, 1]);
        let mut state = self.linear.constant(&vec![0.0; longest * WIDTH], &[longest, WIDTH])?;
        let mut backward = Vec::with_capacity(longest);
        for (index, position) in positions.iter().enumerate().rev() {
            let started = (1..=longest).map(|length| f32::from(u8::from(length > index)));
            state = self.backward.step(position, &state)?.mul(&column(started.collect())?)?;
            backward.push(state.clone());
        }
        backward.reverse();
        let present: Vec<f32> = (1..=longest)
            .flat_map(|length| (0..longest).map(move |index| f32::from(u8::from(index < length))))
            .collect();
        let present = self.linear.constant(&present, &[longest, longest])?;
        let weights = self.weights(&forward, &backward, Some(&present))?;
        T::concat(&[&self.linear.constant(&vec![0.0; longest], &[1, longest])?, &weights], 0)
    }

    /// The weights `(lengths, count)` of sorted values, from the states of both directions at each position. `present`
    /// `(lengths, count)` says which positions are weighted; None for all.
    fn weights(&self, forward: &[T], backward: &[T], present: Option<&T>) -> Result<T> {
        let mut scores = Vec::with_capacity(forward.len());
        for (forward, backward) in forward.iter().zip(backward) {
            let mean = forward.add(backward)?.affine(0.5, 0.0)?;
            scores.push(mean.linear(&self.linear, None)?);
        }
        let scores = T::concat(&scores.iter().collect::<Vec<_>>(), 1)?.affine(1.0 / TEMPERATURE, 0.0)?;
        match present {
            Some(present) => scores.add(&present.affine(MASK_LOGIT, -MASK_LOGIT)?)?.softmax(),
            None => scores.softmax(),
        }
    }

    /// The position encodings, `(1, 32)` each.
    fn positions(&self, count: usize) -> Result<Vec<T>> {
        let encode = |position: usize| {
            let values: Vec<f32> = (0..WIDTH)
                .map(|index| {
                    let pair = (index / 2 * 2) as f64;
                    let rate = libm::exp(-pair * libm::log(WAVELENGTH) / WIDTH as f64);
                    let angle = position as f64 * rate;
                    (if index % 2 == 0 { libm::sin(angle) } else { libm::cos(angle) }) as f32
                })
                .collect();
            self.linear.constant(&values, &[1, WIDTH])
        };
        (0..count).map(encode).collect()
    }
}
