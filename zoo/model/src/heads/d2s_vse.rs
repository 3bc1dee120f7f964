//! D2S-VSE (ICCV 2025): pooled vectors, with a learned prompt that reads the words on the text side.
//!
//! The text side sees all positions, padding too, as the released code does: without a mask in its attention a caption's
//! vector depends on how far it is padded.
//!
//! Training adds the prompt's mean to the pooled words as it is; evaluation normalises it first.

use super::{HeadSizes, config::D2sVseConfig, gpo::Gpo, soft_normalize};
use crate::{
    Result,
    nn::{BatchNorm, Dropout, LayerNorm, Linear},
    params::{Init, Mode, ParamPath},
    tensor::Tensor,
};

const LAYER_NORM_EPS: f64 = 1e-5;
/// Probability of dropout of the hidden states of words.
const DROPOUT: f64 = 0.2;
/// Width of a block's feed-forward layer, in widths of the joint space.
const FEED_FORWARD_RATIO: usize = 4;

/// A pre-norm transformer block.
struct DecoderBlock<T> {
    norm1: LayerNorm<T>,
    qkv: Linear<T>,
    projection: Linear<T>,
    norm2: LayerNorm<T>,
    fc1: Linear<T>,
    fc2: Linear<T>,
    heads: usize,
}

impl<T> DecoderBlock<T> {
    fn new(width: usize, heads: usize, path: &ParamPath<T>) -> Result<Self> {
        let linear = |name: &str, input, output| Linear::with_default_init(input, output, &path.sub(name));
        Ok(Self {
            norm1: LayerNorm::new(width, LAYER_NORM_EPS, &path.sub("norm1"))?,
            qkv: linear("attn.qkv", width, 3 * width)?,
            projection: linear("attn.proj", width, width)?,
            norm2: LayerNorm::new(width, LAYER_NORM_EPS, &path.sub("norm2"))?,
            fc1: linear("mlp.fc1", width, FEED_FORWARD_RATIO * width)?,
            fc2: linear("mlp.fc2", FEED_FORWARD_RATIO * width, width)?,
            heads,
        })
    }
}

impl<T: Tensor> DecoderBlock<T> {
    /// `(items, length, width)` to the same; `bias` is added to the attention logits.
    fn forward(&self, x: &T, bias: Option<&T>) -> Result<T> {
        let [items, length, width] = x.sizes()?;
        let size = width.fixed()? / self.heads;
        let qkv = self.qkv.forward(&self.norm1.forward(x)?)?;
        let part = |index: usize| {
            let part = qkv.narrow(2, index * self.heads * size, self.heads * size)?;
            part.reshape(&[items, length, self.heads.into(), size.into()])?.permute(&[0, 2, 1, 3])
        };
        let mixed = T::attention(&part(0)?, &part(1)?, &part(2)?, bias)?;
        let mixed = mixed.permute(&[0, 2, 1, 3])?.reshape(&[items, length, width])?;
        let x = x.add(&self.projection.forward(&mixed)?)?;
        x.add(&self.fc2.forward(&self.fc1.forward(&self.norm2.forward(&x)?)?.gelu()?)?)
    }
}

/// The prompt, and what lets it read the words.
struct Prompt<T> {
    tokens: T,
    count: usize,
    blocks: Vec<DecoderBlock<T>>,
    norm: LayerNorm<T>,
}

/// The head.
pub struct D2sVse<T> {
    image_fc: Linear<T>,
    image_pool: Gpo<T>,
    text_fc: Linear<T>,
    text_hidden: Linear<T>,
    text_norm: BatchNorm<T>,
    text_output: Linear<T>,
    text_pool: Gpo<T>,
    pooled_norm: LayerNorm<T>,
    prompt: Option<Prompt<T>>,
    dropout: Dropout,
    is_training: bool,
}

impl<T> D2sVse<T> {
    pub(super) fn new(config: &D2sVseConfig, sizes: &HeadSizes, path: &ParamPath<T>) -> Result<Self> {
        let width = config.embed_size;
        let (image, text) = (path.sub("img_enc.image_encoder"), path.sub("txt_enc"));
        let linear = |path: ParamPath<T>, input, output| Linear::with_default_init(input, output, &path);
        let prompt = match config.prompt_tokens {
            0 => None,
            count => {
                let path = path.sub("prompt_learner");
                let block =
                    |index: usize| DecoderBlock::new(width, config.heads, &path.sub("decoder_blocks").sub(index));
                Some(Prompt {
                    tokens: path.get("prompt_tokens", &[count, width], Init::Normal)?,
                    count,
                    blocks: (0..config.blocks).map(block).collect::<Result<_>>()?,
                    norm: LayerNorm::new(width, LAYER_NORM_EPS, &path.sub("decoder_norm"))?,
                })
            }
        };
        Ok(Self {
            image_fc: linear(image.sub("fc"), sizes.width, width)?,
            image_pool: Gpo::new(&image.sub("gpool"))?,
            text_fc: linear(text.sub("fc"), sizes.word_width, width)?,
            text_hidden: linear(text.sub("mlp.layers.0"), sizes.word_width, config.mlp_size)?,
            text_norm: BatchNorm::new(config.mlp_size, &text.sub("mlp.bns.0"))?,
            text_output: linear(text.sub("mlp.layers.1"), config.mlp_size, width)?,
            text_pool: Gpo::new(&text.sub("gpool"))?,
            pooled_norm: LayerNorm::new(width, LAYER_NORM_EPS, &text.sub("ln"))?,
            prompt,
            dropout: Dropout::of_head(DROPOUT, path),
            is_training: path.mode() != Mode::Evaluation,
        })
    }
}

impl<T: Tensor> D2sVse<T> {
    /// The vectors `(images, embed_size)` of images.
    pub(super) fn pool_tokens(&self, tokens: &T) -> Result<T> {
        soft_normalize(&self.image_pool.pool(&self.image_fc.forward(tokens)?)?)
    }

    /// The vectors `(captions, embed_size)` of captions: BERT's hidden states of all positions, `(captions, length,
    /// width)`, and their mask. `visible` `(captions, length)` is 0 at positions that affect nothing; None if all do.
    pub(super) fn pool_words(&self, words: &T, mask: &T, visible: Option<&T>) -> Result<T> {
        let words = self.dropout.forward(words)?;
        let hidden = self.text_hidden.forward(&words)?;
        let [captions, length, channels] = hidden.sizes()?;
        let present = visible.map(|mask| mask.reshape(&[captions, length, 1.into()])).transpose()?;
        let hidden = self.text_norm.forward(&hidden, &[1.into(), 1.into(), channels], present.as_ref())?;
        let features = self.text_fc.forward(&words)?.add(&self.text_output.forward(&hidden.leaky_relu(0.0)?)?)?;
        let pooled = self.pooled_norm.forward(&self.text_pool.pool_masked(&features, mask)?)?;
        let Some(prompt) = &self.prompt else { return soft_normalize(&pooled) };
        let read = prompt.read(&features, visible)?;
        let read = if self.is_training { read } else { soft_normalize(&read)? };
        soft_normalize(&soft_normalize(&pooled.add(&read)?)?)
    }
}

impl<T: Tensor> Prompt<T> {
    /// `(captions, length, width)` to the mean of what the prompt has read, `(captions, width)`. `visible` masks positions.
    fn read(&self, features: &T, visible: Option<&T>) -> Result<T> {
        let [captions, _, width] = features.sizes()?;
        let tokens = self.tokens.reshape(&[1.into(), self.count.into(), width])?;
        // The original has the prompt behind the words. Without positions the order does not matter, and in front its place
        // does not depend on the length.
        let mut x = T::concat(&[&tokens.expand(&[captions, self.count.into(), width])?, features], 1)?;
        let bias = visible.map(|mask| {
            let prompt = mask.narrow(1, 0, 1)?.affine(0.0, 1.0)?.expand(&[captions, self.count.into()])?;
            T::concat(&[&prompt, mask], 1)?.padding_bias()
        });
        let bias = bias.transpose()?;
        for block in &self.blocks {
            x = block.forward(&x, bias.as_ref())?;
        }
        let read = self.norm.forward(&x)?.narrow(1, 0, self.count)?;
        read.mean(1)?.reshape(&[captions, width])
    }
}
