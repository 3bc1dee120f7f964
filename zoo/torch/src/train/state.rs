//! Files of weights, and of everything that is needed to go on.

use std::{collections::HashMap, path::Path};

use safetensors::{Dtype, tensor::TensorView};
use serde::{Deserialize, Serialize};

use super::{AdamW, Learner, Weights, precision::LossScale};
use crate::{
    Result,
    train::{Files, RunFolder, TrainError},
};
use laps_hub::{checkpoint::Checkpoint, registry::sha256};
use laps_model::{
    array::Array,
    models::config::{ImageConfig, ModelConfig},
};

/// Where a run is. Everything random is a function of the seed and of this, so that no generator has a state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Position {
    /// Steps that are done, over all epochs.
    pub(super) step: u64,
    /// Epoch, counted from 0.
    pub(super) epoch: usize,
    /// Steps of it that are done.
    pub(super) within: usize,
    /// Sum of the finite losses of the epoch, and how many they are.
    pub(super) losses: (f64, u64),
    /// Steps whose loss or gradient was not finite.
    pub(super) non_finite: u64,
    /// Best sum of recalls so far, and its epoch.
    pub(super) best: Option<(f64, usize)>,
    /// Steps of the optimizer for each group.
    pub(super) optimizer_steps: [u64; 2],
    /// Factor of the loss, and steps since it changed.
    pub(super) loss_scale: (f64, u64),
    /// Bytes of the log.
    pub(super) log: u64,
}

/// Key of the metadata that holds the position.
const POSITION: &str = "position";
/// Key of the metadata that holds the hash of the configuration.
const CONFIGURATION: &str = "configuration";

/// Saves weights, optimizer and position.
pub(super) fn save(folder: &RunFolder, learner: &Learner, position: &Position, hash: &str) -> Result<()> {
    let position = Position {
        optimizer_steps: learner.optimizer.steps,
        loss_scale: (learner.scale.factor, learner.scale.steps),
        ..position.clone()
    };
    let text = serde_json::to_string(&position).map_err(|error| damaged(folder, error.to_string()))?;
    let metadata = HashMap::from([(POSITION.to_owned(), text), (CONFIGURATION.to_owned(), hash.to_owned())]);
    let weights = learner.weights.arrays().map(|array| array.map(|(name, array)| (name.to_owned(), array)));
    let tensors: Vec<_> = weights.chain(learner.optimizer.arrays(&learner.weights)).collect::<Result<_>>()?;
    write(folder, Files::STATE, &tensors, metadata)
}

/// Reads the position of the state of a configuration, and the file.
pub(super) fn open(folder: &RunFolder, hash: &str) -> Result<(Checkpoint, Position)> {
    let path = folder.file(Files::STATE);
    let checkpoint = Checkpoint::open(&path)?;
    let facts = metadata(&path).map_err(|reason| damaged(folder, reason))?;
    if facts.get(CONFIGURATION).map(String::as_str) != Some(hash) {
        let found = facts.get(CONFIGURATION).cloned().unwrap_or_else(|| "none".to_owned());
        let (folder, expected) = (folder.path().to_owned(), hash.to_owned());
        return Err(TrainError::OtherRun { folder, expected, found }.into());
    }
    let text = facts.get(POSITION).ok_or_else(|| damaged(folder, "it has no position".to_owned()))?;
    let position = serde_json::from_str(text).map_err(|error| damaged(folder, error.to_string()))?;
    Ok((checkpoint, position))
}

/// Puts a learner where the state was saved.
pub(super) fn restore(learner: &mut Learner, state: &Checkpoint, position: &Position) -> Result<()> {
    let Learner { weights, optimizer, scale, .. } = learner;
    let read = |name: &str| -> Result<Array> { Ok(state.read(name)?) };
    AdamW::restore(optimizer, weights, position.optimizer_steps, read)?;
    *scale = LossScale { factor: position.loss_scale.0, steps: position.loss_scale.1 };
    Ok(())
}

/// Writes a checkpoint under the authors' names, with their options.
pub(super) fn write_checkpoint(
    folder: &RunFolder,
    name: &str,
    weights: &Weights,
    position: &Position,
) -> Result<String> {
    let tensors: Vec<(String, Array)> =
        weights.arrays().map(|array| array.map(|(name, array)| (name.to_owned(), array))).collect::<Result<_>>()?;
    let mut metadata = HashMap::from([
        ("opt".to_owned(), options(weights.config()).to_string()),
        ("epoch".to_owned(), (position.epoch + 1).to_string()),
        ("Eiters".to_owned(), position.step.to_string()),
    ]);
    if let Some((best, _)) = position.best {
        metadata.insert("best_rsum".to_owned(), best.to_string());
    }
    write(folder, name, &tensors, metadata)?;
    let path = folder.file(name);
    let bytes = fs_err::read(&path).map_err(|source| crate::Error::Io { action: "read", path, source })?;
    Ok(sha256(&bytes))
}

fn options(model: &ModelConfig) -> serde_json::Value {
    let kind = match model.image {
        ImageConfig::Vit(_) => "vit",
        ImageConfig::Swin(_) => "swin",
    };
    serde_json::json!({
        "vit_type": kind,
        "img_res": model.image.image_size(),
        "num_patches": model.image.num_patches(),
        "embed_size": model.embed_size,
        "sparse_ratio": model.sparse_ratio,
        "aggr_ratio": model.aggr_ratio,
    })
}

fn write(folder: &RunFolder, name: &str, tensors: &[(String, Array)], metadata: HashMap<String, String>) -> Result<()> {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, array)| array.values().iter().flat_map(|value| value.to_le_bytes()).collect())
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, array), bytes)| {
        TensorView::new(Dtype::F32, array.dims().to_vec(), bytes).map(|view| (name.as_str(), view))
    });
    let views = views.collect::<Result<Vec<_>, _>>().map_err(|error| damaged(folder, error.to_string()))?;
    let file = safetensors::serialize(views, Some(metadata)).map_err(|error| damaged(folder, error.to_string()))?;
    folder.write(name, &file)
}

/// The texts in the header of a file that [`Checkpoint::open`] has found whole.
fn metadata(path: &Path) -> Result<HashMap<String, String>, String> {
    use std::io::Read;

    let mut file = fs_err::File::open(path).map_err(|error| error.to_string())?;
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|error| error.to_string())?;
    let mut header = Vec::new();
    file.take(u64::from_le_bytes(length)).read_to_end(&mut header).map_err(|error| error.to_string())?;
    let header: serde_json::Value = serde_json::from_slice(&header).map_err(|error| error.to_string())?;
    let facts = header.get("__metadata__").cloned().ok_or("it has no metadata")?;
    serde_json::from_value(facts).map_err(|error| error.to_string())
}

fn damaged(folder: &RunFolder, reason: String) -> crate::Error {
    TrainError::State { path: folder.file(Files::STATE), reason }.into()
}
