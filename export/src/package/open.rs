//! Reading the folder.

use std::path::{Path, PathBuf};

use fs_err as fs;

use super::{Manifest, SCHEMA, manifest::FileEntry, write::sha256};
use crate::{Error, Result, record::Part};

pub(super) const AGAIN: &str = "write it again with `laps-zoo export NAME --onnx --out DIR`";

/// A folder of graphs whose files are those that were written.
#[derive(Clone, Debug)]
pub struct Package {
    /// The folder.
    pub folder: PathBuf,
    /// Its manifest.
    pub manifest: Manifest,
}

impl Package {
    /// Reads the manifest of `folder` and every file that it names, and compares their hashes.
    ///
    /// # Errors
    /// [`Error::Package`] for a folder without a manifest, with one of another version, or with a file that is missing or
    /// was changed.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("manifest.json");
        let manifest = Self::manifest(folder)?;
        let mut files: Vec<FileEntry> = vec![manifest.golden.clone()];
        files.extend(manifest.alignment.iter().map(|alignment| alignment.file.clone()));
        files.extend(manifest.vocabulary.clone());
        for part in Part::ALL {
            match manifest.graphs.get(part.name()) {
                Some(graph) if graph.file.file == part.file() => files.push(graph.file.clone()),
                _ => return refused(&path, &format!("a graph `{part}` in `{}`", part.file()), "none".to_owned()),
            }
        }
        for file in files {
            // A manifest is data from outside: it names files of its own folder only.
            if Path::new(&file.file).file_name() != Some(file.file.as_ref()) {
                return refused(&path, "names of files in the same folder", format!("`{}`", file.file));
            }
            let place = folder.join(&file.file);
            let Ok(bytes) = fs::read(&place) else { return refused(&place, "a file", "none".to_owned()) };
            let found = sha256(&bytes);
            if found != file.sha256 {
                return refused(&place, &format!("sha256 {}", file.sha256), format!("sha256 {found}"));
            }
        }
        Ok(Self { folder: folder.to_owned(), manifest })
    }

    /// Reads the manifest of `folder` alone.
    ///
    /// # Errors
    /// [`Error::Package`] for a folder without a manifest, or with one of another version.
    pub fn manifest(folder: &Path) -> Result<Manifest> {
        let path = folder.join("manifest.json");
        let Ok(text) = fs::read(&path) else { return refused(folder, "a file `manifest.json`", "none".to_owned()) };
        let manifest: Manifest = match serde_json::from_slice(&text) {
            Ok(manifest) => manifest,
            Err(error) => return refused(&path, "the manifest of an export", error.to_string()),
        };
        if manifest.schema != SCHEMA {
            let found = format!("version {}", manifest.schema);
            return refused(&path, &format!("version {SCHEMA} of the manifest"), found);
        }
        Ok(manifest)
    }

    /// Sees that the graphs are those of an entry and a checkpoint, by their hashes.
    ///
    /// # Errors
    /// [`Error::Package`] where they are of others.
    pub fn check(&self, config_sha256: &str, checkpoint_sha256: &str) -> Result<()> {
        let hint = "export the graphs of this entry and checkpoint, or name theirs";
        let pairs = [
            ("configuration", config_sha256, &self.manifest.config_sha256),
            ("checkpoint", checkpoint_sha256, &self.manifest.checkpoint_sha256),
        ];
        for (what, wanted, own) in pairs {
            if wanted != own {
                return Err(Error::Package {
                    path: self.folder.clone(),
                    expected: format!("graphs of the {what} with sha256 {wanted}"),
                    found: format!("graphs of `{}`, {what} with sha256 {own}", self.manifest.entry),
                    hint,
                });
            }
        }
        Ok(())
    }
}

fn refused<T>(path: &Path, expected: &str, found: String) -> Result<T> {
    Err(Error::Package { path: path.to_owned(), expected: expected.to_owned(), found, hint: AGAIN })
}
