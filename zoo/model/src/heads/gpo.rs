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
    /// The states `(rows, 32)` after a step, from `(rows, 32)` inputs and states.
    fn step(&self, input: &T, state: &T) -> Result<T> {
        let input = input.linear(&self.weight_ih, Some(&self.bias_ih))?;
        let hidden = state.linear(&self.weight_hh, Some(&self.bias_hh))?;
        let gate = |tensor: &T, index: usize| tensor.narrow(1, index * WIDTH, WIDTH);
        let reset = gate(&input, 0)?.add(&gate(&hidden, 0)?)?.sigmoid()?;
        let update = gate(&input, 1)?.add(&gate(&hidden, 1)?)?.sigmoid()?;
        let candidate = gate(&input, 2)?.add(&reset.mul(&gate(&hidden, 2)?)?)?.tanh()?;
        update.affine(-1.0, 1.0)?.mul(&candidate)?.add(&update.mul(state)?)
    }

    /// The initial states `(rows, 32)`.
    fn start(&self, rows: usize) -> Result<T> {
        self.bias_ih.constant(&vec![0.0; rows * WIDTH], &[rows, WIDTH])
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
        let weights = self.weights(count.fixed()?)?;
        weights.matmul(&values.sort_descending(1)?)?.reshape(&[items, width])
    }

    /// `(items, count, width)` over the true lengths, which `mask` `(items, count)` gives, to `(items, width)`.
    pub(super) fn pool_masked(&self, values: &T, mask: &T) -> Result<T> {
        let [items, count, width] = values.sizes()?;
        let present = mask.reshape(&[items, count, 1.into()])?;
        // Padding is sorted behind all values, where the weights are zero.
        let padded = values.mul(&present)?.add(&present.affine(MASK_LOGIT, -MASK_LOGIT)?)?;
        // Row `length` of the table, as far as there are values. The numbers are exact in f32: below 2^24 for 4,095 words.
        let longest = count.largest()?;
        let place = mask.affine(0.0, 1.0)?.cumulative_sum()?.affine(1.0, -1.0)?;
        let entry = place.add(&mask.sum(1)?.affine(longest as f64, 0.0)?)?;
        let table = self.table(longest)?.reshape(&[((longest + 1) * longest).into(), 1.into()])?;
        let weights = table.embedding(&entry)?.reshape(&[items, 1.into(), count])?;
        // Zero weights times the value of padding are zero.
        weights.matmul(&padded.sort_descending(1)?)?.reshape(&[items, width])
    }

    /// The weights `(1, count)` of `count` sorted values.
    fn weights(&self, count: usize) -> Result<T> {
        let positions = self.positions(count)?;
        let forward = self.forward_scores(&positions, count)?;
        let mut state = self.backward.start(1)?;
        let mut scores = Vec::with_capacity(count);
        for position in (0..count).rev() {
            state = self.backward.step(&positions.narrow(0, position, 1)?, &state)?;
            scores.push(state.linear(&self.linear, None)?);
        }
        let backward = T::concat(&scores.iter().rev().collect::<Vec<_>>(), 1)?;
        forward.add(&backward)?.affine(0.5 / TEMPERATURE, 0.0)?.softmax()
    }

    /// The weights `(longest + 1, longest)` of every length, zero behind it.
    ///
    /// The backward directions of all lengths run together: step `s` of length `n` reads position `n - 1 - s`, so the rows that
    /// are left read the first positions.
    fn table(&self, longest: usize) -> Result<T> {
        let positions = self.positions(longest)?;
        let constant = |values: Vec<f32>, rows: usize| self.linear.constant(&values, &[rows, values.len() / rows]);
        // Column `s` holds the score of step `s` at each position.
        let mut columns = Vec::with_capacity(longest + 1);
        let mut state = self.backward.start(longest)?;
        for step in 0..longest {
            let rows = longest - step;
            let before = if step == 0 { state } else { state.narrow(0, 1, rows)? };
            state = self.backward.step(&positions.narrow(0, 0, rows)?, &before)?;
            let scores = state.linear(&self.linear, None)?;
            columns.push(match step {
                0 => scores,
                _ => T::concat(&[&scores, &constant(vec![0.0; step], step)?], 0)?,
            });
        }
        // A further column of zeros moves row `k` by `k` to the right when the rows are cut again: then column `n - 1` is
        // that of length `n`.
        columns.push(constant(vec![0.0; longest], longest)?);
        let skewed = T::concat(&columns.iter().collect::<Vec<_>>(), 1)?.reshape(&[(longest * (longest + 1)).into()])?;
        let backward = skewed.narrow(0, 0, longest * longest)?.reshape(&[longest.into(), longest.into()])?;
        let scores = backward.permute(&[1, 0])?.add(&self.forward_scores(&positions, longest)?)?;
        let absent = |index: usize| if index % longest > index / longest { -MASK_LOGIT as f32 } else { 0.0 };
        let absent = constant((0..longest * longest).map(absent).collect(), longest)?;
        let weights = scores.affine(0.5 / TEMPERATURE, 0.0)?.add(&absent)?.softmax()?;
        T::concat(&[&constant(vec![0.0; longest], 1)?, &weights], 0)
    }

    /// Scores `(1, count)` of the forward direction, which do not depend on what follows.
    fn forward_scores(&self, positions: &T, count: usize) -> Result<T> {
        let mut state = self.forward.start(1)?;
        let mut scores = Vec::with_capacity(count);
        for position in 0..count {
            state = self.forward.step(&positions.narrow(0, position, 1)?, &state)?;
            scores.push(state.linear(&self.linear, None)?);
        }
        T::concat(&scores.iter().collect::<Vec<_>>(), 1)
    }

    /// The position encodings `(count, 32)`.
    fn positions(&self, count: usize) -> Result<T> {
        let value = |index: usize| {
            let (position, index) = (index / WIDTH, index % WIDTH);
            let pair = (index / 2 * 2) as f64;
            let rate = libm::exp(-pair * libm::log(WAVELENGTH) / WIDTH as f64);
            let angle = position as f64 * rate;
            (if index % 2 == 0 { libm::sin(angle) } else { libm::cos(angle) }) as f32
        };
        let values: Vec<f32> = (0..count * WIDTH).map(value).collect();
        self.linear.constant(&values, &[count, WIDTH])
    }
}
