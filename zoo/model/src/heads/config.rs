//! Configurations of heads: section `head` of an entry.

use serde::{Deserialize, Serialize};

/// A head and its options. In YAML a head without options may be its name alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum HeadConfig {
    /// Cosine of pooled vectors.
    Vsepp {
        /// How tokens and words are pooled.
        #[serde(default)]
        pooling: Pooling,
    },
    /// Words attend to tokens.
    ScanT2i,
    /// Tokens attend to words.
    ScanI2t,
    /// The mean of both directions.
    ScanAll,
    /// Maxima over tokens and words, averaged.
    MaxMean,
    /// Similarity graph reasoning.
    Sgr {
        /// Width of the graph's nodes.
        #[serde(default = "default_sim_dim")]
        sim_dim: usize,
        /// Reasoning steps.
        #[serde(default = "default_steps")]
        steps: usize,
    },
    /// Hard assignment of words to tokens.
    Chan {
        /// How the words' maxima become a similarity.
        #[serde(default)]
        aggregation: ChanAggregation,
    },
    /// Pooled vectors with a prompt on the text side.
    D2sVse(D2sVseConfig),
}

/// Sizes of the head `d2s_vse`. The published models have the defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct D2sVseConfig {
    /// Width of the joint space.
    pub embed_size: usize,
    /// Width of the hidden layer of the text side's MLP.
    pub mlp_size: usize,
    /// Prompt tokens. 0 for a first-stage model, which has no prompt.
    pub prompt_tokens: usize,
    /// Transformer blocks over words and prompt.
    pub blocks: usize,
    /// Attention heads of each block.
    pub heads: usize,
}

impl Default for D2sVseConfig {
    fn default() -> Self {
        Self { embed_size: 512, mlp_size: 256, prompt_tokens: 100, blocks: 4, heads: 4 }
    }
}

/// How [`HeadConfig::Vsepp`] pools.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The mean of all tokens and of all words.
    #[default]
    Mean,
    /// The class token, or the mean of all tokens without one; and the first word.
    Cls,
    /// Generalised pooling: sorted features, weighted by position.
    Gpo,
}

/// How [`HeadConfig::Chan`] aggregates the words' maxima.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChanAggregation {
    /// Their mean.
    #[default]
    Mean,
    /// The logarithm of the sum of their exponentials at temperature 0.1.
    Lse,
}

/// What a head has to know of the encoders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadSizes {
    /// Tokens of an image, the class token included.
    pub tokens: usize,
    /// Whether the first token is a class token.
    pub has_class_token: bool,
    /// Width of the embeddings.
    pub width: usize,
}

fn default_sim_dim() -> usize {
    256
}

fn default_steps() -> usize {
    3
}

impl HeadConfig {
    /// Whether the head treats the class token of an image apart from the others.
    pub fn uses_class_token(&self) -> bool {
        matches!(self, Self::Vsepp { pooling: Pooling::Cls })
    }

    /// Takes the sizes that the configuration leaves open from the shapes of a checkpoint's parameters, which `shape` gives
    /// by name.
    pub fn take_sizes(&mut self, shape: impl Fn(&str) -> Option<Vec<usize>>) {
        let size = |name: &str, axis: usize| shape(name).and_then(|shape| shape.get(axis).copied());
        match self {
            Self::Sgr { sim_dim, steps } => {
                *sim_dim = size("sim_enc.sim_eval_w.weight", 1).unwrap_or(*sim_dim);
                let is_there = |step: &usize| shape(&format!("sim_enc.SGR_module.{step}.sim_graph_w.weight")).is_some();
                match (0..).take_while(is_there).count() {
                    0 => {}
                    count => *steps = count,
                }
            }
            Self::D2sVse(config) => {
                config.embed_size = size("txt_enc.fc.weight", 0).unwrap_or(config.embed_size);
                config.mlp_size = size("txt_enc.mlp.layers.0.weight", 0).unwrap_or(config.mlp_size);
                config.prompt_tokens = size("prompt_learner.prompt_tokens", 0).unwrap_or(0);
                let is_there =
                    |block: &usize| shape(&format!("prompt_learner.decoder_blocks.{block}.attn.qkv.weight")).is_some();
                config.blocks = (0..).take_while(is_there).count();
            }
            _ => {}
        }
    }
}
