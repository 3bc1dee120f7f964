//! `laps-zoo data`

use std::{fmt::Write, num::NonZeroUsize, path::PathBuf};

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use laps_bench::{machine::processors, progress::StageProgress};
use laps_data::{SplitSurvey, survey};
use laps_files::Progress;
use laps_hub::{
    fetch::{FetchedFile, Fetcher},
    registry::{self, Entry, Manifest},
};

use crate::{
    progress,
    report::{CommandStatus, print},
};

/// Download captions and images, or check a data set
#[derive(Args)]
pub(crate) struct DataArgs {
    #[command(subcommand)]
    action: DataAction,
}

#[derive(Subcommand)]
enum DataAction {
    Fetch(DataFetchArgs),
    Check(DataCheckArgs),
}

/// A published data set.
#[derive(Clone, Copy, ValueEnum)]
enum DatasetName {
    F30k,
    Coco,
}

/// A data set, or human judgements of one, to download.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FetchName {
    F30k,
    Coco,
    /// ECCV Caption
    Eccv,
    /// Crisscrossed Captions
    Cxc,
}

impl FetchName {
    /// The data set; `None` for judgements, which are stored in the cache.
    fn set(self) -> Option<DatasetName> {
        match self {
            Self::F30k => Some(DatasetName::F30k),
            Self::Coco => Some(DatasetName::Coco),
            Self::Eccv | Self::Cxc => None,
        }
    }
}

impl DatasetName {
    fn name(self) -> &'static str {
        match self {
            Self::F30k => "f30k",
            Self::Coco => "coco",
        }
    }

    /// An entry that uses this data set, for its folder names.
    fn entry(self) -> Result<Entry> {
        Ok(registry::find(&format!("{}_vit", self.name()))?)
    }
}

/// Decode every image, and report missing, unreadable or unexpected files
#[derive(Args)]
struct DataCheckArgs {
    /// Data set
    set: DatasetName,
    /// Root of the caption and image folders
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Number of threads [default: one per CPU]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Hide progress output
    #[arg(long, short)]
    quiet: bool,
}

impl DataArgs {
    pub(crate) fn run(self) -> Result<CommandStatus> {
        match self.action {
            DataAction::Fetch(fetch) => fetch.run(),
            DataAction::Check(check) => check.run(),
        }
    }
}

/// Maximum number of files listed per problem; the rest is counted.
const LISTED: usize = 10;

impl DataCheckArgs {
    fn run(self) -> Result<CommandStatus> {
        let paths = self.set.entry()?.existing_data_paths(Some(&self.data)).map_err(laps::Error::from)?;
        let known = Manifest::embedded()?.splits.remove(self.set.name()).unwrap_or_default();
        let threads = self.threads.map_or_else(processors, NonZeroUsize::get);
        let progress = progress::choose(self.quiet);
        let stage =
            StageProgress::begin(progress.as_ref(), "check images", known.values().map(|size| size.images).sum());
        let survey = survey(&paths.captions, &paths.images, &known, threads, || stage.advance(1));
        let survey = survey.map_err(laps::Error::from)?;
        stage.end("done");
        let mut text = String::new();
        survey.splits.iter().for_each(|split| describe(split, &mut text));
        survey.absent.iter().for_each(|name| text += &format!("{name}: not found\n"));
        list(&mut text, "unexpected", &survey.unexpected);
        list(&mut text, "folders that cannot be read", &reasoned(&survey.unreadable_folders));
        print(&text)?;
        Ok(if survey.is_good() { CommandStatus::Success } else { CommandStatus::CheckFailed })
    }
}

fn describe(split: &SplitSurvey, text: &mut String) {
    let known = match split.known {
        Some(known) if (known.images, known.captions) != (split.images, split.captions) => {
            format!(", expected {} and {}", known.images, known.captions)
        }
        Some(_) => ", as expected".to_owned(),
        None => String::new(),
    };
    // Writing to a string cannot fail.
    if let Some(fault) = &split.fault {
        let _ = writeln!(text, "{}: {fault}", split.name);
        return;
    }
    let _ = writeln!(text, "{}: {} images, {} captions{known}", split.name, split.images, split.captions);
    if let Some(sha256) = &split.sha256 {
        let _ = writeln!(text, "  data sha256 {sha256}");
    }
    list(text, "missing", &split.missing);
    list(text, "unreadable", &reasoned(&split.unreadable));
    list(text, "damaged, decoded in part", &reasoned(&split.damaged));
}

fn reasoned(files: &[(String, String)]) -> Vec<String> {
    files.iter().map(|(name, reason)| format!("{name}: {reason}")).collect()
}

fn list(text: &mut String, title: &str, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(text, "  {title}: {}", lines.len());
    for line in lines.iter().take(LISTED) {
        let _ = writeln!(text, "    {line}");
    }
    if lines.len() > LISTED {
        let _ = writeln!(text, "    and {} more", lines.len() - LISTED);
    }
}

/// Download the caption files and the vocabulary, with --images the images of COCO, or human judgements of COCO
#[derive(Args)]
struct DataFetchArgs {
    /// Data sets; the judgements eccv and cxc are one file in the cache
    #[arg(required = true, value_name = "SET")]
    sets: Vec<FetchName>,
    /// Root of the caption and image folders of f30k and coco; created if missing
    #[arg(long, value_name = "DIR", required_if_eq_any = [("sets", "f30k"), ("sets", "coco")])]
    data: Option<PathBuf>,
    /// Also download the images (COCO: two archives of 13 and 6 GB)
    #[arg(long)]
    images: bool,
    #[command(flatten)]
    access: crate::fetching::Access,
    /// Hide progress output
    #[arg(long, short)]
    quiet: bool,
}

impl DataFetchArgs {
    fn run(self) -> Result<CommandStatus> {
        let fetcher = crate::fetching::fetcher(self.access, false)?;
        let progress = progress::choose(self.quiet);
        let mut text = String::new();
        for set in self.sets.iter().filter_map(|name| name.set()) {
            self.fetch_set(set, &fetcher, progress.as_ref(), &mut text)?;
        }
        if self.sets.iter().any(|name| name.set().is_none()) {
            let file = fetcher.settings().store.judgements().map_err(laps::Error::from)?;
            let fetched = fetcher.fetch(&file, |_| Ok(()), progress.as_ref()).map_err(laps::Error::from)?;
            verified(&fetched, &mut text);
        }
        drop(progress);
        print(&text)?;
        Ok(CommandStatus::Success)
    }

    fn fetch_set(&self, set: DatasetName, fetcher: &Fetcher, progress: &dyn Progress, text: &mut String) -> Result<()> {
        let store = &fetcher.settings().store;
        let entry = set.entry()?;
        let paths = entry.data_paths(self.data.as_deref())?;
        let mut items = store.captions(set.name(), &paths.captions)?;
        items.push(store.vocabulary(&entry.model, Some(&paths.vocab))?);
        let outcomes = fetcher.fetch_all(&items, progress);
        let fetched = outcomes.into_iter().collect::<Result<Vec<_>, _>>().map_err(laps::Error::from)?;
        fetched.iter().for_each(|one| verified(one, text));
        let (archives, notes) = store.archives(set.name(), &paths.images)?;
        if self.images {
            for archive in &archives {
                let unpacked = fetcher.images(archive, progress).map_err(laps::Error::from)?;
                let _ = writeln!(
                    text,
                    "{}: {} images, {} of them already present",
                    paths.images.display(),
                    unpacked.files,
                    unpacked.existing
                );
            }
        } else if !archives.is_empty() {
            *text += "images: not downloaded; pass `--images` to download them\n";
        }
        if archives.is_empty() {
            let _ = writeln!(text, "images: put them into {}", paths.images.display());
            notes.iter().for_each(|note| *text += &format!("  {note}\n"));
        }
        Ok(())
    }
}

fn verified(fetched: &FetchedFile, text: &mut String) {
    let _ = writeln!(text, "{}: verified {}", fetched.file.path.display(), fetched.pin.verified.describe());
}
