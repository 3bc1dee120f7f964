//! Where a run gets its first weights from.

use std::path::PathBuf;

use super::Weights;
use crate::{
    Result,
    array::Array,
    checkpoint::{Backbone, Checkpoint},
    models::{
        config::{ImageConfig, ModelConfig},
        laps,
    },
    params::Parameter,
    params_init::fresh,
    torch::TorchDevice,
};

/// Files that the first weights come from; what none of them has is made from the seed.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// A whole checkpoint.
    pub checkpoint: Option<PathBuf>,
    /// The image encoder, as Hugging Face names it.
    pub image_backbone: Option<PathBuf>,
    /// The text encoder, as Hugging Face names it.
    pub text_backbone: Option<PathBuf>,
}

/// The files, open, held against the model.
pub(super) struct Sources {
    /// By the beginning of the names that they are for.
    files: Vec<(&'static str, Checkpoint)>,
}

impl Start {
    /// Opens the files and sees that they are of the model.
    pub(super) fn open(&self, config: &ModelConfig) -> Result<Sources> {
        let image = match config.image {
            ImageConfig::Vit(_) => Backbone::Vit,
            ImageConfig::Swin(_) => Backbone::Swin,
        };
        let parameters = laps::parameters(config)?;
        let mut files = Vec::new();
        for (path, kind) in [(&self.image_backbone, image), (&self.text_backbone, Backbone::Bert)] {
            let Some(path) = path else { continue };
            let file = Checkpoint::open(path)?.backbone(kind)?;
            let prefix = format!("{}.", kind.place());
            let own: Vec<Parameter> = parameters.iter().filter(|p| p.name.starts_with(&prefix)).cloned().collect();
            file.check(&own)?;
            files.push((kind.place(), file));
        }
        if let Some(path) = &self.checkpoint {
            let file = Checkpoint::open(path)?;
            if let Some(options) = file.options() {
                options.check(config)?;
            }
            file.check(&parameters)?;
            files.push(("", file));
        }
        Ok(Sources { files })
    }
}

impl Sources {
    /// What the files are: part of the configuration of a run.
    pub(super) fn hashes(&self) -> Result<Vec<String>> {
        self.files.iter().map(|(_, file)| Ok(file.sha256()?)).collect()
    }

    /// The first weights.
    pub(super) fn weights(&self, config: &ModelConfig, device: TorchDevice, seed: u64) -> Result<Weights> {
        Weights::new(config, device, |parameter| {
            let file = self.files.iter().find(|(prefix, _)| parameter.name.starts_with(prefix));
            match file {
                Some((_, file)) => Ok(file.read(&parameter.name)?),
                None => made(parameter, seed),
            }
        })
    }
}

fn made(parameter: &Parameter, seed: u64) -> Result<Array> {
    let mut made = fresh(std::slice::from_ref(parameter), seed)?;
    Ok(made.swap_remove(0).1)
}
