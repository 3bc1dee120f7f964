//! Vision transformer.
//!
//! Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021. Parameter names are those of Hugging Face `ViTModel`;
//! the pooler is omitted, because LAPS does not use it.

use crate::{
    Result,
    models::config::VitConfig,
    nn::{Attention, AttentionNames, FeedForward, LayerNorm, PROJECTIONS},
    params::{Init, ParamPath},
    tensor::Tensor,
};

const ATTENTION: AttentionNames =
    AttentionNames { inner: "attention.attention", projections: PROJECTIONS, output: "attention.output.dense" };

struct VitEmbeddings<T> {
    class_token: T,
    positions: T,
    weight: T,
    bias: T,
    patch: usize,
    name: String,
}

impl<T> VitEmbeddings<T> {
    fn new(config: &VitConfig, path: &ParamPath<T>) -> Result<Self> {
        let (width, patch) = (config.hidden_size, config.patch_size);
        let tokens = (config.image_size / patch).pow(2) + 1;
        let projection = path.sub("patch_embeddings.projection");
        Ok(Self {
            class_token: path.get("cls_token", &[1, 1, width], Init::Normal)?,
            positions: path.get("position_embeddings", &[1, tokens, width], Init::Normal)?,
            weight: projection.get("weight", &[width, 3, patch, patch], Init::Normal)?,
            bias: projection.get("bias", &[width], Init::Zeros)?,
            patch,
            name: path.name().to_owned(),
        })
    }
}

impl<T: Tensor> VitEmbeddings<T> {
    /// `(batch, 3, size, size)` to `(batch, patches + 1, width)`.
    fn forward(&self, pixels: &T) -> Result<T> {
        pixels.module(&self.name, || {
            let x = pixels.embed_patches(&self.weight, Some(&self.bias), self.patch)?;
            let [batch, _, width] = x.sizes()?;
            let class_token = self.class_token.expand(&[batch, 1.into(), width])?;
            T::concat(&[&class_token, &x], 1)?.add(&self.positions)
        })
    }
}

/// A pre-norm block.
struct VitBlock<T> {
    attention: Attention<T>,
    feed_forward: FeedForward<T>,
    norm_before: LayerNorm<T>,
    norm_after: LayerNorm<T>,
    name: String,
}

impl<T> VitBlock<T> {
    fn new(config: &VitConfig, path: &ParamPath<T>) -> Result<Self> {
        let (width, hidden, eps) = (config.hidden_size, config.intermediate_size, config.layer_norm_eps);
        Ok(Self {
            attention: Attention::new(width, config.num_attention_heads, &ATTENTION, path)?,
            feed_forward: FeedForward::new(width, hidden, path)?,
            norm_before: LayerNorm::new(width, eps, &path.sub("layernorm_before"))?,
            norm_after: LayerNorm::new(width, eps, &path.sub("layernorm_after"))?,
            name: path.name().to_owned(),
        })
    }
}

impl<T: Tensor> VitBlock<T> {
    /// `(batch, length, width)` to the same shape.
    fn forward(&self, x: &T) -> Result<T> {
        x.module(&self.name, || {
            let x = self.attention.forward(&self.norm_before.forward(x)?, None)?.add(x)?;
            self.feed_forward.forward(&self.norm_after.forward(&x)?)?.add(&x)
        })
    }
}

/// A ViT encoder.
pub struct Vit<T> {
    embeddings: VitEmbeddings<T>,
    blocks: Vec<VitBlock<T>>,
    norm: LayerNorm<T>,
}

impl<T> Vit<T> {
    /// `path` has `embeddings`, `encoder` and `layernorm`.
    pub fn new(config: &VitConfig, path: &ParamPath<T>) -> Result<Self> {
        let layers = path.sub("encoder.layer");
        Ok(Self {
            embeddings: VitEmbeddings::new(config, &path.sub("embeddings"))?,
            blocks: (0..config.num_hidden_layers)
                .map(|index| VitBlock::new(config, &layers.sub(index)))
                .collect::<Result<_>>()?,
            norm: LayerNorm::new(config.hidden_size, config.layer_norm_eps, &path.sub("layernorm"))?,
        })
    }
}

impl<T: Tensor> Vit<T> {
    /// Pixels `(batch, 3, size, size)` to `(batch, patches + 1, width)`, the class token first.
    pub fn forward(&self, pixels: &T) -> Result<T> {
        let mut x = self.embeddings.forward(pixels)?;
        for block in &self.blocks {
            x = block.forward(&x)?;
        }
        self.norm.forward(&x)
    }
}
