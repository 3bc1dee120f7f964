//! Fetches the files that commands need.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use laps_hub::{
    fetch::{FetchSettings, Fetcher, Network, Pinning, missing_images, missing_texts},
    registry::{DataPaths, Entry},
    store::FileStore,
};

use crate::progress;

// Not a doc comment: clap would use it as the help text of every command with this option.
#[derive(Args, Clone, Copy)]
pub(crate) struct NetworkArgs {
    /// Do not use the network: fail if a file is not in the cache
    #[arg(long)]
    offline: bool,
}

impl NetworkArgs {
    /// Whether the network must not be used.
    pub(crate) fn is_offline(self) -> bool {
        self.offline
    }
}

/// A fetcher with the services and the cache folder of the environment. `locked` forbids new pins.
pub(crate) fn fetcher(access: NetworkArgs, locked: bool) -> Result<Fetcher> {
    let network = if access.offline { Network::Offline } else { Network::Online };
    let pinning = if locked { Pinning::Locked } else { Pinning::OnFirstFetch };
    Ok(Fetcher::new(FetchSettings::from_environment(network, pinning)?))
}

/// Fetches the published checkpoint of `entry`. Returns None for an entry without one.
pub(crate) fn checkpoint(entry: &Entry, access: NetworkArgs, quiet: bool) -> Result<Option<PathBuf>> {
    let is_published = entry.checkpoint_source()?.is_some_and(|source| source.url().is_some());
    if !is_published {
        return Ok(None);
    }
    let progress = progress::choose(quiet);
    Ok(Some(fetcher(access, false)?.checkpoint(entry, progress.as_ref())?.path))
}

/// The data folders below `root`, and the cache. Returns None without a root or a cache, where nothing is fetched.
fn data_folders<'a>(entry: &Entry, root: Option<&'a Path>) -> Result<Option<(&'a Path, DataPaths, FileStore)>> {
    let Some(root) = root else { return Ok(None) };
    let paths = entry.data_paths(Some(root))?;
    Ok(FileStore::from_environment().ok().map(|store| (root, paths, store)))
}

/// Fetches the missing caption files of `splits` and the vocabulary below `root`.
pub(crate) fn texts(
    entry: &Entry,
    root: Option<&Path>,
    splits: &[&str],
    access: NetworkArgs,
    quiet: bool,
) -> Result<()> {
    let Some((root, paths, store)) = data_folders(entry, root)? else { return Ok(()) };
    if missing_texts(&store, entry, (root, &paths), splits)?.is_empty() {
        return Ok(());
    }
    let progress = progress::choose(quiet);
    fetcher(access, false)?.texts(entry, (root, &paths), splits, progress.as_ref())?;
    Ok(())
}

/// Fetches and unpacks the missing image archives of `splits` below `root`.
pub(crate) fn images(
    entry: &Entry,
    root: Option<&Path>,
    splits: &[&str],
    access: NetworkArgs,
    quiet: bool,
) -> Result<()> {
    let Some((root, paths, store)) = data_folders(entry, root)? else { return Ok(()) };
    let missing = missing_images(&store, entry, (root, &paths), splits)?;
    if missing.is_empty() {
        return Ok(());
    }
    let (fetcher, progress) = (fetcher(access, false)?, progress::choose(quiet));
    for archive in &missing {
        fetcher.images(archive, progress.as_ref())?;
    }
    Ok(())
}

/// Fetches the vocabulary of a published entry into the cache.
pub(crate) fn vocabulary(entry: &Entry, access: NetworkArgs, quiet: bool) -> Result<PathBuf> {
    let fetcher = fetcher(access, false)?;
    let file = fetcher.settings().store.vocabulary(&entry.model, None)?;
    let progress = progress::choose(quiet);
    Ok(fetcher.fetch(&file, |_| Ok(()), progress.as_ref())?.file.path)
}

/// Fetches the human judgements of the COCO test split into the cache.
pub(crate) fn judgements(access: NetworkArgs, quiet: bool) -> Result<PathBuf> {
    let fetcher = fetcher(access, false)?;
    let file = fetcher.settings().store.judgements()?;
    let progress = progress::choose(quiet);
    Ok(fetcher.fetch(&file, |_| Ok(()), progress.as_ref())?.file.path)
}

/// Fetches the plausible matches of the COCO test split into the cache, and returns their folder.
pub(crate) fn plausible_matches(access: NetworkArgs, quiet: bool) -> Result<PathBuf> {
    let fetcher = fetcher(access, false)?;
    let files = fetcher.settings().store.plausible_matches()?;
    let progress = progress::choose(quiet);
    fetcher.fetch_all(&files, progress.as_ref()).into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(fetcher.settings().store.judgement_folder())
}

/// Fetches the pretrained image encoder, if known, and text encoder of `entry`.
pub(crate) fn backbones(entry: &Entry, access: NetworkArgs, quiet: bool) -> Result<(Option<PathBuf>, PathBuf)> {
    let progress = progress::choose(quiet);
    Ok(fetcher(access, false)?.backbones(entry, progress.as_ref())?)
}
