//! `laps-zoo cache`

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Args, Subcommand};
use laps_files::{IoError, cache::FEATURES, safe_relative_path};
use laps_hub::store::{FileStore, Pins, PrunedFile, prune};
use laps_onnx::package::{CachedGraphs, GraphCache};

use crate::report::{CommandStatus, print};

/// Inspect or clean the cache of downloaded files
#[derive(Args)]
pub(crate) struct CacheArgs {
    #[command(subcommand)]
    action: CacheAction,
}

#[derive(Subcommand)]
enum CacheAction {
    /// Print the path of the cache folder
    Path,
    /// List pinned files with size and hash, and whether they are in the cache; optimised ONNX Runtime graphs; and features
    /// of frozen backbones
    List,
    /// Delete interrupted and rejected downloads, and original checkpoints that were converted
    Prune {
        /// Also delete all optimised ONNX Runtime graphs, which are made again when they are needed
        #[arg(long)]
        graphs: bool,
        /// Also delete all features of frozen backbones, which training computes again when it needs them
        #[arg(long)]
        features: bool,
    },
}

impl CacheArgs {
    pub(crate) fn run(self) -> Result<CommandStatus> {
        let store = FileStore::from_environment()?;
        let graph_cache = GraphCache::new(&store.root);
        match self.action {
            CacheAction::Path => print(&format!("{}\n", store.root.display()))?,
            CacheAction::List => {
                let mut text = String::new();
                for (key, pin) in Pins::open(&store.pins)?.iter() {
                    let is_cached = safe_relative_path(key).is_some_and(|relative| store.root.join(relative).is_file());
                    let (bytes, sha256) = (pin.bytes, &pin.sha256[..12]);
                    let state = if is_cached { "in the cache" } else { "not in the cache" };
                    let verified = pin.verified.describe();
                    text += &format!("{key}: {bytes} bytes, sha256 {sha256}, verified {verified}, {state}\n");
                }
                for CachedGraphs { folder, manifest, bytes } in graph_cache.list() {
                    let (path, graphs) = (relative(&folder, &store), manifest.description());
                    text += &format!("{path}: {bytes} bytes, optimised graphs of {}: {graphs}\n", manifest.entry);
                }
                for (folder, bytes) in cached_features(&store.root)? {
                    text += &format!("{}: {bytes} bytes, features of frozen backbones\n", relative(&folder, &store));
                }
                if text.is_empty() {
                    text = "the cache is empty\n".to_owned();
                }
                print(&text)?;
            }
            CacheAction::Prune { graphs, features } => {
                let mut text = String::new();
                for PrunedFile { path, bytes, reason } in prune(&store)? {
                    text += &format!("deleted {} ({bytes} bytes): {reason}\n", relative(&path, &store));
                }
                if graphs {
                    let failed = |source| IoError::new("remove the graphs in", &store.root, source);
                    for (folder, bytes) in graph_cache.clear().map_err(failed)? {
                        let path = relative(&folder, &store);
                        text += &format!("deleted {path} ({bytes} bytes): optimised ONNX Runtime graphs\n");
                    }
                }
                if features {
                    for (folder, bytes) in cached_features(&store.root)? {
                        fs_err::remove_dir_all(&folder)?;
                        let path = relative(&folder, &store);
                        text += &format!("deleted {path} ({bytes} bytes): features of frozen backbones\n");
                    }
                }
                print(if text.is_empty() { "nothing to delete\n" } else { &text })?;
            }
        }
        Ok(CommandStatus::Success)
    }
}

/// The folders with features of frozen backbones, sorted by name, and their sizes.
fn cached_features(root: &Path) -> std::io::Result<Vec<(PathBuf, u64)>> {
    let mut folders = Vec::new();
    if !root.is_dir() {
        return Ok(folders);
    }
    for entry in fs_err::read_dir(root)? {
        let folder = entry?.path();
        let is_cached = folder.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(FEATURES.as_bytes()));
        if is_cached && folder.is_dir() {
            let mut bytes = 0;
            for file in fs_err::read_dir(&folder)? {
                bytes += file?.metadata()?.len();
            }
            folders.push((folder, bytes));
        }
    }
    folders.sort();
    Ok(folders)
}

fn relative(path: &Path, store: &FileStore) -> String {
    path.strip_prefix(&store.root).unwrap_or(path).display().to_string()
}
