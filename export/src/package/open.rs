//! Reading and verifying a package.

use std::{
    path::{Path, PathBuf},
    rc::Rc,
};

use fs_err as fs;
use laps_align::similarity::{AggregationWeights, AlignmentConfig};
use laps_files::{ExpectedDigest, digest_file, is_file_name};
use laps_hub::checkpoint::Checkpoint;
use laps_model::{array::Array, heads::HeadSizes, params::Parameter};

use super::{
    FileEntry, HeadFile, PackageManifest,
    alignment::ALIGNMENT_FILE,
    manifest::{MANIFEST_FILE, SCHEMA},
};
use crate::{Error, Result, graph::GraphKind};

const EXPORT_HINT: &str = "export the entry to ONNX again";

/// A folder of graphs whose files match its manifest.
#[derive(Clone, Debug)]
pub struct Package {
    /// Folder.
    pub folder: PathBuf,
    /// Manifest.
    pub manifest: PackageManifest,
}

impl Package {
    /// Reads the manifest of `folder` and verifies the hashes of all files that it names.
    ///
    /// # Errors
    /// [`Error::Package`] for a folder without a manifest, a manifest of another schema, or a missing or changed file.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(MANIFEST_FILE);
        let manifest = Self::read_manifest(folder)?;
        let mut files: Vec<FileEntry> = vec![manifest.golden.clone()];
        files.extend(manifest.alignment.iter().map(|alignment| alignment.file.clone()));
        files.extend(manifest.head_file.iter().filter_map(|head| head.parameters.clone()));
        files.extend(manifest.vocabulary.clone());
        files.extend(manifest.tokenizer_config.clone());
        for kind in GraphKind::ALL {
            match manifest.graphs.get(kind.name()) {
                Some(graph) if graph.file.file == kind.file() => files.push(graph.file.clone()),
                _ => return refused(&path, &format!("a graph `{kind}` in `{}`", kind.file()), "none".to_owned()),
            }
        }
        for file in files {
            // A manifest comes from outside; it must not name files of other folders.
            if !is_file_name(&file.file) {
                return refused(&path, "names of files in the same folder", format!("`{}`", file.file));
            }
            let path = folder.join(&file.file);
            let Ok(digest) = digest_file(&path, &ExpectedDigest::default()) else {
                return refused(&path, "a file", "none".to_owned());
            };
            if digest.sha256 != file.sha256 {
                return refused(&path, &format!("sha256 {}", file.sha256), format!("sha256 {}", digest.sha256));
            }
        }
        Ok(Self { folder: folder.to_owned(), manifest })
    }

    /// Reads the manifest of `folder` without verifying the files.
    ///
    /// # Errors
    /// [`Error::Package`] for a folder without a manifest, or a manifest of another schema.
    pub fn read_manifest(folder: &Path) -> Result<PackageManifest> {
        let path = folder.join(MANIFEST_FILE);
        let Ok(text) = fs::read(&path) else {
            return refused(folder, &format!("a file `{MANIFEST_FILE}`"), "none".to_owned());
        };
        let manifest: PackageManifest = match serde_json::from_slice(laps_files::strip_mark_bytes(&text)) {
            Ok(manifest) => manifest,
            Err(error) => return refused(&path, "the manifest of an export", error.to_string()),
        };
        if manifest.schema != SCHEMA {
            let found = format!("version {}", manifest.schema);
            return refused(&path, &format!("version {SCHEMA} of the manifest"), found);
        }
        Ok(manifest)
    }

    /// Verifies that the graphs are of an entry and a checkpoint with these hashes.
    ///
    /// # Errors
    /// [`Error::Package`] if they are of others.
    pub fn check(&self, config_sha256: &str, checkpoint_sha256: &str) -> Result<()> {
        let hint = "export the graphs of this entry and checkpoint, or use the entry and checkpoint of the graphs";
        let hashes = [
            ("configuration", config_sha256, &self.manifest.config_sha256),
            ("checkpoint", checkpoint_sha256, &self.manifest.checkpoint_sha256),
        ];
        for (what, expected, found) in hashes {
            if expected != found {
                return Err(Error::Package {
                    path: self.folder.clone(),
                    expected: format!("graphs of the {what} with sha256 {expected}"),
                    found: format!("graphs of `{}`, {what} with sha256 {found}", self.manifest.entry),
                    hint,
                });
            }
        }
        Ok(())
    }

    /// Sizes and parameters of the alignment.
    ///
    /// # Errors
    /// [`Error::Package`] for a package without them.
    pub fn alignment(&self) -> Result<(AlignmentConfig, AggregationWeights)> {
        let Some(alignment) = &self.manifest.alignment else {
            return refused(&self.folder, &format!("a file `{ALIGNMENT_FILE}`"), "none".to_owned());
        };
        let checkpoint = Checkpoint::open(self.folder.join(&alignment.file.file)).map_err(laps_hub::Error::from)?;
        Ok((alignment.sizes, AggregationWeights::load(|name| Ok(checkpoint.read(name)?))?))
    }

    /// Sizes of the embeddings that the encoders of a head other than LAPS's compute, and its parameters by name.
    ///
    /// # Errors
    /// [`Error::Package`] for a package without them.
    pub fn head(&self) -> Result<(HeadSizes, impl Fn(&Parameter) -> laps_model::Result<Array> + Clone + 'static)> {
        let Some(HeadFile { sizes, parameters, .. }) = &self.manifest.head_file else {
            return refused(&self.folder, "sizes of the head", "none".to_owned());
        };
        if sizes.tokens == 0 || sizes.width == 0 || sizes.word_width == 0 {
            return refused(&self.folder, "sizes of the head above 0", format!("{sizes:?}"));
        }
        let open = |file: &FileEntry| Checkpoint::open(self.folder.join(&file.file)).map_err(laps_hub::Error::from);
        let checkpoint = parameters.as_ref().map(open).transpose()?.map(Rc::new);
        let read = move |parameter: &Parameter| match &checkpoint {
            Some(checkpoint) => Ok(checkpoint.read(&parameter.name)?),
            None => Err(laps_model::Error::Parameter {
                name: parameter.name.clone(),
                expected: "a parameter of the head".to_owned(),
                found: "none".to_owned(),
            }),
        };
        Ok((*sizes, read))
    }

    /// Sizes of the alignment that the head, an ablation of LAPS, changes.
    ///
    /// # Errors
    /// [`Error::Package`] for a package without them, or with those of other embeddings; [`Error::Align`] for sizes that no
    /// alignment has.
    pub fn ablated_alignment(&self) -> Result<AlignmentConfig> {
        let Some(HeadFile { sizes, alignment: Some(alignment), .. }) = &self.manifest.head_file else {
            return refused(&self.folder, "sizes of the alignment of the head", "none".to_owned());
        };
        alignment.check()?;
        let AlignmentConfig { has_class_token, width, .. } = *alignment;
        let of_alignment = HeadSizes { tokens: alignment.tokens(), has_class_token, width, word_width: width };
        if of_alignment != *sizes {
            return refused(&self.folder, &format!("an alignment of {sizes:?}"), format!("one of {of_alignment:?}"));
        }
        Ok(*alignment)
    }

    /// Path of the vocabulary, if the package has one.
    pub fn vocabulary(&self) -> Option<PathBuf> {
        self.manifest.vocabulary.as_ref().map(|vocabulary| self.folder.join(&vocabulary.file))
    }
}

fn refused<T>(path: &Path, expected: &str, found: String) -> Result<T> {
    Err(Error::Package { path: path.to_owned(), expected: expected.to_owned(), found, hint: EXPORT_HINT })
}
