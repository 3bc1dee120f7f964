//! `laps-zoo data`

use std::{
    fmt::Write,
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use laps_bench::{machine::processors, progress::StageProgress};
use laps_data::{
    CaptionLimit, Split, SplitSize, SplitSurvey, SurveyedImage,
    sources::{DEFAULT_MAX_CAPTIONS, ImageTransfer, Source, SourceKind, import, same_size, traps},
    survey,
};
use laps_files::{Progress, TemporaryFolder, with_suffix};
use laps_hub::{
    fetch::{FetchedFile, Fetcher},
    registry::{self, Entry, Manifest},
};

use crate::{
    data_source::DataSource,
    progress,
    report::{CommandStatus, print},
};

/// Download, check or import a data set
#[derive(Args)]
pub(crate) struct DataArgs {
    #[command(subcommand)]
    action: DataAction,
}

#[derive(Subcommand)]
enum DataAction {
    Fetch(DataFetchArgs),
    Check(DataCheckArgs),
    Import(DataImportArgs),
}

/// A published data set.
#[derive(Clone, Copy, ValueEnum)]
enum DatasetName {
    F30k,
    Coco,
}

/// A data set, or judgements of one, to download.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FetchName {
    F30k,
    Coco,
    /// ECCV Caption
    Eccv,
    /// Crisscrossed Captions
    Cxc,
    /// Plausible matches
    Pmrp,
}

impl FetchName {
    /// The data set; `None` for judgements, which are stored in the cache.
    fn set(self) -> Option<DatasetName> {
        match self {
            Self::F30k => Some(DatasetName::F30k),
            Self::Coco => Some(DatasetName::Coco),
            Self::Eccv | Self::Cxc | Self::Pmrp => None,
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

/// Decode every image, and report missing, unreadable or unexpected files, known splits and known traps
#[derive(Args)]
struct DataCheckArgs {
    /// Data set: f30k, coco, or an entry
    #[arg(value_name = "SET")]
    set: String,
    /// Root of the caption and image folders [default: the folder of the entry file]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    source: DataSource,
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
            DataAction::Import(import) => import.run(),
        }
    }
}

/// Maximum number of unexpected files that are listed; the rest is counted.
const EXAMPLES: usize = 10;

impl DataCheckArgs {
    fn run(self) -> Result<CommandStatus> {
        let set = DatasetName::from_str(&self.set, false).ok();
        let entry = set.map_or_else(|| Ok(registry::find(&self.set)?), DatasetName::entry)?;
        let entry = self.source.apply(entry)?;
        let (paths, imported) = laps::embedded::source_paths(&entry, self.data.as_deref())?;
        let manifest = Manifest::embedded()?;
        let known = set.and_then(|set| manifest.splits.get(set.name()).cloned()).unwrap_or_default();
        let tokenizer = match paths.vocab.is_file() {
            true => Some(entry.tokenizer(&paths).map_err(laps::Error::from)?),
            false => None,
        };
        let max_tokens = entry.model.text.max_position_embeddings;
        let limit = tokenizer.as_ref().map(|tokenizer| CaptionLimit { tokenizer, max_tokens });
        let threads = self.threads.map_or_else(processors, NonZeroUsize::get);
        let progress = progress::choose(self.quiet);
        let stage =
            StageProgress::begin(progress.as_ref(), "check images", known.values().map(|size| size.images).sum());
        let survey = survey(&paths.captions, &paths.images, &known, limit, threads, || stage.advance(1));
        let survey = survey.map_err(laps::Error::from)?;
        stage.end("done");
        let known_ids = manifest.known_ids();
        let mut text = String::new();
        imported.iter().flat_map(|imported| &imported.notes).for_each(|note| text += &format!("note: {note}\n"));
        for split in &survey.splits {
            let size = SplitSize { images: split.images, captions: split.captions };
            describe(split, same_size(size, &manifest.splits), &mut text);
            if let Ok(split) = Split::open(&paths.captions, &split.name) {
                traps(&split, &known_ids).iter().for_each(|note| text += &format!("  note: {note}\n"));
            }
        }
        survey.absent.iter().for_each(|name| text += &format!("{name}: not found\n"));
        let unreadable =
            survey.unreadable_folders.iter().map(|(name, reason)| format!("{name}: {reason}")).collect::<Vec<_>>();
        list(&mut text, "unexpected", &survey.unexpected, EXAMPLES);
        list(&mut text, "folders that cannot be read", &unreadable, usize::MAX);
        if tokenizer.is_none() {
            let _ = writeln!(
                text,
                "vocabulary: not found: `{}`; the lengths of captions were not checked",
                paths.vocab.display()
            );
        }
        print(&text)?;
        Ok(if survey.is_good() && tokenizer.is_some() { CommandStatus::Success } else { CommandStatus::CheckFailed })
    }
}

/// `same_size` are the published splits of the same size.
fn describe(split: &SplitSurvey, same_size: Option<String>, text: &mut String) {
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
    same_size.iter().for_each(|note| *text += &format!("  note: {note}\n"));
    if let Some(sha256) = &split.sha256 {
        let _ = writeln!(text, "  data sha256 {sha256}");
    }
    let captions = split.unusable_captions.iter().map(|fault| fault.to_string()).collect::<Vec<_>>();
    list(text, "unusable captions", &captions, usize::MAX);
    let missing = split.missing.iter().map(image_location).collect::<Vec<_>>();
    list(text, "missing", &missing, usize::MAX);
    list(text, "unreadable", &reasoned(&split.unreadable), usize::MAX);
    list(text, "damaged, decoded in part", &reasoned(&split.damaged), usize::MAX);
}

fn reasoned(images: &[SurveyedImage]) -> Vec<String> {
    images.iter().map(|image| format!("{}: {}", image_location(image), image.reason)).collect()
}

/// An image and where it is named.
fn image_location(image: &SurveyedImage) -> String {
    let file = image.line.file.as_deref().and_then(Path::file_name).unwrap_or_default();
    format!("{} (line {} of `{}`)", image.name, image.line.line, file.display())
}

fn list(text: &mut String, title: &str, lines: &[String], limit: usize) {
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(text, "  {title}: {}", lines.len());
    for line in lines.iter().take(limit) {
        let _ = writeln!(text, "    {line}");
    }
    if lines.len() > limit {
        let _ = writeln!(text, "    and {} more", lines.len() - limit);
    }
}

/// Write the layout of LAPS from a data set in another layout, which is not modified
#[derive(Args)]
struct DataImportArgs {
    /// Layout: karpathy, coco, parquet, kaggle, webdataset, folder, docci, dci, urban1k or sharegpt4v
    #[arg(value_name = "LAYOUT")]
    kind: SourceKind,
    /// Root of the data set, or its one file
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    /// Path or glob of its files, relative to --data; repeatable [default: the usual names]
    #[arg(long = "file", value_name = "PATH")]
    files: Vec<String>,
    /// Folder of its images, relative to --data [default: a usual name]
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// List of splits, relative to --data: Karpathy's JSON, or a folder of SPLIT.txt with one id or file name per line
    #[arg(long, value_name = "PATH")]
    splits: Option<PathBuf>,
    /// Captions of an image to use
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_CAPTIONS)]
    max_captions: NonZeroUsize,
    /// Link images instead of copying them
    #[arg(long)]
    link: bool,
    /// Folder to write; it must not exist
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl DataImportArgs {
    fn run(self) -> Result<CommandStatus> {
        if self.kind.is_native() || self.out.exists() {
            let (argument, expected, found) = match self.kind.is_native() {
                true => ("LAYOUT", "a layout other than that of LAPS".to_owned(), self.kind.to_string()),
                false => ("--out", "a folder that does not exist".to_owned(), self.out.display().to_string()),
            };
            return Err(laps_bench::Error::Argument { argument, expected, found: format!("`{found}`") }.into());
        }
        let source = Source::below(self.kind, &self.data, &self.files, self.images.as_deref(), self.splits.as_deref());
        let mut source = source.map_err(laps::Error::from)?;
        source.max_captions = self.max_captions;
        let part = with_suffix(&self.out, ".part");
        if part.exists() {
            // A killed import left it.
            fs_err::remove_dir_all(&part)?;
        }
        let draft = TemporaryFolder::claim(part);
        let transfer = if self.link { ImageTransfer::Link } else { ImageTransfer::Copy };
        let imported = import(&source, draft.path(), transfer).map_err(laps::Error::from)?;
        fs_err::rename(draft.path(), &self.out)?;
        draft.keep();
        let mut text = String::new();
        for (name, size) in &imported.splits {
            let _ = writeln!(text, "{name}: {} images, {} captions", size.images, size.captions);
        }
        imported.notes.iter().for_each(|note| text += &format!("note: {note}\n"));
        let _ = writeln!(text, "captions and images are in `{}`", self.out.display());
        print(&text)?;
        Ok(CommandStatus::Success)
    }
}

/// Download the caption files and the vocabulary, with --images the images of COCO, or judgements of COCO
#[derive(Args)]
struct DataFetchArgs {
    /// Data sets; the judgements eccv, cxc and pmrp are stored in the cache
    #[arg(required = true, value_name = "SET")]
    sets: Vec<FetchName>,
    /// Root of the caption and image folders of f30k and coco; created if missing
    #[arg(long, value_name = "DIR", required_if_eq_any = [("sets", "f30k"), ("sets", "coco")])]
    data: Option<PathBuf>,
    /// Also download the images (COCO: two archives of 13 and 6 GB)
    #[arg(long)]
    images: bool,
    #[command(flatten)]
    access: crate::fetching::NetworkArgs,
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
        let store = &fetcher.settings().store;
        let mut judgements = Vec::new();
        if self.sets.iter().any(|name| name.set().is_none()) {
            // The ids of the split, which all judgements need, are in the same file.
            judgements.push(store.judgements().map_err(laps::Error::from)?);
        }
        if self.sets.contains(&FetchName::Pmrp) {
            judgements.extend(store.plausible_matches().map_err(laps::Error::from)?);
        }
        for outcome in fetcher.fetch_all(&judgements, progress.as_ref()) {
            verified(&outcome.map_err(laps::Error::from)?, &mut text);
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
