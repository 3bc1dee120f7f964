//! A model: two encoders, their projections, and the head.

use crate::{
    Result,
    heads::Head,
    models::{
        bert::Bert,
        clip::{ClipText, ClipVision},
        config::{ImageConfig, ModelConfig, TextConfig, TextType},
        swin::Swin,
        vit::Vit,
    },
    nn::Linear,
    params::{self, ParamPath, Parameter},
    tensor::Tensor,
};

enum Backbone<T> {
    Vit(Vit<T>),
    Swin(Swin<T>),
    Clip(ClipVision<T>),
}

enum TextBackbone<T> {
    Bert(Bert<T>),
    Clip(ClipText<T>),
}

/// Images to patch embeddings.
pub struct ImageEncoder<T> {
    backbone: Backbone<T>,
    projection: Option<Linear<T>>,
}

impl<T> ImageEncoder<T> {
    /// `path` has `visual_encoder` and, if the widths differ, `vision_proj`.
    pub fn new(config: &ImageConfig, embed_size: usize, path: &ParamPath<T>) -> Result<Self> {
        let inner = path.sub("visual_encoder");
        let backbone = match config {
            ImageConfig::Vit(vit) => Backbone::Vit(Vit::new(vit, &inner)?),
            ImageConfig::Swin(swin) => Backbone::Swin(Swin::new(swin, &inner)?),
            ImageConfig::ClipVisionModel(clip) => Backbone::Clip(ClipVision::new(clip, &inner)?),
        };
        Ok(Self { backbone, projection: projection(config.hidden_size(), embed_size, &path.sub("vision_proj"))? })
    }
}

impl<T: Tensor> ImageEncoder<T> {
    /// Pixels `(batch, 3, size, size)` to `(batch, tokens, embed_size)`, the class token first, if the model has
    /// one.
    pub fn forward(&self, pixels: &T) -> Result<T> {
        self.project(&self.features(pixels)?)
    }

    /// Pixels `(batch, 3, size, size)` to the output of the backbone, `(batch, tokens, hidden)`.
    pub fn features(&self, pixels: &T) -> Result<T> {
        match &self.backbone {
            Backbone::Vit(vit) => vit.forward(pixels),
            Backbone::Swin(swin) => swin.forward(pixels),
            Backbone::Clip(clip) => clip.forward(pixels),
        }
    }

    /// `(..., hidden)` to `(..., embed_size)`.
    pub fn project(&self, features: &T) -> Result<T> {
        self.projection.as_ref().map_or(Ok(features.clone()), |layer| layer.forward(features))
    }
}

/// Captions to word embeddings.
pub struct TextEncoder<T> {
    backbone: TextBackbone<T>,
    projection: Option<Linear<T>>,
}

impl<T> TextEncoder<T> {
    /// `path` has `bert` or `clip` and, if the widths differ, `fc`.
    pub fn new(config: &TextConfig, embed_size: usize, path: &ParamPath<T>) -> Result<Self> {
        let projection = projection(config.hidden_size, embed_size, &path.sub("fc"))?;
        let backbone = match config.model_type {
            TextType::Bert => TextBackbone::Bert(Bert::new(config, &path.sub("bert"))?),
            TextType::ClipTextModel => TextBackbone::Clip(ClipText::new(config, &path.sub("clip"))?),
        };
        Ok(Self { backbone, projection })
    }
}

impl<T: Tensor> TextEncoder<T> {
    /// `input_ids` and mask `(batch, length)` to `(batch, length, embed_size)`.
    pub fn forward(&self, input_ids: &T, mask: &T) -> Result<T> {
        self.project(&self.features(input_ids, mask)?)
    }

    /// `input_ids` and mask `(batch, length)` to the output of the backbone, `(batch, length, hidden)`.
    pub fn features(&self, input_ids: &T, mask: &T) -> Result<T> {
        match &self.backbone {
            TextBackbone::Bert(bert) => bert.forward(input_ids, mask),
            TextBackbone::Clip(clip) => clip.forward(input_ids, mask),
        }
    }

    /// `(..., hidden)` to `(..., embed_size)`.
    pub fn project(&self, features: &T) -> Result<T> {
        self.projection.as_ref().map_or(Ok(features.clone()), |layer| layer.forward(features))
    }
}

fn projection<T>(input: usize, output: usize, path: &ParamPath<T>) -> Result<Option<Linear<T>>> {
    if input == output { Ok(None) } else { Linear::with_default_init(input, output, path).map(Some) }
}

/// A model: LAPS, or another head on the same encoders.
pub struct Laps<T> {
    /// Images to patch embeddings.
    pub image: ImageEncoder<T>,
    /// Captions to word embeddings.
    pub text: TextEncoder<T>,
    /// Patch and word embeddings to similarities.
    pub head: Head<T>,
}

impl<T> Laps<T> {
    /// `path` has `img_enc`, `txt_enc` and, for the head `laps`, `cross_net`.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if `config` is invalid; otherwise the error of the source of parameters.
    pub fn new(config: &ModelConfig, path: &ParamPath<T>) -> Result<Self> {
        config.check()?;
        let [width, word_width] = config.embedding_widths();
        Ok(Self {
            image: ImageEncoder::new(&config.image, width, &path.sub("img_enc"))?,
            text: TextEncoder::new(&config.text, word_width, &path.sub("txt_enc"))?,
            head: Head::of(config, path)?,
        })
    }
}

/// The parameters of the model of `config`, in the order in which it requests them. Needs no weights.
pub fn parameters(config: &ModelConfig) -> Result<Vec<Parameter>> {
    params::list(|path| Laps::new(config, path))
}
