//! Initial weights of a run: checkpoints, pretrained backbones, or random values.

use super::Weights;
use crate::{Result, TorchDevice};
use ::laps::InitialWeights;
use laps_hub::checkpoint::{BackboneKind, Checkpoint};
use laps_model::{
    array::Array,
    models::{
        self,
        config::{ImageConfig, ModelConfig, TextType},
    },
    params::Parameter,
    params_init::init_parameters,
};

/// Open weight files, checked against the model.
pub(super) struct WeightSources {
    /// Files with the prefix of the parameter names that they provide.
    files: Vec<(&'static str, Checkpoint)>,
}

impl WeightSources {
    /// Opens the files and checks names and shapes.
    pub(super) fn open(start: &InitialWeights, config: &ModelConfig) -> Result<Self> {
        let image = match config.image {
            ImageConfig::Vit(_) => BackboneKind::Vit,
            ImageConfig::Swin(_) => BackboneKind::Swin,
            ImageConfig::ClipVisionModel(_) => BackboneKind::ClipVision,
        };
        let text = match config.text.model_type {
            TextType::Bert => BackboneKind::Bert,
            TextType::ClipTextModel => BackboneKind::ClipText,
        };
        let parameters = models::parameters(config)?;
        let mut files = Vec::new();
        for (path, kind) in [(&start.image_backbone, image), (&start.text_backbone, text)] {
            let Some(path) = path else { continue };
            let file = Checkpoint::open(path)?.backbone(kind)?;
            let prefix = format!("{}.", kind.model_prefix());
            let expected: Vec<Parameter> = parameters.iter().filter(|p| p.name.starts_with(&prefix)).cloned().collect();
            let file = file.resize_positions(config)?;
            file.check(&expected)?;
            files.push((kind.model_prefix(), file));
        }
        if let Some(path) = &start.checkpoint {
            let file = Checkpoint::open(path)?.for_model(config)?;
            files.push(("", file));
        }
        Ok(Self { files })
    }

    /// Notes on the changes that reading the checkpoint made.
    pub(super) fn notes(&self) -> Vec<String> {
        self.files.iter().filter(|(prefix, _)| prefix.is_empty()).flat_map(|(_, file)| file.notes()).collect()
    }

    /// SHA-256 of the files, a part of the run's configuration.
    pub(super) fn hashes(&self) -> Result<Vec<String>> {
        self.files.iter().map(|(_, file)| Ok(file.sha256()?)).collect()
    }

    /// The initial weights. `seed` initialises parameters that no file provides.
    pub(super) fn weights(&self, config: &ModelConfig, device: TorchDevice, seed: u64) -> Result<Weights> {
        Weights::new(config, device, |parameter| {
            let file = self.files.iter().find(|(prefix, _)| parameter.name.starts_with(prefix));
            match file {
                Some((_, file)) => Ok(file.read(&parameter.name)?),
                None => random(parameter, seed),
            }
        })
    }
}

fn random(parameter: &Parameter, seed: u64) -> Result<Array> {
    Ok(init_parameters(std::slice::from_ref(parameter), seed)?.swap_remove(0).1)
}
