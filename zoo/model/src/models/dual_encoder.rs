//! The whole model: two encoders, their projections, and the alignment.

use crate::{
    Result,
    models::{
        alignment::Alignment,
        bert::Bert,
        config::{ImageConfig, ModelConfig, TextConfig},
        swin::Swin,
        vit::Vit,
    },
    nn::Linear,
    params::{self, Parameter, Path},
    tensor::Tensor,
};

enum Backbone<T> {
    Vit(Vit<T>),
    Swin(Swin<T>),
}

/// Images to patch embeddings.
pub struct ImageEncoder<T> {
    backbone: Backbone<T>,
    projection: Option<Linear<T>>,
}

impl<T> ImageEncoder<T> {
    /// `path` holds `visual_encoder` and, where the widths differ, `vision_proj`.
    pub fn new(config: &ImageConfig, embed_size: usize, path: &Path<T>) -> Result<Self> {
        let inner = path.sub("visual_encoder");
        let backbone = match config {
            ImageConfig::Vit(vit) => Backbone::Vit(Vit::new(vit, &inner)?),
            ImageConfig::Swin(swin) => Backbone::Swin(Swin::new(swin, &inner)?),
        };
        Ok(Self { backbone, projection: projection(config.hidden_size(), embed_size, &path.sub("vision_proj"))? })
    }
}

impl<T: Tensor> ImageEncoder<T> {
    /// `(batch, 3, size, size)` to `(batch, tokens, embed_size)`, the class token first where there is one.
    pub fn forward(&self, pixels: &T) -> Result<T> {
        self.project(&self.features(pixels)?)
    }

    /// `(batch, 3, size, size)` to what the backbone makes of it, `(batch, tokens, hidden)`.
    pub fn features(&self, pixels: &T) -> Result<T> {
        match &self.backbone {
            Backbone::Vit(vit) => vit.forward(pixels),
            Backbone::Swin(swin) => swin.forward(pixels),
        }
    }

    /// `(..., hidden)` to `(..., embed_size)`.
    pub fn project(&self, features: &T) -> Result<T> {
        self.projection.as_ref().map_or(Ok(features.clone()), |layer| layer.forward(features))
    }
}

/// Captions to word embeddings.
pub struct TextEncoder<T> {
    bert: Bert<T>,
    projection: Option<Linear<T>>,
}

impl<T> TextEncoder<T> {
    /// `path` holds `bert` and, where the widths differ, `fc`.
    pub fn new(config: &TextConfig, embed_size: usize, path: &Path<T>) -> Result<Self> {
        let projection = projection(config.hidden_size, embed_size, &path.sub("fc"))?;
        Ok(Self { bert: Bert::new(config, &path.sub("bert"))?, projection })
    }
}

impl<T: Tensor> TextEncoder<T> {
    /// Identifiers and mask `(batch, length)` to `(batch, length, embed_size)`.
    pub fn forward(&self, identifiers: &T, mask: &T) -> Result<T> {
        self.project(&self.features(identifiers, mask)?)
    }

    /// Identifiers and mask `(batch, length)` to what the backbone makes of them, `(batch, length, hidden)`.
    pub fn features(&self, identifiers: &T, mask: &T) -> Result<T> {
        self.bert.forward(identifiers, mask)
    }

    /// `(..., hidden)` to `(..., embed_size)`.
    pub fn project(&self, features: &T) -> Result<T> {
        self.projection.as_ref().map_or(Ok(features.clone()), |layer| layer.forward(features))
    }
}

fn projection<T>(input: usize, output: usize, path: &Path<T>) -> Result<Option<Linear<T>>> {
    if input == output { Ok(None) } else { Linear::with_default_init(input, output, path).map(Some) }
}

/// LAPS.
pub struct Laps<T> {
    /// Images to patch embeddings.
    pub image: ImageEncoder<T>,
    /// Captions to word embeddings.
    pub text: TextEncoder<T>,
    /// Both to similarities.
    pub alignment: Alignment<T>,
}

impl<T> Laps<T> {
    /// `path` holds `img_enc`, `txt_enc` and `cross_net`.
    pub fn new(config: &ModelConfig, path: &Path<T>) -> Result<Self> {
        config.check()?;
        Ok(Self {
            image: ImageEncoder::new(&config.image, config.embed_size, &path.sub("img_enc"))?,
            text: TextEncoder::new(&config.text, config.embed_size, &path.sub("txt_enc"))?,
            alignment: Alignment::new(config, &path.sub("cross_net"))?,
        })
    }
}

/// Every parameter of the model of `config`. Needs no weights and no native library.
pub fn parameters(config: &ModelConfig) -> Result<Vec<Parameter>> {
    params::list(|path| Laps::new(config, path))
}
