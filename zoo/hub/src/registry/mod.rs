//! The registry: models, data, published tables and file sources.
//!
//! An entry is one flat YAML file without inheritance. Entries in `configs/` are built into the program and found by name;
//! those that differ in few keys are rows of `configs/rows.yaml`, which become flat texts. Any other entry is found by its path. [`References`] has the published recall tables with their provenance, and
//! [`Manifest`] has the sources of checkpoints, backbones and data.

mod canonical;
mod data_config;
mod document;
mod embedded;
mod entry;
mod error;
mod manifest;
mod overrides;
mod reference;
mod references;
mod rows;
mod train_config;

use std::{borrow::Cow, io::Read, path::Path, sync::LazyLock};

pub use canonical::sha256;
pub use data_config::{DataConfig, DataPaths};
pub use embedded::{EmbeddedCheckpoint, embedded_checkpoint};
pub use entry::Entry;
pub use error::{Origin, RegistryError, SourceLocation, describe_folder};
pub use laps_align::Protocol;
pub use manifest::{
    BackboneSource, COCO_IMAGES, CaptionFile, CaptionFiles, CheckpointSource, HubRevision, ImageArchive,
    JudgementSource, Manifest, ModelFile, PYPI_FILES, PlausibleMatchSource,
};
pub use references::{AuditMark, Cell, PublishedTable, References, SourceAudit, Status, Table, Tables};
pub use train_config::{TrainConfig, TrainPrecision, Validation};

use error::nearest;

/// Largest entry file in bytes; the built-in entries have about 1300.
const MAX_FILE_BYTES: u64 = 1 << 16;

macro_rules! built_in {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/configs/", $name, ".yaml")))),*]
    };
}

/// Name and text of each built-in entry that has a file of its own.
const BUILT_IN: &[(&str, &str)] = built_in![
    "f30k_vit",
    "f30k_swin",
    "coco_vit",
    "coco_swin",
    "f30k_vit_384",
    "f30k_swin_384",
    "coco_vit_384",
    "coco_swin_384",
    "f30k_swin_1024",
    "shapes_vit",
    "shapes_swin",
];

const ROWS: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/configs/rows.yaml"));

/// Name and text of every built-in entry. A test checks that the rows can be expanded.
static ENTRIES: LazyLock<Vec<(Cow<'static, str>, Cow<'static, str>)>> = LazyLock::new(|| {
    let files = BUILT_IN.iter().map(|&(name, text)| (name.into(), text.into()));
    let rows = rows::expand(ROWS).unwrap_or_default();
    files.chain(rows.into_iter().map(|(name, text)| (name.into(), text.into()))).collect()
});

/// The names of the built-in entries that have a file of their own.
pub fn names_of_files() -> Vec<&'static str> {
    BUILT_IN.iter().map(|&(name, _)| name).collect()
}

/// The names of the built-in entries.
pub fn names() -> Vec<&'static str> {
    ENTRIES.iter().map(|(name, _)| name.as_ref()).collect()
}

/// The built-in entry `name_or_path`, or else the entry in the YAML file at that path.
///
/// A built-in name takes precedence over a file of that name. Anything else that ends in `.yaml` or `.yml`, has a path
/// separator, or names an existing file is a path.
pub fn find(name_or_path: &str) -> Result<Entry, RegistryError> {
    let (origin, text) = text(name_or_path)?;
    Entry::from_yaml(origin, &text)
}

/// Origin and text of an entry, found as by [`find`]. The text of a built-in entry is flat and complete, also if it is
/// written as a row.
pub fn text(name_or_path: &str) -> Result<(Origin, Cow<'static, str>), RegistryError> {
    if let Some((name, text)) = ENTRIES.iter().find(|(name, _)| *name == name_or_path) {
        return Ok((Origin::BuiltIn(name), Cow::Borrowed(text)));
    }
    let path = Path::new(name_or_path);
    let is_yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
    if is_yaml || path.components().count() > 1 || path.is_file() {
        return Ok((Origin::File(path.to_owned()), read_text(path)?.into()));
    }
    Err(RegistryError::UnknownEntry { name: name_or_path.to_owned(), nearest: nearest(name_or_path, names()) })
}

fn read_text(path: &Path) -> Result<String, RegistryError> {
    let failed = |source| {
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let name = names().into_iter().find(|name| *name == stem);
        RegistryError::Read { path: path.to_owned(), name, source }
    };
    let file = fs_err::File::open(path).map_err(failed)?;
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(failed(std::io::Error::other(format!("an entry file has at most {MAX_FILE_BYTES} bytes"))));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
