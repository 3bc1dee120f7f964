//! Checkpoints, and the state that a run resumes from.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};

use super::{AdamW, Learner, Weights, config_hash::ConfigHash, precision::LossScale};
use crate::{
    Result,
    train::{RunFiles, RunFolder, TrainError},
};
use laps_files::{TensorHeader, safetensors_head};
use laps_hub::checkpoint::Checkpoint;
use laps_model::{array::Array, models::config::ModelConfig};

/// Progress of a run. All random numbers are functions of the seed and of this, so no generator state is saved.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct RunPosition {
    /// Finished steps of all epochs.
    pub(super) step: u64,
    /// Current epoch, from 0.
    pub(super) epoch: usize,
    /// Finished steps of the epoch.
    pub(super) within: usize,
    /// Sum and number of the finite losses of the epoch.
    pub(super) losses: (f64, u64),
    /// Steps with a non-finite loss or gradient.
    pub(super) non_finite: u64,
    /// Best rSum so far, and its epoch.
    pub(super) best: Option<(f64, usize)>,
    /// Optimizer steps of each parameter group.
    pub(super) optimizer_steps: [u64; 2],
    /// Loss scale, and steps since it changed.
    pub(super) loss_scale: (f64, u64),
}

/// Metadata key of the position.
const POSITION: &str = "position";
/// Metadata key of the configuration's hash.
const CONFIGURATION: &str = "configuration";

/// Saves weights, optimizer state and position.
pub(super) fn save(folder: &RunFolder, learner: &Learner, position: &RunPosition, hash: &str) -> Result<()> {
    let position = RunPosition {
        optimizer_steps: learner.optimizer.steps,
        loss_scale: (learner.scale.factor, learner.scale.steps),
        ..position.clone()
    };
    let text = serde_json::to_string(&position).map_err(|error| damaged(folder, error.to_string()))?;
    let metadata = BTreeMap::from([(POSITION, text), (CONFIGURATION, hash.to_owned())]);
    let weights = learner.weights.arrays().map(|array| array.map(|(name, array)| (name.to_owned(), array)));
    let tensors: Vec<_> = weights.chain(learner.optimizer.arrays(&learner.weights)).collect::<Result<_>>()?;
    write(folder, RunFiles::STATE, &tensors, &metadata)
}

/// Opens the saved state of a configuration, or of one with fewer epochs: the file, the position and the epochs.
pub(super) fn open(folder: &RunFolder, hash: &ConfigHash) -> Result<(Checkpoint, RunPosition, usize)> {
    let path = folder.file(RunFiles::STATE);
    let checkpoint = Checkpoint::open(&path)?;
    let fields = metadata(&path).map_err(|reason| damaged(folder, reason))?;
    let found = fields.get(CONFIGURATION);
    let Some(epochs) = found.and_then(|found| hash.saved_epochs(found)) else {
        let found = found.cloned().unwrap_or_else(|| "none".to_owned());
        let (folder, expected) = (folder.path().to_owned(), hash.value().to_owned());
        return Err(TrainError::OtherRun { folder, expected, found }.into());
    };
    let text = fields.get(POSITION).ok_or_else(|| damaged(folder, "it has no position".to_owned()))?;
    let position = serde_json::from_str(text).map_err(|error| damaged(folder, error.to_string()))?;
    Ok((checkpoint, position, epochs))
}

/// Restores optimizer and loss scale of a learner. The weights are restored when they are created.
pub(super) fn restore(learner: &mut Learner, state: &Checkpoint, position: &RunPosition) -> Result<()> {
    let Learner { weights, optimizer, scale, .. } = learner;
    let read = |name: &str| -> Result<Array> { Ok(state.read(name)?) };
    AdamW::restore(optimizer, weights, position.optimizer_steps, read)?;
    *scale = LossScale { factor: position.loss_scale.0, steps: position.loss_scale.1 };
    Ok(())
}

/// Writes a checkpoint with the authors' names and options.
pub(super) fn write_checkpoint(
    folder: &RunFolder,
    name: &str,
    weights: &Weights,
    position: &RunPosition,
) -> Result<()> {
    let tensors: Vec<(String, Array)> =
        weights.arrays().map(|array| array.map(|(name, array)| (name.to_owned(), array))).collect::<Result<_>>()?;
    let mut metadata = BTreeMap::from([
        ("opt", options(weights.config()).to_string()),
        ("epoch", (position.epoch + 1).to_string()),
        ("Eiters", position.step.to_string()),
    ]);
    if let Some((best, _)) = position.best {
        metadata.insert("best_rsum", best.to_string());
    }
    write(folder, name, &tensors, &metadata)
}

fn options(model: &ModelConfig) -> serde_json::Value {
    let mut options = serde_json::json!({
        "vit_type": model.image.kind(),
        "img_res": model.image.image_size(),
        "num_patches": model.image.num_patches(),
        "embed_size": model.embed_size,
    });
    if model.head.has_ratios() {
        options["sparse_ratio"] = model.sparse_ratio.into();
        options["aggr_ratio"] = model.aggr_ratio.into();
    }
    if !model.head.is_laps() {
        options["head"] = model.head.to_string().into();
    }
    options
}

fn write(folder: &RunFolder, name: &str, tensors: &[(String, Array)], metadata: &BTreeMap<&str, String>) -> Result<()> {
    let described: Vec<_> = tensors
        .iter()
        .map(|(name, array)| TensorHeader {
            name,
            dtype: "F32",
            shape: array.dims(),
            bytes: size_of_val(array.values()),
        })
        .collect();
    let mut file = safetensors_head(&described, metadata).map_err(|reason| damaged(folder, reason))?;
    file.extend(tensors.iter().flat_map(|(_, array)| array.values()).flat_map(|value| value.to_le_bytes()));
    folder.write(name, &file)
}

/// Metadata in the safetensors header of a file that [`Checkpoint::open`] has checked.
fn metadata(path: &Path) -> Result<BTreeMap<String, String>, String> {
    use std::io::Read;

    let mut file = fs_err::File::open(path).map_err(|error| error.to_string())?;
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|error| error.to_string())?;
    let mut header = Vec::new();
    file.take(u64::from_le_bytes(length)).read_to_end(&mut header).map_err(|error| error.to_string())?;
    let header: serde_json::Value = serde_json::from_slice(&header).map_err(|error| error.to_string())?;
    let fields = header.get("__metadata__").cloned().ok_or("it has no metadata")?;
    serde_json::from_value(fields).map_err(|error| error.to_string())
}

fn damaged(folder: &RunFolder, reason: String) -> crate::Error {
    TrainError::State { path: folder.file(RunFiles::STATE), reason }.into()
}
