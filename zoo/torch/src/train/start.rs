//! Where a run gets its first weights from.

use super::Weights;
use crate::{Result, TorchDevice};
use ::laps::InitialWeights;
use laps_hub::checkpoint::{Backbone, Checkpoint};
use laps_model::{
    array::Array,
    models::{
        self,
        config::{ImageConfig, ModelConfig},
    },
    params::Parameter,
    params_init::fresh,
};

/// The files, open, held against the model.
pub(super) struct Sources {
    /// By the beginning of the names that they are for.
    files: Vec<(&'static str, Checkpoint)>,
}

impl Sources {
    /// Opens the files and sees that they are of the model.
    pub(super) fn open(start: &InitialWeights, config: &ModelConfig) -> Result<Self> {
        let image = match config.image {
            ImageConfig::Vit(_) => Backbone::Vit,
            ImageConfig::Swin(_) => Backbone::Swin,
        };
        let parameters = models::parameters(config)?;
        let mut files = Vec::new();
        for (path, kind) in [(&start.image_backbone, image), (&start.text_backbone, Backbone::Bert)] {
            let Some(path) = path else { continue };
            let file = Checkpoint::open(path)?.backbone(kind)?;
            let prefix = format!("{}.", kind.place());
            let own: Vec<Parameter> = parameters.iter().filter(|p| p.name.starts_with(&prefix)).cloned().collect();
            file.check(&own)?;
            files.push((kind.place(), file));
        }
        if let Some(path) = &start.checkpoint {
            let file = Checkpoint::open(path)?;
            if let Some(options) = file.options() {
                options.check(config)?;
            }
            file.check(&parameters)?;
            files.push(("", file));
        }
        Ok(Self { files })
    }

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
