//! BERT.
//!
//! Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers", NAACL 2019. Parameter names are those of
//! Hugging Face `BertModel`; the pooler is omitted, because LAPS does not use it.

use crate::{
    Result,
    models::config::TextConfig,
    nn::{Attention, AttentionNames, Dropout, FeedForward, LayerNorm, PROJECTIONS},
    params::{Init, ParamPath},
    tensor::Tensor,
};

const ATTENTION: AttentionNames =
    AttentionNames { inner: "attention.self", projections: PROJECTIONS, output: "attention.output.dense" };

struct BertEmbeddings<T> {
    words: T,
    positions: T,
    types: T,
    norm: LayerNorm<T>,
    dropout: Dropout,
    name: String,
}

impl<T> BertEmbeddings<T> {
    fn new(config: &TextConfig, path: &ParamPath<T>) -> Result<Self> {
        let width = config.hidden_size;
        let table = |name, rows| path.sub(name).get("weight", &[rows, width], Init::Normal);
        Ok(Self {
            words: table("word_embeddings", config.vocab_size)?,
            positions: table("position_embeddings", config.max_position_embeddings)?,
            types: table("token_type_embeddings", config.type_vocab_size)?,
            norm: LayerNorm::new(width, config.layer_norm_eps, &path.sub("LayerNorm"))?,
            dropout: Dropout::new(path),
            name: path.name().to_owned(),
        })
    }
}

impl<T: Tensor> BertEmbeddings<T> {
    /// `input_ids` and mask `(batch, length)` to `(batch, length, width)`.
    fn forward(&self, input_ids: &T, mask: &T) -> Result<T> {
        input_ids.module(&self.name, || {
            let words = self.words.embedding(input_ids)?;
            let positions = self.positions.embedding(&mask.cumulative_sum()?.affine(1.0, -1.0)?)?;
            self.dropout.forward(&self.norm.forward(&words.add(&self.types.narrow(0, 0, 1)?)?.add(&positions)?)?)
        })
    }
}

/// A post-norm block.
struct BertBlock<T> {
    attention: Attention<T>,
    attention_norm: LayerNorm<T>,
    feed_forward: FeedForward<T>,
    output_norm: LayerNorm<T>,
    dropout: Dropout,
    name: String,
}

impl<T> BertBlock<T> {
    fn new(config: &TextConfig, path: &ParamPath<T>) -> Result<Self> {
        let (width, hidden, eps) = (config.hidden_size, config.intermediate_size, config.layer_norm_eps);
        Ok(Self {
            attention: Attention::new(width, config.num_attention_heads, &ATTENTION, path)?
                .with_dropout(Dropout::new(path)),
            attention_norm: LayerNorm::new(width, eps, &path.sub("attention.output.LayerNorm"))?,
            feed_forward: FeedForward::new(width, hidden, path)?,
            output_norm: LayerNorm::new(width, eps, &path.sub("output.LayerNorm"))?,
            dropout: Dropout::new(path),
            name: path.name().to_owned(),
        })
    }
}

impl<T: Tensor> BertBlock<T> {
    /// `(batch, length, width)` and an attention bias to the same shape.
    fn forward(&self, x: &T, bias: &T) -> Result<T> {
        x.module(&self.name, || {
            let attended = self.dropout.forward(&self.attention.forward(x, Some(bias))?)?;
            let x = self.attention_norm.forward(&attended.add(x)?)?;
            let fed = self.dropout.forward(&self.feed_forward.forward(&x)?)?;
            self.output_norm.forward(&fed.add(&x)?)
        })
    }
}

/// A BERT encoder.
pub struct Bert<T> {
    embeddings: BertEmbeddings<T>,
    blocks: Vec<BertBlock<T>>,
    name: String,
}

impl<T> Bert<T> {
    /// `path` has `embeddings` and `encoder`.
    pub fn new(config: &TextConfig, path: &ParamPath<T>) -> Result<Self> {
        let layers = path.sub("encoder.layer");
        Ok(Self {
            embeddings: BertEmbeddings::new(config, &path.sub("embeddings"))?,
            blocks: (0..config.num_hidden_layers)
                .map(|index| BertBlock::new(config, &layers.sub(index)))
                .collect::<Result<_>>()?,
            name: path.name().to_owned(),
        })
    }
}

impl<T: Tensor> Bert<T> {
    /// `input_ids` and mask `(batch, length)`, padded at the end, to `(batch, length, width)`.
    pub fn forward(&self, input_ids: &T, mask: &T) -> Result<T> {
        let bias = mask.module(&self.name, || mask.padding_bias())?;
        let mut x = self.embeddings.forward(input_ids, mask)?;
        for block in &self.blocks {
            x = block.forward(&x, &bias)?;
        }
        Ok(x)
    }
}
