//! CLIP: a vision transformer and a causal text transformer with one block.
//!
//! Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021. Parameter names are
//! those of Hugging Face `CLIPVisionModel` and `CLIPTextModel`.

use crate::{
    Result,
    models::config::{ClipVisionConfig, TextConfig},
    nn::{Attention, AttentionNames, LayerNorm, Linear},
    params::{Init, ParamPath},
    tensor::{MASK_LOGIT, Tensor},
};

const ATTENTION: AttentionNames =
    AttentionNames { inner: "self_attn", projections: ["q_proj", "k_proj", "v_proj"], output: "self_attn.out_proj" };

/// Sizes of a stack of blocks.
struct EncoderSizes {
    width: usize,
    hidden: usize,
    blocks: usize,
    heads: usize,
    eps: f64,
}

impl From<&ClipVisionConfig> for EncoderSizes {
    fn from(config: &ClipVisionConfig) -> Self {
        Self {
            width: config.hidden_size,
            hidden: config.intermediate_size,
            blocks: config.num_hidden_layers,
            heads: config.num_attention_heads,
            eps: config.layer_norm_eps,
        }
    }
}

impl From<&TextConfig> for EncoderSizes {
    fn from(config: &TextConfig) -> Self {
        Self {
            width: config.hidden_size,
            hidden: config.intermediate_size,
            blocks: config.num_hidden_layers,
            heads: config.num_attention_heads,
            eps: config.layer_norm_eps,
        }
    }
}

/// A pre-norm block.
struct ClipBlock<T> {
    layer_norm1: LayerNorm<T>,
    self_attn: Attention<T>,
    layer_norm2: LayerNorm<T>,
    fc1: Linear<T>,
    fc2: Linear<T>,
    name: String,
}

impl<T> ClipBlock<T> {
    fn new(sizes: &EncoderSizes, path: &ParamPath<T>) -> Result<Self> {
        let &EncoderSizes { width, hidden, heads, eps, .. } = sizes;
        Ok(Self {
            self_attn: Attention::new(width, heads, &ATTENTION, path)?,
            layer_norm1: LayerNorm::new(width, eps, &path.sub("layer_norm1"))?,
            fc1: Linear::new(width, hidden, &path.sub("mlp.fc1"))?,
            fc2: Linear::new(hidden, width, &path.sub("mlp.fc2"))?,
            layer_norm2: LayerNorm::new(width, eps, &path.sub("layer_norm2"))?,
            name: path.name().to_owned(),
        })
    }
}

impl<T: Tensor> ClipBlock<T> {
    /// `(batch, length, width)` and an optional attention bias to the same shape.
    fn forward(&self, x: &T, bias: Option<&T>) -> Result<T> {
        x.module(&self.name, || {
            let x = self.self_attn.forward(&self.layer_norm1.forward(x)?, bias)?.add(x)?;
            let hidden = self.fc1.forward(&self.layer_norm2.forward(&x)?)?.quick_gelu()?;
            self.fc2.forward(&hidden)?.add(&x)
        })
    }
}

fn blocks<T>(sizes: &EncoderSizes, path: &ParamPath<T>) -> Result<Vec<ClipBlock<T>>> {
    let layers = path.sub("encoder.layers");
    (0..sizes.blocks).map(|index| ClipBlock::new(sizes, &layers.sub(index))).collect()
}

struct VisionEmbeddings<T> {
    class_embedding: T,
    patch_embedding: T,
    position_embedding: T,
    patch: usize,
    name: String,
}

impl<T> VisionEmbeddings<T> {
    fn new(config: &ClipVisionConfig, path: &ParamPath<T>) -> Result<Self> {
        let (width, patch) = (config.hidden_size, config.patch_size);
        let tokens = (config.image_size / patch).pow(2) + 1;
        Ok(Self {
            class_embedding: path.get("class_embedding", &[width], Init::Normal)?,
            patch_embedding: path.get("patch_embedding.weight", &[width, 3, patch, patch], Init::Normal)?,
            position_embedding: path.get("position_embedding.weight", &[tokens, width], Init::Normal)?,
            patch,
            name: path.name().to_owned(),
        })
    }
}

impl<T: Tensor> VisionEmbeddings<T> {
    /// `(batch, 3, size, size)` to `(batch, patches + 1, width)`.
    fn forward(&self, pixels: &T) -> Result<T> {
        pixels.module(&self.name, || {
            let x = pixels.embed_patches(&self.patch_embedding, None, self.patch)?;
            let [batch, _, width] = x.sizes()?;
            let class_token = self.class_embedding.reshape(&[1.into(), 1.into(), width])?;
            T::concat(&[&class_token.expand(&[batch, 1.into(), width])?, &x], 1)?.add(&self.position_embedding)
        })
    }
}

/// `CLIPVisionModel`.
pub struct ClipVision<T> {
    embeddings: VisionEmbeddings<T>,
    pre_layernorm: LayerNorm<T>,
    blocks: Vec<ClipBlock<T>>,
    post_layernorm: LayerNorm<T>,
}

impl<T> ClipVision<T> {
    /// `path` has `vision_model`.
    pub fn new(config: &ClipVisionConfig, path: &ParamPath<T>) -> Result<Self> {
        let path = path.sub("vision_model");
        let sizes = EncoderSizes::from(config);
        Ok(Self {
            embeddings: VisionEmbeddings::new(config, &path.sub("embeddings"))?,
            // The name is misspelled in every published checkpoint.
            pre_layernorm: LayerNorm::new(sizes.width, sizes.eps, &path.sub("pre_layrnorm"))?,
            blocks: blocks(&sizes, &path)?,
            post_layernorm: LayerNorm::new(sizes.width, sizes.eps, &path.sub("post_layernorm"))?,
        })
    }
}

impl<T: Tensor> ClipVision<T> {
    /// Pixels `(batch, 3, size, size)` to `last_hidden_state`, `(batch, patches + 1, width)`, the class token first.
    pub fn last_hidden_state(&self, pixels: &T) -> Result<T> {
        let mut x = self.pre_layernorm.forward(&self.embeddings.forward(pixels)?)?;
        for block in &self.blocks {
            x = block.forward(&x, None)?;
        }
        Ok(x)
    }

    /// Pixels `(batch, 3, size, size)` to `last_hidden_state` after `post_layernorm`, `(batch, patches + 1, width)`. The
    /// first token is `pooler_output`.
    pub fn forward(&self, pixels: &T) -> Result<T> {
        self.post_layernorm.forward(&self.last_hidden_state(pixels)?)
    }
}

/// `CLIPTextModel`.
pub struct ClipText<T> {
    token_embedding: T,
    position_embedding: T,
    blocks: Vec<ClipBlock<T>>,
    final_layer_norm: LayerNorm<T>,
    name: String,
}

impl<T> ClipText<T> {
    /// `path` has `text_model`.
    pub fn new(config: &TextConfig, path: &ParamPath<T>) -> Result<Self> {
        let path = path.sub("text_model");
        let sizes = EncoderSizes::from(config);
        let table = |name, rows| path.sub("embeddings").sub(name).get("weight", &[rows, sizes.width], Init::Normal);
        Ok(Self {
            token_embedding: table("token_embedding", config.vocab_size)?,
            position_embedding: table("position_embedding", config.max_position_embeddings)?,
            blocks: blocks(&sizes, &path)?,
            final_layer_norm: LayerNorm::new(sizes.width, sizes.eps, &path.sub("final_layer_norm"))?,
            name: path.name().to_owned(),
        })
    }
}

impl<T: Tensor> ClipText<T> {
    /// `input_ids` and mask `(batch, length)`, padded at the end, to `last_hidden_state` `(batch, length, width)`.
    ///
    /// The mask gives the shape only: a token sees itself and those before it, so padding at the end reaches no token.
    pub fn forward(&self, input_ids: &T, mask: &T) -> Result<T> {
        let (mut x, bias) = input_ids.module(&self.name, || {
            let positions = mask.affine(0.0, 1.0)?.max(0)?.cumulative_sum()?.affine(1.0, -1.0)?;
            let words = self.token_embedding.embedding(input_ids)?;
            Ok((words.add(&self.position_embedding.embedding(&positions)?)?, causal_bias(&positions)?))
        })?;
        for block in &self.blocks {
            x = block.forward(&x, Some(&bias))?;
        }
        self.final_layer_norm.forward(&x)
    }
}

/// Positions `(1, length)`, counted from 0, to the attention bias `(1, 1, length, length)` of a causal mask.
fn causal_bias<T: Tensor>(positions: &T) -> Result<T> {
    let [_, length] = positions.sizes()?;
    let query = positions.reshape(&[1.into(), 1.into(), length, 1.into()])?;
    let key = positions.reshape(&[1.into(), 1.into(), 1.into(), length])?;
    // How far a key is behind its query, and 1 for every distance above 1.
    let distance = key.sub(&query)?.leaky_relu(0.0)?;
    distance.affine(-1.0, 1.0)?.leaky_relu(0.0)?.affine(MASK_LOGIT, -MASK_LOGIT)
}
