//! Model configurations, with the key names of Hugging Face `config.json` and of the LAPS options.

mod image;
mod text;

use serde::{Deserialize, Serialize};

use crate::{Error, Result, heads::HeadConfig};

/// Maximum of any size. A larger one is a typing error, and the product of three sizes below it cannot overflow.
const MAX_SIZE: usize = 1 << 20;

/// Configuration of a LAPS model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// The image encoder.
    pub image: ImageConfig,
    /// The text encoder.
    pub text: TextConfig,
    /// Width of the joint space.
    pub embed_size: usize,
    /// Share of the patches that are kept for a caption. 0 for a head that selects no patches.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub sparse_ratio: f64,
    /// Number of aggregated patches, as a share of the kept ones. 0 for a head that aggregates no patches.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub aggr_ratio: f64,
    /// How embeddings become a similarity.
    #[serde(default, skip_serializing_if = "HeadConfig::is_laps")]
    pub head: HeadConfig,
}

/// The image encoder.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "model_type", rename_all = "snake_case")]
pub enum ImageConfig {
    /// A plain vision transformer.
    Vit(VitConfig),
    /// A Swin transformer, version 1.
    Swin(SwinConfig),
    /// The image encoder of CLIP.
    ClipVisionModel(ClipVisionConfig),
}

/// `ViTConfig`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VitConfig {
    /// Width and height of the image in pixels.
    pub image_size: usize,
    /// Width and height of a patch in pixels.
    pub patch_size: usize,
    /// Width of a token.
    pub hidden_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Number of attention heads.
    pub num_attention_heads: usize,
    /// Hidden width of a block's MLP.
    pub intermediate_size: usize,
    /// `eps` of the layer norms.
    #[serde(default = "eps_12")]
    pub layer_norm_eps: f64,
    /// Whether the position embeddings of a checkpoint can be those of another image size. They are resized when it is
    /// opened.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub interpolate_pos_encoding: bool,
    /// How images are resized and normalised.
    #[serde(default = "laps_preprocessing", skip_serializing_if = "PreprocessingType::is_laps")]
    pub preprocessing: PreprocessingType,
}

/// `SwinConfig`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwinConfig {
    /// Width and height of the image in pixels.
    pub image_size: usize,
    /// Width and height of a patch in pixels.
    pub patch_size: usize,
    /// Width of a token in the first stage. Each further stage doubles it.
    pub embed_dim: usize,
    /// Blocks of each stage.
    pub depths: Vec<usize>,
    /// Heads of each stage.
    pub num_heads: Vec<usize>,
    /// Width and height of an attention window in tokens. Stages whose side is larger and not a multiple of it are padded.
    pub window_size: usize,
    /// Hidden width of a block's MLP, as a multiple of the token width.
    pub mlp_ratio: f64,
    /// `eps` of the layer norms.
    #[serde(default = "eps_5")]
    pub layer_norm_eps: f64,
    /// How images are resized and normalised.
    #[serde(default = "laps_preprocessing", skip_serializing_if = "PreprocessingType::is_laps")]
    pub preprocessing: PreprocessingType,
}

/// `CLIPVisionConfig`, with `hidden_act: quick_gelu`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipVisionConfig {
    /// Width and height of the image in pixels.
    pub image_size: usize,
    /// Width and height of a patch in pixels.
    pub patch_size: usize,
    /// Width of a token.
    pub hidden_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Number of attention heads.
    pub num_attention_heads: usize,
    /// Hidden width of a block's MLP.
    pub intermediate_size: usize,
    /// `eps` of the layer norms.
    #[serde(default = "eps_5")]
    pub layer_norm_eps: f64,
    /// How images are resized and normalised.
    #[serde(default)]
    pub preprocessing: PreprocessingType,
}

/// How images are resized and normalised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PreprocessingType {
    /// As Hugging Face's `CLIPImageProcessor`: the shortest side to `image_size`, the centre square, CLIP's mean and standard
    /// deviation.
    #[default]
    Clip,
    /// As LAPS: the whole image to a square, ImageNet's mean and standard deviation.
    Laps,
    /// As D2S-VSE: the whole image to a square, bilinearly and without antialiasing as OpenCV does with floats; ImageNet's
    /// mean and standard deviation.
    D2sVse,
}

impl PreprocessingType {
    fn is_laps(&self) -> bool {
        *self == Self::Laps
    }
}

fn laps_preprocessing() -> PreprocessingType {
    PreprocessingType::Laps
}

/// `BertConfig` or `CLIPTextConfig`, by `model_type`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "text::TextFields")]
pub struct TextConfig {
    /// The architecture.
    pub model_type: TextType,
    /// Size of the vocabulary.
    pub vocab_size: usize,
    /// Width of a token.
    pub hidden_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Number of attention heads.
    pub num_attention_heads: usize,
    /// Hidden width of a block's MLP.
    pub intermediate_size: usize,
    /// Maximum length of a caption in tokens.
    pub max_position_embeddings: usize,
    /// Number of token types, of which captions use the first. 0 for CLIP, which has none.
    #[serde(skip_serializing_if = "has_no_types")]
    pub type_vocab_size: usize,
    /// `eps` of the layer norms.
    pub layer_norm_eps: f64,
}

/// Architectures of the text encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextType {
    /// BERT.
    Bert,
    /// The text encoder of CLIP.
    ClipTextModel,
}

fn is_zero(ratio: &f64) -> bool {
    *ratio == 0.0
}
fn eps_12() -> f64 {
    1e-12
}
fn eps_5() -> f64 {
    1e-5
}
fn has_no_types(number: &usize) -> bool {
    *number == 0
}

impl ImageConfig {
    /// Width and height of the image in pixels.
    pub fn image_size(&self) -> usize {
        match self {
            Self::Vit(vit) => vit.image_size,
            Self::Swin(swin) => swin.image_size,
            Self::ClipVisionModel(clip) => clip.image_size,
        }
    }

    /// Number of patches in the output of the encoder.
    pub fn num_patches(&self) -> usize {
        match self {
            Self::Vit(vit) => (vit.image_size / vit.patch_size).pow(2),
            Self::ClipVisionModel(clip) => (clip.image_size / clip.patch_size).pow(2),
            Self::Swin(swin) => ((swin.image_size / swin.patch_size) >> (swin.depths.len() - 1)).pow(2),
        }
    }

    /// Short name of the architecture, as the option `vit_type` of the authors' code.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Vit(_) => "vit",
            Self::Swin(_) => "swin",
            Self::ClipVisionModel(_) => "clip",
        }
    }

    /// Whether attention is restricted to windows.
    pub fn is_windowed(&self) -> bool {
        matches!(self, Self::Swin(_))
    }

    /// Whether the first token is a class token.
    pub fn has_class_token(&self) -> bool {
        matches!(self, Self::Vit(_) | Self::ClipVisionModel(_))
    }

    /// How images are resized and normalised.
    pub fn preprocessing(&self) -> PreprocessingType {
        match self {
            Self::Vit(vit) => vit.preprocessing,
            Self::Swin(swin) => swin.preprocessing,
            Self::ClipVisionModel(clip) => clip.preprocessing,
        }
    }

    /// Whether the position embeddings of a checkpoint can be those of another image size.
    pub fn interpolates_positions(&self) -> bool {
        matches!(self, Self::Vit(VitConfig { interpolate_pos_encoding: true, .. }))
    }

    /// Width of the encoder's output.
    pub fn hidden_size(&self) -> usize {
        match self {
            Self::Vit(vit) => vit.hidden_size,
            Self::ClipVisionModel(clip) => clip.hidden_size,
            Self::Swin(swin) => swin.embed_dim << (swin.depths.len() - 1),
        }
    }
}

impl ModelConfig {
    /// Widths of the token and the word embeddings that the encoders give the head: `embed_size`, or those of the backbones
    /// for a head that projects them itself.
    pub fn embedding_widths(&self) -> [usize; 2] {
        match self.head.projects() {
            true => [self.image.hidden_size(), self.text.hidden_size],
            false => [self.embed_size; 2],
        }
    }

    /// Number of patches kept for a caption: `ceil(num_patches * sparse_ratio)`.
    pub fn kept(&self) -> usize {
        (self.image.num_patches() as f64 * self.sparse_ratio).ceil() as usize
    }

    /// Number of groups that the kept patches are aggregated into: `trunc(num_patches * aggr_ratio * sparse_ratio)`, computed
    /// in this order.
    pub fn groups(&self) -> usize {
        (self.image.num_patches() as f64 * self.aggr_ratio * self.sparse_ratio) as usize
    }

    /// Checks that a model with these sizes can be built.
    ///
    /// # Errors
    /// [`Error::Config`] with the first invalid key.
    pub fn check(&self) -> Result<()> {
        match &self.image {
            ImageConfig::Vit(vit) => vit.check()?,
            ImageConfig::Swin(swin) => swin.check()?,
            ImageConfig::ClipVisionModel(clip) => clip.check()?,
        }
        let text = &self.text;
        positive("text.vocab_size", text.vocab_size)?;
        positive("text.num_hidden_layers", text.num_hidden_layers)?;
        positive("text.intermediate_size", text.intermediate_size)?;
        positive("text.max_position_embeddings", text.max_position_embeddings)?;
        match text.model_type {
            TextType::Bert => positive("text.type_vocab_size", text.type_vocab_size)?,
            TextType::ClipTextModel if text.type_vocab_size != 0 => {
                return Err(config("text.type_vocab_size", "no such key for clip_text_model", &text.type_vocab_size));
            }
            TextType::ClipTextModel => {}
        }
        positive("text.num_attention_heads", text.num_attention_heads)?;
        multiple("text.hidden_size", text.hidden_size, "num_attention_heads", text.num_attention_heads)?;
        eps("text.layer_norm_eps", text.layer_norm_eps)?;
        at_least("embed_size", self.embed_size, 5)?;
        if self.head.has_ratios() {
            ratio("sparse_ratio", self.sparse_ratio)?;
            ratio("aggr_ratio", self.aggr_ratio)?;
            if self.groups() == 0 {
                return Err(config("aggr_ratio", "at least one group of patches", &self.aggr_ratio));
            }
            return Ok(());
        }
        for (key, value) in [("sparse_ratio", self.sparse_ratio), ("aggr_ratio", self.aggr_ratio)] {
            if value != 0.0 {
                return Err(config(
                    key,
                    &format!("no value: the head `{}` selects no patches", self.head.kind()),
                    &value,
                ));
            }
        }
        self.head.check(self)
    }
}

/// The checks of an encoder of one width, whose configuration has the field names of `ViTConfig`.
macro_rules! check_plain {
    ($config:ty) => {
        impl $config {
            fn check(&self) -> Result<()> {
                positive("image.patch_size", self.patch_size)?;
                multiple("image.image_size", self.image_size, "patch_size", self.patch_size)?;
                positive("image.num_attention_heads", self.num_attention_heads)?;
                multiple("image.hidden_size", self.hidden_size, "num_attention_heads", self.num_attention_heads)?;
                positive("image.num_hidden_layers", self.num_hidden_layers)?;
                positive("image.intermediate_size", self.intermediate_size)?;
                eps("image.layer_norm_eps", self.layer_norm_eps)
            }
        }
    };
}

check_plain!(VitConfig);
check_plain!(ClipVisionConfig);

impl SwinConfig {
    fn check(&self) -> Result<()> {
        positive("image.patch_size", self.patch_size)?;
        multiple("image.image_size", self.image_size, "patch_size", self.patch_size)?;
        positive("image.depths", self.depths.len())?;
        positive("image.window_size", self.window_size)?;
        eps("image.layer_norm_eps", self.layer_norm_eps)?;
        if self.depths.len() != self.num_heads.len() {
            return Err(config(
                "image.num_heads",
                &format!("{} stages, as in depths", self.depths.len()),
                &self.num_heads.len(),
            ));
        }
        if !(1.0..=MAX_SIZE as f64).contains(&(self.embed_dim as f64 * self.mlp_ratio)) {
            let expected = format!("a width of embed_dim * mlp_ratio from 1 to {MAX_SIZE}");
            return Err(config("image.mlp_ratio", &expected, &self.mlp_ratio));
        }
        let mut tokens = self.image_size / self.patch_size;
        for (stage, &heads) in self.num_heads.iter().enumerate() {
            positive("image.depths", self.depths[stage])?;
            positive("image.num_heads", heads)?;
            multiple("image.embed_dim", self.embed_dim << stage, "num_heads", heads)?;
            if stage + 1 < self.depths.len() {
                multiple("image.image_size", tokens, "2 (tokens of a stage)", 2)?;
                tokens /= 2;
            }
        }
        Ok(())
    }
}

fn config(key: &str, expected: &str, found: &dyn std::fmt::Display) -> Error {
    Error::Config { key: key.to_owned(), expected: expected.to_owned(), found: found.to_string(), hint: None }
}

fn positive(key: &str, value: usize) -> Result<()> {
    at_least(key, value, 1)
}

fn at_least(key: &str, value: usize, least: usize) -> Result<()> {
    if (least..=MAX_SIZE).contains(&value) {
        return Ok(());
    }
    Err(config(key, &format!("at least {least} and at most {MAX_SIZE}"), &value))
}

fn multiple(key: &str, value: usize, of: &str, divisor: usize) -> Result<()> {
    positive(key, value)?;
    if !value.is_multiple_of(divisor) {
        return Err(config(key, &format!("a multiple of {of} = {divisor}"), &value));
    }
    Ok(())
}

fn ratio(key: &str, value: f64) -> Result<()> {
    if value > 0.0 && value <= 1.0 { Ok(()) } else { Err(config(key, "more than 0 and at most 1", &value)) }
}

fn eps(key: &str, value: f64) -> Result<()> {
    if value.is_finite() && value >= 0.0 { Ok(()) } else { Err(config(key, "a small number, not negative", &value)) }
}
