//! `laps-zoo data`

use std::{fmt::Write, num::NonZeroUsize, path::PathBuf};

use anyhow::Result;
use bench::machine::processors;
use clap::{Args, Subcommand, ValueEnum};
use zoo::{
    data::{SplitSurvey, survey},
    registry::{self, Entry, Manifest},
};

use crate::{
    progress,
    report::{Finding, print},
};

/// Fetch captions and images, or check what is there
#[derive(Args)]
pub(crate) struct Data {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    #[cfg(feature = "fetch")]
    Fetch(Fetch),
    Check(Check),
}

/// A data set.
#[derive(Clone, Copy, ValueEnum)]
enum Set {
    F30k,
    Coco,
}

impl Set {
    fn name(self) -> &'static str {
        match self {
            Self::F30k => "f30k",
            Self::Coco => "coco",
        }
    }

    /// An entry that has its folders.
    fn entry(self) -> Result<Entry> {
        Ok(registry::find(&format!("{}_vit", self.name()))?)
    }
}

/// Decode every image, and report what is missing, unreadable or unexpected
#[derive(Args)]
struct Check {
    /// The data set
    set: Set,
    /// Root of the caption and image folders
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Threads [default: one for each processor]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// No progress
    #[arg(long, short)]
    quiet: bool,
}

impl Data {
    pub(crate) fn run(self) -> Result<Finding> {
        match self.action {
            #[cfg(feature = "fetch")]
            Action::Fetch(fetch) => fetch.run(),
            Action::Check(check) => check.run(),
        }
    }
}

/// Most files of one kind that are listed; the rest is a number.
const LISTED: usize = 10;

impl Check {
    fn run(self) -> Result<Finding> {
        let paths = self.set.entry()?.data_paths(Some(&self.data))?;
        let known = Manifest::embedded()?.splits.remove(self.set.name()).unwrap_or_default();
        let threads = self.threads.map_or_else(processors, NonZeroUsize::get);
        let progress = progress::choose(self.quiet);
        progress.begin("check images", known.values().map(|size| size.images).sum());
        let survey = survey(&paths.captions, &paths.images, &known, threads, || progress.advance(1));
        let survey = survey.map_err(zoo::Error::from)?;
        progress.end("done");
        let mut text = String::new();
        survey.splits.iter().for_each(|split| describe(split, &mut text));
        survey.absent.iter().for_each(|name| text += &format!("{name}: not there\n"));
        list(&mut text, "unexpected", &survey.unexpected);
        print(&text)?;
        Ok(if survey.is_good() { Finding::Done } else { Finding::Failed })
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
    // Writing to a string can not fail.
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

/// Fetch the caption files and the vocabulary; images of COCO with --images
#[cfg(feature = "fetch")]
#[derive(Args)]
struct Fetch {
    /// The data set
    set: Set,
    /// Root of the caption and image folders; it is made if it is not there
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The images too: for COCO two archives of 13 and 6 GB
    #[arg(long)]
    images: bool,
    #[command(flatten)]
    access: crate::fetching::Access,
    /// No progress
    #[arg(long, short)]
    quiet: bool,
}

#[cfg(feature = "fetch")]
impl Fetch {
    fn run(self) -> Result<Finding> {
        use zoo::fetch::all;

        let paths = self.set.entry()?.data_paths(Some(&self.data))?;
        let fetcher = crate::fetching::fetcher(self.access, false)?;
        let store = &fetcher.settings().store;
        let watch = crate::fetching::watch(self.quiet);
        let mut items = store.captions(self.set.name(), &paths.captions)?;
        items.push(store.vocabulary(Some(&paths.vocab))?);
        let fetched = all(fetcher.fetch_all(&items, watch.as_ref()))?;
        let mut text = String::new();
        for one in &fetched {
            let _ = writeln!(text, "{}: verified {}", one.item.path.display(), one.pin.verified.describe());
        }
        let (archives, notes) = store.archives(self.set.name(), &paths.images)?;
        if self.images {
            for archive in &archives {
                let unpacked = fetcher.images(archive, watch.as_ref())?;
                let _ = writeln!(
                    text,
                    "{}: {} images, {} of them there before",
                    paths.images.display(),
                    unpacked.files,
                    unpacked.kept
                );
            }
        } else if !archives.is_empty() {
            text += "images: not fetched; `--images` fetches them\n";
        }
        if archives.is_empty() {
            let _ = writeln!(text, "images: put them into {}", paths.images.display());
            notes.iter().for_each(|note| text += &format!("  {note}\n"));
        }
        drop(watch);
        print(&text)?;
        Ok(Finding::Done)
    }
}
