//! `laps-zoo data`

use std::{fmt::Write, num::NonZeroUsize, path::PathBuf};

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use laps_bench::{machine::processors, progress::StageProgress};
use laps_data::{SplitSurvey, survey};
use laps_hub::registry::{self, Entry, Manifest};

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
    let _ = writeln!(text, "{}: {} images, {} captions{known}", split.name, split.images, split.captions);
    if let Some(sha256) = &split.sha256 {
        let _ = writeln!(text, "  data sha256 {sha256}");
    }
    let reasoned = |files: &[(String, String)]| -> Vec<String> {
        files.iter().map(|(name, reason)| format!("{name}: {reason}")).collect()
    };
    list(text, "missing", &split.missing);
    list(text, "unreadable", &reasoned(&split.unreadable));
    list(text, "damaged, decoded in part", &reasoned(&split.damaged));
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

/// Download the caption files and the vocabulary, and with --images the images of COCO
#[derive(Args)]
struct DataFetchArgs {
    /// Data set
    set: DatasetName,
    /// Root of the caption and image folders; created if missing
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
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
        let paths = self.set.entry()?.data_paths(Some(&self.data))?;
        let fetcher = crate::fetching::fetcher(self.access, false)?;
        let store = &fetcher.settings().store;
        let progress = progress::choose(self.quiet);
        let mut items = store.captions(self.set.name(), &paths.captions)?;
        items.push(store.vocabulary(Some(&paths.vocab))?);
        let outcomes = fetcher.fetch_all(&items, progress.as_ref());
        let fetched = outcomes.into_iter().collect::<Result<Vec<_>, _>>().map_err(laps::Error::from)?;
        let mut text = String::new();
        for one in &fetched {
            let _ = writeln!(text, "{}: verified {}", one.file.path.display(), one.pin.verified.describe());
        }
        let (archives, notes) = store.archives(self.set.name(), &paths.images)?;
        if self.images {
            for archive in &archives {
                let unpacked = fetcher.images(archive, progress.as_ref()).map_err(laps::Error::from)?;
                let _ = writeln!(
                    text,
                    "{}: {} images, {} of them already present",
                    paths.images.display(),
                    unpacked.files,
                    unpacked.existing
                );
            }
        } else if !archives.is_empty() {
            text += "images: not downloaded; pass `--images` to download them\n";
        }
        if archives.is_empty() {
            let _ = writeln!(text, "images: put them into {}", paths.images.display());
            notes.iter().for_each(|note| text += &format!("  {note}\n"));
        }
        drop(progress);
        print(&text)?;
        Ok(CommandStatus::Success)
    }
}
