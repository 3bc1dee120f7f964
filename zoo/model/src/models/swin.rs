//! Swin transformer, version 1.
//!
//! Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", ICCV 2021. Parameter names are
//! those of Hugging Face `SwinModel`; the pooler has no parameters and is omitted.

use crate::{
    Result,
    dim::Dim,
    models::config::SwinConfig,
    nn::{Attention, AttentionNames, DropPath, FeedForward, LayerNorm, Linear, PROJECTIONS},
    params::{Init, ParamPath},
    tensor::Tensor,
};

const ATTENTION: AttentionNames =
    AttentionNames { inner: "attention.self", projections: PROJECTIONS, output: "attention.output.dense" };
/// `SwinModel` adds this to the attention logits of two tokens that share a window only because of the shift.
const SHIFT_MASK: f32 = -100.0;

/// `side` x `side` tokens, padded with zeros at the bottom and right to `padded` x `padded` and partitioned into windows of
/// `window` x `window` after a cyclic shift. As in `SwinLayer`, padding takes part in the attention.
#[derive(Clone, Copy)]
struct Grid {
    side: usize,
    padded: usize,
    window: usize,
    shift: usize,
}

impl Grid {
    fn new(config: &SwinConfig, stage: usize, block: usize) -> Self {
        let (side, window) = ((config.image_size / config.patch_size) >> stage, config.window_size);
        if side <= window {
            return Self { side, padded: side, window: side, shift: 0 };
        }
        // Every second block is shifted.
        Self { side, padded: side.next_multiple_of(window), window, shift: if block % 2 == 1 { window / 2 } else { 0 } }
    }

    fn windows(self) -> usize {
        (self.padded / self.window).pow(2)
    }

    /// Tokens of one window.
    fn length(self) -> usize {
        self.window.pow(2)
    }

    /// `(batch, side * side, width)` to `(batch, length, windows, width)`.
    fn partition<T: Tensor>(self, x: &T) -> Result<T> {
        let [batch, _, width] = x.sizes()?;
        let mut x = x.reshape(&[batch, self.side.into(), self.side.into(), width])?;
        if self.padded > self.side {
            let (side, padding) = (Dim::from(self.side), Dim::from(self.padded - self.side));
            let zero = x.constant(&[0.0], &[1, 1, 1, 1])?;
            x = T::concat(&[&x, &zero.expand(&[batch, padding, side, width])?], 1)?;
            x = T::concat(&[&x, &zero.expand(&[batch, self.padded.into(), padding, width])?], 2)?;
        }
        if self.shift > 0 {
            x = x.roll(1, self.shift)?.roll(2, self.shift)?;
        }
        let [across, window] = [self.padded / self.window, self.window].map(Dim::from);
        let x = x.reshape(&[batch, across, window, across, window, width])?.permute(&[0, 2, 4, 1, 3, 5])?;
        x.reshape(&[batch, self.length().into(), self.windows().into(), width])
    }

    /// `(batch, length, windows, width)` back to `(batch, side * side, width)`.
    fn join<T: Tensor>(self, x: &T) -> Result<T> {
        let [batch, _, _, width] = x.sizes()?;
        let [across, window] = [self.padded / self.window, self.window].map(Dim::from);
        let x = x.reshape(&[batch, window, window, across, across, width])?.permute(&[0, 3, 1, 4, 2, 5])?;
        let mut x = x.reshape(&[batch, self.padded.into(), self.padded.into(), width])?;
        if self.shift > 0 {
            x = x.roll(1, self.padded - self.shift)?.roll(2, self.padded - self.shift)?;
        }
        if self.padded > self.side {
            x = x.narrow(1, 0, self.side)?.narrow(2, 0, self.side)?;
        }
        x.reshape(&[batch, self.side.pow(2).into(), width])
    }

    /// `(windows, 1, length, length)`: 0 for two tokens that were in one window before the shift, else [`SHIFT_MASK`].
    fn mask(self) -> Vec<f32> {
        let region =
            |at: usize| usize::from(at >= self.padded - self.window) + usize::from(at >= self.padded - self.shift);
        let across = self.padded / self.window;
        let mut mask = Vec::with_capacity(self.windows() * self.length().pow(2));
        for window in 0..self.windows() {
            let regions: Vec<_> = (0..self.length())
                .map(|token| {
                    let row = window / across * self.window + token / self.window;
                    let column = window % across * self.window + token % self.window;
                    (region(row), region(column))
                })
                .collect();
            for from in &regions {
                mask.extend(regions.iter().map(|to| if from == to { 0.0 } else { SHIFT_MASK }));
            }
        }
        mask
    }

    /// The row of the bias table for each pair of tokens in a window.
    fn relative_positions(self) -> Vec<usize> {
        let span = 2 * self.window - 1;
        let at = |token: usize| (token / self.window, token % self.window);
        let row = |from: usize, to: usize| {
            let ((i, j), (k, l)) = (at(from), at(to));
            (i + self.window - 1 - k) * span + (j + self.window - 1 - l)
        };
        (0..self.length()).flat_map(|from| (0..self.length()).map(move |to| row(from, to))).collect()
    }
}

struct SwinBlock<T> {
    grid: Grid,
    heads: usize,
    attention: Attention<T>,
    bias_table: T,
    feed_forward: FeedForward<T>,
    norm_before: LayerNorm<T>,
    norm_after: LayerNorm<T>,
    drop_path: DropPath,
    name: String,
}

impl<T> SwinBlock<T> {
    fn new(config: &SwinConfig, stage: usize, index: usize, path: &ParamPath<T>) -> Result<Self> {
        let grid = Grid::new(config, stage, index);
        let before: usize = config.depths[..stage].iter().sum();
        let (width, heads, eps) = (config.embed_dim << stage, config.num_heads[stage], config.layer_norm_eps);
        let hidden = (width as f64 * config.mlp_ratio) as usize;
        let rows = (2 * grid.window - 1).pow(2);
        let inner = path.sub("attention.self");
        Ok(Self {
            grid,
            heads,
            attention: Attention::new(width, heads, &ATTENTION, path)?,
            bias_table: inner.get("relative_position_bias_table", &[rows, heads], Init::Normal)?,
            feed_forward: FeedForward::new(width, hidden, path)?,
            norm_before: LayerNorm::new(width, eps, &path.sub("layernorm_before"))?,
            norm_after: LayerNorm::new(width, eps, &path.sub("layernorm_after"))?,
            drop_path: DropPath::new(before + index, config.depths.iter().sum(), path),
            name: path.name().to_owned(),
        })
    }
}

impl<T: Tensor> SwinBlock<T> {
    /// Relative position bias and shift mask, `(1, windows * heads, length, length)`.
    fn bias(&self) -> Result<T> {
        let (windows, length) = (self.grid.windows(), self.grid.length());
        let bias = self.bias_table.select(0, &self.grid.relative_positions())?.permute(&[1, 0])?;
        let bias = bias.reshape(&[1.into(), self.heads.into(), length.into(), length.into()])?;
        let bias = if self.grid.shift > 0 {
            bias.add(&bias.constant(&self.grid.mask(), &[windows, 1, length, length])?)?
        } else {
            bias.expand(&[windows.into(), self.heads.into(), length.into(), length.into()])?
        };
        bias.reshape(&[1.into(), (windows * self.heads).into(), length.into(), length.into()])
    }

    /// `(batch, tokens, width)` to the same shape.
    fn forward(&self, x: &T) -> Result<T> {
        x.module(&self.name, || {
            let windows = self.grid.partition(&self.norm_before.forward(x)?)?;
            // As in `SwinLayer`, the drop path covers the attention only.
            let attended = self.grid.join(&self.attention.forward_windows(&windows, &self.bias()?)?)?;
            let x = self.drop_path.forward(&attended)?.add(x)?;
            self.feed_forward.forward(&self.norm_after.forward(&x)?)?.add(&x)
        })
    }
}

/// Merges 2 x 2 tokens into one of twice the width.
struct Downsample<T> {
    side: usize,
    norm: LayerNorm<T>,
    reduction: Linear<T>,
    name: String,
}

impl<T> Downsample<T> {
    fn new(config: &SwinConfig, stage: usize, side: usize, path: &ParamPath<T>) -> Result<Self> {
        let width = config.embed_dim << stage;
        Ok(Self {
            side,
            reduction: Linear::without_bias(4 * width, 2 * width, &path.sub("reduction"))?,
            // `SwinPatchMerging` uses PyTorch's default eps here, not that of the configuration.
            norm: LayerNorm::new(4 * width, 1e-5, &path.sub("norm"))?,
            name: path.name().to_owned(),
        })
    }
}

impl<T: Tensor> Downsample<T> {
    /// `(batch, side * side, width)` to `(batch, side * side / 4, 2 * width)`.
    fn forward(&self, x: &T) -> Result<T> {
        let [batch, _, width] = x.sizes()?;
        let half = self.side / 2;
        x.module(&self.name, || {
            let x = x.reshape(&[batch, half.into(), 2.into(), half.into(), 2.into(), width])?;
            let x = x.permute(&[0, 1, 3, 4, 2, 5])?.reshape(&[batch, half.pow(2).into(), width.times(4)])?;
            self.reduction.forward(&self.norm.forward(&x)?)
        })
    }
}

struct Stage<T> {
    blocks: Vec<SwinBlock<T>>,
    downsample: Option<Downsample<T>>,
}

impl<T> Stage<T> {
    fn new(config: &SwinConfig, stage: usize, path: &ParamPath<T>) -> Result<Self> {
        let side = (config.image_size / config.patch_size) >> stage;
        let block = |index: usize| SwinBlock::new(config, stage, index, &path.sub("blocks").sub(index));
        let last = stage + 1 == config.depths.len();
        Ok(Self {
            blocks: (0..config.depths[stage]).map(block).collect::<Result<_>>()?,
            downsample: if last { None } else { Some(Downsample::new(config, stage, side, &path.sub("downsample"))?) },
        })
    }
}

struct SwinEmbeddings<T> {
    weight: T,
    bias: T,
    patch: usize,
    norm: LayerNorm<T>,
    name: String,
}

impl<T> SwinEmbeddings<T> {
    fn new(config: &SwinConfig, path: &ParamPath<T>) -> Result<Self> {
        let (width, patch) = (config.embed_dim, config.patch_size);
        let projection = path.sub("patch_embeddings.projection");
        Ok(Self {
            weight: projection.get("weight", &[width, 3, patch, patch], Init::Normal)?,
            bias: projection.get("bias", &[width], Init::Zeros)?,
            patch,
            // `SwinEmbeddings` uses PyTorch's default eps here, not that of the configuration.
            norm: LayerNorm::new(width, 1e-5, &path.sub("norm"))?,
            name: path.name().to_owned(),
        })
    }
}

impl<T: Tensor> SwinEmbeddings<T> {
    /// `(batch, 3, size, size)` to `(batch, tokens, width)`.
    fn forward(&self, pixels: &T) -> Result<T> {
        pixels.module(&self.name, || {
            let x = pixels.embed_patches(&self.weight, Some(&self.bias), self.patch)?;
            self.norm.forward(&x)
        })
    }
}

/// A Swin encoder.
pub struct Swin<T> {
    embeddings: SwinEmbeddings<T>,
    stages: Vec<Stage<T>>,
    norm: LayerNorm<T>,
}

impl<T> Swin<T> {
    /// `path` has `embeddings`, `encoder` and `layernorm`.
    pub fn new(config: &SwinConfig, path: &ParamPath<T>) -> Result<Self> {
        let layers = path.sub("encoder.layers");
        let width = config.embed_dim << (config.depths.len() - 1);
        Ok(Self {
            embeddings: SwinEmbeddings::new(config, &path.sub("embeddings"))?,
            stages: (0..config.depths.len())
                .map(|stage| Stage::new(config, stage, &layers.sub(stage)))
                .collect::<Result<_>>()?,
            norm: LayerNorm::new(width, config.layer_norm_eps, &path.sub("layernorm"))?,
        })
    }
}

impl<T: Tensor> Swin<T> {
    /// Pixels `(batch, 3, size, size)` to `(batch, patches, width)`.
    pub fn forward(&self, pixels: &T) -> Result<T> {
        let mut x = self.embeddings.forward(pixels)?;
        for stage in &self.stages {
            for block in &stage.blocks {
                x = block.forward(&x)?;
            }
            if let Some(downsample) = &stage.downsample {
                x = downsample.forward(&x)?;
            }
        }
        self.norm.forward(&x)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, rc::Rc};

    use super::Swin;
    use crate::{
        array::Array,
        models::config::{PreprocessingType, SwinConfig},
        params::{self, ParamPath, Parameter},
    };

    /// Both stages, of 12 and 6 tokens a side, are padded for windows of 5, and the second block of each is shifted. Expected
    /// values: the rule of `SwinLayer` in transformers 4.46, written in PyTorch in f64.
    #[test]
    fn stages_that_windows_do_not_divide_are_padded() {
        let config = SwinConfig {
            image_size: 24,
            patch_size: 2,
            embed_dim: 4,
            depths: vec![2, 2],
            num_heads: vec![1, 2],
            window_size: 5,
            mlp_ratio: 2.0,
            layer_norm_eps: 1e-5,
            preprocessing: PreprocessingType::Laps,
        };
        let mut parameters = params::list(|path| Swin::new(&config, path)).unwrap();
        parameters.sort_by(|one, other| one.name.cmp(&other.name));
        assert_eq!(parameters.len(), 77);
        let values = |(index, parameter): (usize, &Parameter)| {
            let value = |position: usize| (0.5 * (0.7 * position as f64 + index as f64).sin()) as f32;
            let values = (0..parameter.shape.iter().product()).map(value).collect();
            (parameter.name.clone(), Array::new(&parameter.shape, values).unwrap())
        };
        let weights: BTreeMap<String, Array> = parameters.iter().enumerate().map(values).collect();
        let path = ParamPath::root(Rc::new(move |parameter: Parameter| Ok(weights[&parameter.name].clone())));
        let pixels = (0..3 * 24 * 24).map(|pixel| (0.13 * f64::from(pixel)).cos() as f32).collect();
        let tokens = Swin::new(&config, &path).unwrap().forward(&Array::new(&[1, 3, 24, 24], pixels).unwrap()).unwrap();
        assert_eq!(tokens.dims(), [1, 36, 8]);
        let expected = [
            (0, [-0.316249, 0.530896, 0.505750, 0.183311, 0.527409, -0.156281, -1.087742, -0.630406]),
            (5, [-0.159046, 0.927964, 0.734440, 0.216200, 0.527249, -0.043099, -0.699896, -0.284181]),
            (21, [-0.242201, 0.491545, 0.364656, 0.150189, 0.512382, -0.212645, -1.084898, -0.643612]),
            (35, [-0.108633, 0.949602, 0.702628, 0.209952, 0.521152, -0.042650, -0.648413, -0.260750]),
        ];
        for (token, expected) in expected {
            for (found, expected) in tokens.values()[8 * token..].iter().zip(expected) {
                // f32 against f64; the outputs are of size 1.
                assert!((f64::from(*found) - expected).abs() < 2e-5, "token {token}: {found} and {expected}");
            }
        }
    }
}
