//! Configurations of heads: section `head` of an entry.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Error, Result, models::config::ModelConfig};

/// Maximum of an option. A larger one is a typing error.
const MAX_SIZE: usize = 1 << 16;

/// A head and its options. In YAML a head may be its type alone, `scan_t2i`, or a mapping, `{ type: vsepp, pooling: gpo }`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum HeadConfig {
    /// LAPS's own. Its options are the ratios of the model.
    #[default]
    Laps,
    /// LAPS's own with one part changed.
    LapsAblation {
        /// The change.
        ablation: Ablation,
    },
    /// CLIP's own: the cosine of the projected class token and the projected end token.
    Cosine {
        /// Width of the joint space.
        embed_size: usize,
    },
    /// Cosine of pooled vectors.
    Vsepp {
        /// How tokens and words are pooled.
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
        sim_dim: usize,
        /// Reasoning steps.
        steps: usize,
    },
    /// Hard assignment of words to tokens.
    Chan {
        /// How the words' maxima become a similarity.
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

/// Changes of [`HeadConfig::LapsAblation`], by the names of the paper's Table 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ablation {
    /// All tokens are compared.
    WithoutPatchSelection,
    /// The caption does not affect the selection.
    WithoutLanguageContext,
    /// The kept patches are not aggregated.
    WithoutPatchCalibration,
    /// The dropped patches are not fused.
    WithoutRedundantFusion,
    /// Words attend to tokens, as in SCAN.
    ScanAlignment,
    /// Only the tokens' best words count.
    PatchToWordOnly,
    /// Only the words' best tokens count.
    WordToPatchOnly,
}

impl Ablation {
    /// All ablations.
    pub const ALL: [Self; 7] = [
        Self::WithoutPatchSelection,
        Self::WithoutLanguageContext,
        Self::WithoutPatchCalibration,
        Self::WithoutRedundantFusion,
        Self::ScanAlignment,
        Self::PatchToWordOnly,
        Self::WordToPatchOnly,
    ];
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

/// Sizes of the encoders that a head needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadSizes {
    /// Tokens of an image, the class token included.
    pub tokens: usize,
    /// Whether the first token is a class token.
    pub has_class_token: bool,
    /// Width of the token embeddings.
    pub width: usize,
    /// Width of the word embeddings. It is the same, except for `cosine` and `d2s_vse`, which project both themselves.
    pub word_width: usize,
}

impl HeadSizes {
    /// The sizes of the encoders of `model`.
    pub fn of(model: &ModelConfig) -> Self {
        let has_class_token = model.image.has_class_token();
        let [width, word_width] = model.embedding_widths();
        Self { tokens: model.image.num_patches() + usize::from(has_class_token), has_class_token, width, word_width }
    }

    /// Sizes of what an [`Encoder`](crate::encoder::Encoder) of a model with this head returns: tokens and words of these
    /// sizes, or for a head that pools one vector.
    pub fn encoded(self, head: &HeadConfig) -> Self {
        let width = match *head {
            HeadConfig::Cosine { embed_size } | HeadConfig::D2sVse(D2sVseConfig { embed_size, .. }) => embed_size,
            _ => self.width,
        };
        match head.pools() {
            true => Self { tokens: 1, has_class_token: false, width, word_width: width },
            false => self,
        }
    }
}

impl HeadConfig {
    /// The types of heads.
    pub const TYPES: [&str; 11] = [
        "laps",
        "laps_ablation",
        "cosine",
        "vsepp",
        "scan_t2i",
        "scan_i2t",
        "scan_all",
        "max_mean",
        "sgr",
        "chan",
        "d2s_vse",
    ];

    /// Whether this is LAPS's own head.
    pub fn is_laps(&self) -> bool {
        *self == Self::Laps
    }

    /// Whether it selects patches by the ratios of the model: LAPS's own, and its ablations.
    pub fn has_ratios(&self) -> bool {
        matches!(self, Self::Laps | Self::LapsAblation { .. })
    }

    /// The type, one of [`TYPES`](Self::TYPES).
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Laps => "laps",
            Self::LapsAblation { .. } => "laps_ablation",
            Self::Cosine { .. } => "cosine",
            Self::Vsepp { .. } => "vsepp",
            Self::ScanT2i => "scan_t2i",
            Self::ScanI2t => "scan_i2t",
            Self::ScanAll => "scan_all",
            Self::MaxMean => "max_mean",
            Self::Sgr { .. } => "sgr",
            Self::Chan { .. } => "chan",
            Self::D2sVse(_) => "d2s_vse",
        }
    }

    /// Whether the head gives each image and each caption one vector, whose inner products are the similarities.
    pub fn pools(&self) -> bool {
        matches!(self, Self::Cosine { .. } | Self::Vsepp { .. } | Self::D2sVse(_))
    }

    /// Whether the vector of a caption depends on how far the caption is padded: the prompt of `d2s_vse` reads all positions.
    pub fn reads_padding(&self) -> bool {
        matches!(self, Self::D2sVse(D2sVseConfig { prompt_tokens: 1.., .. }))
    }

    /// Whether the head projects the outputs of the backbones itself.
    pub fn projects(&self) -> bool {
        matches!(self, Self::Cosine { .. } | Self::D2sVse(_))
    }

    /// Checks that the head can be built on the encoders of `model`.
    ///
    /// # Errors
    /// [`Error::Config`] with the first invalid key.
    pub fn check(&self, model: &ModelConfig) -> Result<()> {
        let size = |key: &str, value: usize| match value {
            1..=MAX_SIZE => Ok(()),
            _ => Err(refused(key, format!("from 1 to {MAX_SIZE}"), value)),
        };
        match *self {
            Self::Cosine { embed_size } if embed_size != model.embed_size => {
                Err(refused("embed_size", format!("the model's embed_size, {}", model.embed_size), embed_size))
            }
            Self::Cosine { .. } if !model.image.has_class_token() => Err(Error::Config {
                key: "head".to_owned(),
                expected: "an image encoder with a class token (`vit` or `clip_vision_model`) for the head `cosine`"
                    .to_owned(),
                found: model.image.kind().to_owned(),
                hint: Some("use the head `vsepp`, which pools all tokens"),
            }),
            Self::Sgr { sim_dim, steps } => {
                size("sim_dim", sim_dim)?;
                size("steps", steps)
            }
            Self::D2sVse(D2sVseConfig { embed_size, mlp_size, prompt_tokens, blocks, heads }) => {
                size("mlp_size", mlp_size)?;
                size("heads", heads)?;
                if embed_size != model.embed_size {
                    return Err(refused(
                        "embed_size",
                        format!("the model's embed_size, {}", model.embed_size),
                        embed_size,
                    ));
                }
                if !embed_size.is_multiple_of(heads) {
                    return Err(refused("heads", format!("a divisor of embed_size = {embed_size}"), heads));
                }
                if prompt_tokens > 0 { size("blocks", blocks) } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }

    /// Whether the head treats the class token of an image apart from the others.
    pub fn uses_class_token(&self) -> bool {
        matches!(self, Self::Cosine { .. } | Self::Vsepp { pooling: Pooling::Cls })
    }

    /// Takes the sizes that the configuration leaves open from the shapes of a checkpoint's parameters, which `shape` gives
    /// by name.
    pub fn take_sizes(&mut self, shape: impl Fn(&str) -> Option<Vec<usize>>) {
        let size = |name: &str, axis: usize| shape(name).and_then(|shape| shape.get(axis).copied());
        match self {
            Self::Cosine { embed_size } => *embed_size = size("visual_projection.weight", 0).unwrap_or(*embed_size),
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

/// Type and options: `vsepp, pooling gpo`.
impl fmt::Display for HeadConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())?;
        let Ok(serde_json::Value::Object(mut options)) = serde_json::to_value(self) else { return Ok(()) };
        options.remove("type");
        options.into_iter().try_for_each(|(option, value)| match value.as_str() {
            Some(text) => write!(f, ", {option} {text}"),
            None => write!(f, ", {option} {value}"),
        })
    }
}

fn refused(key: &str, expected: String, found: usize) -> Error {
    Error::Config { key: format!("head.{key}"), expected, found: found.to_string(), hint: None }
}
