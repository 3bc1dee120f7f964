//! What commands that may fetch share: how, and what they show of it.

use std::{
    collections::BTreeMap,
    io::IsTerminal,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::Result;
use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use laps_hub::{
    fetch::{Fetcher, Network, Pinning, Settings, Watch, missing_images, missing_texts},
    registry::Entry,
};

// A documentation comment here would become that of every command that has the option.
#[derive(Args, Clone, Copy)]
pub(crate) struct Access {
    /// Touch no network: use what was fetched, and say what is missing
    #[arg(long)]
    offline: bool,
}

/// A fetcher with the services and the cache that the environment names.
pub(crate) fn fetcher(access: Access, locked: bool) -> Result<Fetcher> {
    let network = if access.offline { Network::Offline } else { Network::Online };
    let pinning = if locked { Pinning::Locked } else { Pinning::OnFirstFetch };
    Ok(Fetcher::new(Settings::from_environment(network, pinning).map_err(laps::Error::from)?))
}

/// The published checkpoint of `entry`, ready to be used; None for an entry without one.
pub(crate) fn checkpoint(entry: &Entry, access: Access, quiet: bool) -> Result<Option<PathBuf>> {
    let is_published = entry.checkpoint_source()?.is_some_and(|source| source.gdrive_folder.is_some());
    if !is_published {
        return Ok(None);
    }
    let watch = watch(quiet);
    Ok(Some(fetcher(access, false)?.checkpoint(entry, watch.as_ref())?.path))
}

/// Fetches what is missing of the caption files of `splits` and of the vocabulary below `root`.
pub(crate) fn texts(entry: &Entry, root: Option<&Path>, splits: &[&str], access: Access, quiet: bool) -> Result<()> {
    let Some(root) = root else { return Ok(()) };
    let paths = entry.data_paths(Some(root))?;
    let Ok(store) = laps_hub::store::Store::from_environment() else { return Ok(()) };
    if missing_texts(&store, entry, (root, &paths), splits)?.is_empty() {
        return Ok(());
    }
    let watch = watch(quiet);
    fetcher(access, false)?.texts(entry, (root, &paths), splits, watch.as_ref())?;
    Ok(())
}

/// Fetches and unpacks the archives of images of `splits` that are missing below `root`.
pub(crate) fn images(entry: &Entry, root: Option<&Path>, splits: &[&str], access: Access, quiet: bool) -> Result<()> {
    let Some(root) = root else { return Ok(()) };
    let paths = entry.data_paths(Some(root))?;
    let Ok(store) = laps_hub::store::Store::from_environment() else { return Ok(()) };
    let missing = missing_images(&store, entry, (root, &paths), splits)?;
    if missing.is_empty() {
        return Ok(());
    }
    let (fetcher, watch) = (fetcher(access, false)?, watch(quiet));
    for archive in &missing {
        fetcher.images(archive, watch.as_ref())?;
    }
    Ok(())
}

/// The vocabulary of the published entries, in the cache.
pub(crate) fn vocabulary(access: Access, quiet: bool) -> Result<PathBuf> {
    let fetcher = fetcher(access, false)?;
    let item = fetcher.settings().store.vocabulary(None)?;
    let watch = watch(quiet);
    Ok(fetcher.fetch(&item, |_| Ok(()), watch.as_ref()).map_err(laps::Error::from)?.item.path)
}

/// The pretrained encoders of `entry`: of images where it is known which one, and of texts.
pub(crate) fn backbones(entry: &Entry, access: Access, quiet: bool) -> Result<(Option<PathBuf>, PathBuf)> {
    let watch = watch(quiet);
    Ok(fetcher(access, false)?.backbones(entry, watch.as_ref())?)
}

/// What fits: a bar for each file and one for all on a terminal, lines otherwise, nothing when `quiet`.
pub(crate) fn watch(quiet: bool) -> Box<dyn Watch> {
    match (quiet, std::io::stderr().is_terminal()) {
        (true, _) => Box::new(()),
        (false, true) => Box::new(Bars::new()),
        (false, false) => Box::new(Lines),
    }
}

/// A bar for each file, and one for all of them below.
struct Bars {
    all: MultiProgress,
    total: ProgressBar,
    files: Mutex<BTreeMap<String, ProgressBar>>,
}

impl Bars {
    fn new() -> Self {
        let all = MultiProgress::new();
        let total = all.add(ProgressBar::new(0).with_message("all files"));
        total.set_style(style());
        Self { all, total, files: Mutex::default() }
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<String, ProgressBar>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sum of all bars.
    fn sum(&self, files: &BTreeMap<String, ProgressBar>) {
        self.total.set_length(files.values().filter_map(ProgressBar::length).sum());
        self.total.set_position(files.values().map(ProgressBar::position).sum());
    }
}

impl Watch for Bars {
    fn begin(&self, file: &str, at: u64, total: Option<u64>) {
        let mut files = self.files();
        let bar = files.entry(file.to_owned()).or_insert_with(|| {
            let name = file.rsplit('/').next().unwrap_or(file).to_owned();
            let bar = self.all.insert_before(&self.total, ProgressBar::no_length().with_message(name));
            bar.set_style(style());
            bar
        });
        if let Some(total) = total {
            bar.set_length(total);
        }
        bar.set_position(at);
        bar.reset_eta();
        self.sum(&files);
    }

    fn advance(&self, file: &str, bytes: u64) {
        let files = self.files();
        files.get(file).iter().for_each(|bar| bar.inc(bytes));
        self.total.inc(bytes);
    }

    fn note(&self, file: &str, note: &str) {
        self.all.suspend(|| eprintln!("{file}: {note}"));
    }

    fn end(&self, file: &str, summary: &str) {
        if let Some(bar) = self.files().get(file) {
            bar.finish();
        }
        self.all.suspend(|| eprintln!("{file}: {summary}"));
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.files().values().for_each(ProgressBar::finish_and_clear);
        self.total.finish_and_clear();
    }
}

fn style() -> ProgressStyle {
    let template = "{msg:24} {wide_bar} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left";
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// A line when something happens to a file.
struct Lines;

impl Watch for Lines {
    fn begin(&self, file: &str, at: u64, total: Option<u64>) {
        let of = total.map_or_else(String::new, |total| format!(" of {total}"));
        eprintln!("{file}: from {at}{of} bytes");
    }

    fn note(&self, file: &str, note: &str) {
        eprintln!("{file}: {note}");
    }

    fn end(&self, file: &str, summary: &str) {
        eprintln!("{file}: {summary}");
    }
}
