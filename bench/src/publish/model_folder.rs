//! The folder of a model: weights, entry, card, results, and exported graphs.

use std::path::{Path, PathBuf};

use fs_err as fs;
use laps_hub::{
    checkpoint::convert,
    registry::{self, Entry, embedded_checkpoint},
};
use laps_onnx::package::Package;

use super::{HubDataSet, eval_results};
use crate::{Error, Result, card, files::write_atomic, reproduce::Reproduction, results};

/// Inputs of [`write_model_folder`].
#[derive(Clone, Debug)]
pub struct ModelFolder<'a> {
    /// Entry name, or path to an entry YAML file.
    pub entry: &'a str,
    /// The checkpoint; `None` for the embedded one.
    pub checkpoint: Option<&'a Path>,
    /// Results of the checkpoint, and results of foreign models to compare with.
    pub results: &'a [PathBuf],
    /// Folders of exported graphs.
    pub graphs: &'a [PathBuf],
    /// The data set of the hub that the results are of; `None` for the one of a built-in entry.
    pub hub_data: Option<&'a HubDataSet>,
    /// The repository, `owner/name`.
    pub repository: &'a str,
}

/// Writes to the empty folder `folder`:
///
/// * `model.safetensors`: the weights, checked against the entry, as [`convert`] writes them,
/// * `NAME.yaml`: the entry,
/// * `README.md`: the card with `model-index`,
/// * `results/`: the results as they are,
/// * `.eval_results/`: the recalls for the hub, if the results are of a data set of the hub,
/// * `onnx/`: each folder of graphs, verified.
///
/// # Errors
/// A checkpoint that does not fit, results or graphs of another checkpoint or configuration, two files of one name.
pub fn write_model_folder(folder: &Path, model: &ModelFolder<'_>) -> Result<()> {
    let entry = registry::find(model.entry)?;
    let (_, text) = registry::text(model.entry)?;
    let results = read_results(model.results)?;
    let graphs = model.graphs.iter().map(|graphs| Package::open(graphs)).collect::<Result<Vec<_>, _>>()?;
    let path = folder.join("model.safetensors");
    let checkpoint_sha256 = match (model.checkpoint, embedded_checkpoint(&entry.name)) {
        (Some(checkpoint), _) => convert(checkpoint, &path, Some(&entry.model))?.source_sha256,
        (None, Some(embedded)) => {
            write_atomic(&path, embedded.bytes)?;
            embedded.sha256()
        }
        (None, None) => return Err(laps::Error::no_checkpoint(&entry).into()),
    };
    check_results(&results, &checkpoint_sha256)?;
    write_atomic(&folder.join(format!("{}.yaml", entry.name)), text.as_bytes())?;
    let measured = results.iter().map(|(_, result)| result.clone()).collect();
    write_atomic(&folder.join("README.md"), card::card(&entry, measured, model.hub_data)?.as_bytes())?;
    for (path, (name, _)) in model.results.iter().zip(&results) {
        copy(path, &folder.join("results").join(name))?;
    }
    for (name, text) in eval_results::files(&entry, &results, model.hub_data, model.repository)? {
        let folder = folder.join(".eval_results");
        create_folder(&folder)?;
        write_atomic(&folder.join(name), text.as_bytes())?;
    }
    graphs.iter().try_for_each(|package| write_graphs(folder, package, &entry, &checkpoint_sha256))
}

/// The results by the names of their files.
fn read_results(paths: &[PathBuf]) -> Result<Vec<(String, Reproduction)>> {
    let mut read: Vec<(String, Reproduction)> = Vec::new();
    for path in paths {
        let name = file_name(path);
        if read.iter().any(|(other, _)| *other == name) {
            return Err(refused("results", "files of different names", format!("`{name}` twice")));
        }
        read.push((name, results::read(path)?));
    }
    Ok(read)
}

fn check_results(results: &[(String, Reproduction)], checkpoint_sha256: &str) -> Result<()> {
    for (name, result) in results {
        let Some(used) = result.provenance.entry() else { continue };
        if used.checkpoint.sha256 != checkpoint_sha256 {
            let expected = format!("results of the checkpoint with sha256 {checkpoint_sha256}");
            return Err(refused("results", expected, format!("sha256 {} in `{name}`", used.checkpoint.sha256)));
        }
    }
    Ok(())
}

fn write_graphs(folder: &Path, package: &Package, entry: &Entry, checkpoint_sha256: &str) -> Result<()> {
    let manifest = &package.manifest;
    let found = (manifest.config_sha256.as_str(), manifest.checkpoint_sha256.as_str());
    if found != (entry.config_sha256.as_str(), checkpoint_sha256) {
        let expected = format!(
            "graphs of the configuration {} and the checkpoint with sha256 {checkpoint_sha256}",
            entry.config_sha256
        );
        let found = format!("{} and {} in `{}`", found.0, found.1, package.folder.display());
        return Err(refused("graphs", expected, found));
    }
    let target = folder.join("onnx").join(format!("{}-{}", manifest.flavour, manifest.precision));
    if target.exists() {
        return Err(refused("graphs", "folders of different flavours or precisions", "two of the same".to_owned()));
    }
    for file in fs::read_dir(&package.folder).map_err(read_error(&package.folder))? {
        let path = file.map_err(read_error(&package.folder))?.path();
        if path.is_file() {
            copy(&path, &target.join(file_name(&path)))?;
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    to.parent().map_or(Ok(()), create_folder)?;
    fs::copy(from, to).map(drop).map_err(|source| Error::Write { path: to.to_owned(), source: source.into() })
}

fn create_folder(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(|source| Error::Write { path: folder.to_owned(), source: source.into() })
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn read_error(path: &Path) -> impl Fn(std::io::Error) -> Error + '_ {
    |source| Error::Read { path: path.to_owned(), source }
}

fn refused(argument: &'static str, expected: impl Into<String>, found: String) -> Error {
    Error::Argument { argument, expected: expected.into(), found }
}
