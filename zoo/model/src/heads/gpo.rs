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
        let weights = self.weights(count, &positions, &self.forward.run(positions.iter())?)?;
        weights.matmul(&values.sort_descending(1)?)?.reshape(&[items, width])
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
        let zeros = |count: usize| self.linear.constant(&vec![0.0; count], &[1, count]);
        let mut rows = vec![zeros(longest)?];
        for length in 1..=longest {
            let weights = self.weights(length, &positions, &forward)?;
            rows.push(match longest - length {
                0 => weights,
                rest => T::concat(&[&weights, &zeros(rest)?], 1)?,
            });
        }
        T::concat(&rows.iter().collect::<Vec<_>>(), 0)
    }

    /// The weights `(1, length)` of `length` sorted values.
    fn weights(&self, length: usize, positions: &[T], forward: &[T]) -> Result<T> {
        let mut backward = self.backward.run(positions[..length].iter().rev())?;
        backward.reverse();
        let mut scores = Vec::with_capacity(length);
        for (forward, backward) in forward.iter().zip(&backward) {
            let mean = forward.add(backward)?.affine(0.5, 0.0)?;
            scores.push(mean.linear(&self.linear, None)?);
        }
        T::concat(&scores.iter().collect::<Vec<_>>(), 1)?.affine(1.0 / TEMPERATURE, 0.0)?.softmax()
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
