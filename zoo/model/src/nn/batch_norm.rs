//! Batch norm with running statistics.

use crate::{
    Result,
    dim::Dim,
    params::{Init, Mode, ParamPath},
    tensor::Tensor,
};

/// Added to the variance.
const EPS: f64 = 1e-5;
/// Share of a batch in the running statistics.
const MOMENTUM: f64 = 0.1;

/// Normalises each channel: by running statistics, or during training by those of the batch, which the running ones follow.
///
/// Ioffe, Szegedy, "Batch Normalization", ICML 2015, as PyTorch computes it: the variance of the batch is biased, the one
/// that the running variance follows is not.
pub struct BatchNorm<T> {
    weight: T,
    bias: T,
    running_mean: T,
    running_var: T,
    is_training: bool,
}

impl<T> BatchNorm<T> {
    /// `path` has `weight`, `bias`, `running_mean` and `running_var`.
    pub fn new(channels: usize, path: &ParamPath<T>) -> Result<Self> {
        let get = |name: &str, init| path.get(name, &[channels], init);
        Ok(Self {
            weight: get("weight", Init::Ones)?,
            bias: get("bias", Init::Zeros)?,
            running_mean: get("running_mean", Init::Zeros)?,
            running_var: get("running_var", Init::Ones)?,
            is_training: path.mode() != Mode::Evaluation,
        })
    }
}

impl<T: Tensor> BatchNorm<T> {
    /// Any shape to the same shape. `channels` is the shape of the channels in a broadcast with `x`: 1 on all other axes.
    /// `present`, which broadcasts with `x` too, is 1 for values that count in the statistics of a batch and otherwise 0; None
    /// if all count.
    pub fn forward(&self, x: &T, channels: &[Dim], present: Option<&T>) -> Result<T> {
        let [weight, bias] = [&self.weight, &self.bias].map(|parameter| parameter.reshape(channels));
        let (mean, variance) = match self.is_training {
            true => self.batch_statistics(x, channels, present)?,
            false => (self.running_mean.reshape(channels)?, self.running_var.reshape(channels)?),
        };
        let deviation = variance.affine(1.0, EPS)?.sqrt()?;
        x.sub(&mean)?.div(&deviation)?.mul(&weight?)?.add(&bias?)
    }

    /// Mean and biased variance of each channel, in the shape `channels`. Updates the running statistics.
    fn batch_statistics(&self, x: &T, channels: &[Dim], present: Option<&T>) -> Result<(T, T)> {
        let one = Dim::from(1);
        let axes: Vec<usize> = (0..channels.len()).filter(|&axis| channels[axis] == one).collect();
        let sum = |values: &T| axes.iter().try_fold(values.clone(), |sum, &axis| sum.sum(axis));
        let count = match present {
            Some(present) => sum(present)?,
            None => {
                let shape = x.shape();
                let sizes = axes.iter().map(|&axis| shape[axis].fixed());
                let count = sizes.product::<Result<usize>>()?;
                x.constant(&[count as f32], &vec![1; channels.len()])?
            }
        };
        let average = |values: T| match present {
            Some(present) => sum(&values.mul(present)?)?.div(&count),
            None => sum(&values)?.div(&count),
        };
        let mean = average(x.clone())?;
        let centred = x.sub(&mean)?;
        let variance = average(centred.mul(&centred)?)?;
        let unbiased = variance.mul(&count)?.div(&count.affine(1.0, -1.0)?)?;
        for (running, batch) in [(&self.running_mean, &mean), (&self.running_var, &unbiased)] {
            running.lerp_in_place(&batch.reshape(&running.shape())?.detach()?, MOMENTUM)?;
        }
        Ok((mean, variance))
    }
}
