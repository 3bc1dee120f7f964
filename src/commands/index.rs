//! `laps-zoo index`

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use anyhow::Result;
use clap::{ArgGroup, Args};
use laps::{Backends, EngineUsed, Model, ProcessGroup, Workload};
use laps_bench::{files::check_writable, progress::StageProgress, suite::ShardSpec};
use laps_files::{OutputFile, Progress, ProgressUnit, path_to_text};
use laps_postgres::{Collection, DatabaseAddress, LoadSummary, Metadata, MissingItems, read_metadata};
use laps_search::{
    CaptionLine, DamagedImage, EmbeddingPipeline, Exclusions, ImageFolder, IndexDescription, IndexKind, IndexPrecision,
    IndexSummary, ModelUsed, SearchError, SearchEvaluation, Searcher, ShardedIndex, SkippedItem, Store, absolute,
    caption_lines, evaluate, index_captions, index_images,
};
use serde::Serialize;

use crate::{
    distributed, index_transfer,
    model::{ModelOptions, summary_line, truncated},
    open_store::database_address,
    ranking::{plain, table},
    report::{CommandStatus, print},
};

/// Maximum number of skipped items and of damaged images listed as text; the rest is counted. JSON lists all of them.
const LISTED: usize = 10;

/// Create or update a search index of images or captions
#[derive(Args)]
#[command(group = ArgGroup::new("input").required(true).args(["folder", "captions"]))]
pub(crate) struct IndexArgs {
    /// Folder of images, searched recursively; an index file to copy into --store, or
    /// `postgres://USER@HOST/DATABASE?collection=NAME` to copy into --out
    #[arg(value_name = "SOURCE")]
    folder: Option<PathBuf>,
    /// Index the captions of this file, one per line, instead of images
    #[arg(long, value_name = "FILE")]
    captions: Option<PathBuf>,
    /// Leave out files and folders that match this glob (`*.png`, `thumbnails`, `2019/**/raw`); repeatable
    #[arg(long, value_name = "GLOB", conflicts_with = "captions")]
    exclude: Vec<String>,
    /// Rotate images by their EXIF orientation, unlike the authors' code; an index keeps this setting when it is updated
    #[arg(long, conflicts_with = "captions")]
    exif_orientation: bool,
    /// Index file, or with --shard-size a folder; if it exists, unchanged images are not encoded again [default: NAME.index]
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
    /// Write shards of N images, which are searched as one index when all of them are written; rerun the command to resume
    #[arg(long, value_name = "N", conflicts_with_all = ["captions", "store"])]
    shard_size: Option<NonZeroUsize>,
    /// Write only every N-th shard from number I, for job arrays [default: the shards of the rank of a distributed run,
    /// otherwise all]
    #[arg(long, value_name = "I/N", requires = "shard_size", conflicts_with = "evaluate")]
    shard: Option<ShardSpec>,
    /// Write to a collection in a Postgres database with pgvector instead of a file:
    /// `postgres://USER@HOST/DATABASE?collection=NAME`; PGPASSWORD is the password
    #[arg(long, value_name = "ADDRESS", conflicts_with = "out")]
    store: Option<PathBuf>,
    /// Delete what is not in the folder or file any more from --store
    #[arg(long, requires = "store")]
    prune: bool,
    /// Metadata of the items in --store, for `search --where`: JSON objects, one per line, each with the `name` of an item
    #[arg(long, value_name = "FILE", requires = "store")]
    metadata: Option<PathBuf>,
    /// Precision of the stored embeddings: fp16 or fp32
    #[arg(long, default_value = "fp16")]
    precision: String,
    /// Measure how many of the best results a search finds, by number of candidates
    #[arg(long)]
    evaluate: bool,
    /// Queries for --evaluate: a file of captions, one per line, or for an index of captions a folder of images [default:
    /// the text file next to each image, `a.txt` for `a.jpg`]
    #[arg(long, value_name = "PATH", requires = "evaluate")]
    queries: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelOptions,
}

/// The output of `--json`.
#[derive(Serialize)]
struct IndexOutput<'a> {
    schema: u32,
    index: String,
    kind: IndexKind,
    model: &'a ModelUsed,
    engine: &'a EngineUsed,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated_captions: Option<usize>,
    precision: IndexPrecision,
    /// Those of this process, if it writes some of the shards.
    #[serde(flatten)]
    summary: &'a IndexSummary,
    #[serde(flatten)]
    shards: Option<&'a ShardProgress>,
    /// Items that were deleted from a database.
    #[serde(skip_serializing_if = "Option::is_none")]
    removed: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    evaluation: Option<&'a SearchEvaluation>,
    /// Queries of the evaluation that cannot be used.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    skipped_queries: &'a [SkippedItem],
}

/// How many shards of an index are written.
#[derive(Serialize)]
struct ShardProgress {
    /// Shards of the index.
    shards: usize,
    /// Shards of other processes that are not finished.
    waiting: usize,
}

/// The kind of items in an index.
enum IndexInput {
    Images(ImageFolder),
    Captions { captions: Vec<CaptionLine>, file: PathBuf },
}

impl IndexInput {
    fn kind(&self) -> IndexKind {
        match self {
            Self::Images(_) => IndexKind::Images,
            Self::Captions { .. } => IndexKind::Captions,
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Images(folder) => folder.images.len(),
            Self::Captions { captions, .. } => captions.len(),
        }
    }
}

impl IndexArgs {
    /// Whether the request can only be met with libtorch.
    pub(crate) fn needs_libtorch(&self) -> bool {
        self.model.needs_libtorch()
    }

    /// Copies between an index file and a database, if the arguments say so; returns whether they do.
    fn transfer(&self, source: &Path, store: Option<&DatabaseAddress>, metadata: &Metadata) -> Result<bool> {
        let (json, quiet) = (self.json, self.model.quiet);
        let argument = |argument, expected: &str, found: &str| laps_bench::Error::Argument {
            argument,
            expected: expected.to_owned(),
            found: found.to_owned(),
        };
        if self.captions.is_some() {
            return Ok(false);
        }
        let database = database_address(source)?;
        let is_index = || source.is_file() || ShardedIndex::exists(source);
        let is_copy = database.is_some() || (store.is_some() && is_index());
        let refused =
            [("--evaluate", self.evaluate), ("--prune", self.prune), ("--shard-size", self.shard_size.is_some())];
        for (name, given) in refused {
            if is_copy && given {
                return Err(argument(name, "a folder or captions", "a copy of an index").into());
            }
        }
        match (database, store, &self.out) {
            (Some(_), Some(_), _) => {
                Err(argument("--store", "an index file or a folder to store", "a database as the source").into())
            }
            (Some(_), None, None) => Err(argument("--out", "the index file to copy the database into", "none").into()),
            (Some(address), None, Some(out)) => {
                check_writable(out)?;
                index_transfer::export(address, out, json, quiet)?;
                Ok(true)
            }
            (None, Some(address), _) if is_copy => {
                index_transfer::import(source, address.clone(), metadata, json, quiet)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// The shards of this process, and their size; None for an index in one file.
    fn sharding(&self) -> Result<Option<(NonZeroUsize, ShardSpec)>> {
        let group = ProcessGroup::from_environment()?.filter(ProcessGroup::is_distributed);
        let refused = |argument, expected: &str, found: String| {
            Err(laps_bench::Error::Argument { argument, expected: expected.to_owned(), found }.into())
        };
        match (self.shard_size, group) {
            (None, None) => Ok(None),
            (None, Some(group)) => {
                let expected = "a folder and a size, so that each process writes files of its own";
                refused("--shard-size", expected, format!("none, with WORLD_SIZE={}", group.world_size))
            }
            (Some(_), Some(group)) if self.evaluate => {
                refused("--evaluate", "one process", format!("WORLD_SIZE={}", group.world_size))
            }
            (Some(size), group) => {
                let of_rank = group.map_or(ShardSpec::ALL, |group| ShardSpec::of_rank(group.rank, group.world_size));
                Ok(Some((size, self.shard.unwrap_or(of_rank))))
            }
        }
    }

    pub(crate) fn run(self, backends: Backends) -> Result<CommandStatus> {
        let sharding = self.sharding()?;
        let precision = self.precision.parse::<IndexPrecision>().map_err(laps::Error::from)?;
        let exclusions = Exclusions::new(&self.exclude).map_err(laps::Error::from)?;
        let source = match (&self.folder, &self.captions) {
            (Some(source), _) | (None, Some(source)) => source,
            // clap requires one of them.
            (None, None) => return Ok(CommandStatus::Success),
        };
        let metadata = self.metadata.as_deref().map(read_metadata).transpose().map_err(laps::Error::from)?;
        let metadata = metadata.unwrap_or_default();
        let store = self.store.as_deref().map(store_address).transpose()?;
        if self.transfer(source, store.as_ref(), &metadata)? {
            return Ok(CommandStatus::Success);
        }
        let out = match &store {
            Some(address) => address.location().to_owned(),
            None => {
                let out = self.out.clone().unwrap_or_else(|| default_name(source));
                if sharding.is_none() {
                    check_writable(&out)?;
                    // Dropped without `persist`, it leaves nothing.
                    OutputFile::create_seekable(&out)?;
                }
                out
            }
        };
        let input = match &self.captions {
            None => IndexInput::Images(ImageFolder::list(source, &exclusions)?),
            Some(file) => IndexInput::Captions { captions: captions_of(file)?, file: file.clone() },
        };
        let kind = input.kind();
        let queries = self.evaluate.then(|| queries(&input, self.queries.as_deref(), &exclusions)).transpose()?;

        let (model, progress_bar) = self.model.open(backends, Workload::of(input.len()))?;
        let task = format!("encode {kind}");
        let progress = |count: usize| progress_bar.advance(&task, count as u64);
        let encoding = model.encoding(&progress);
        let mut description =
            IndexDescription::new(kind, model.used().clone(), *model.preprocessing(), &encoding.sizes, precision);
        description.exif_orientation = self.exif_orientation;
        let begin = |count: usize| progress_bar.begin(&task, 0, Some(count as u64), ProgressUnit::Items);
        let collection = match store {
            Some(address) => {
                description.source = absolute(source);
                Some(Collection::create_or_open(address, description.clone()).map_err(laps::Error::from)?)
            }
            None => None,
        };
        let missing = if self.prune { MissingItems::Delete } else { MissingItems::Keep };
        let mut shards = None;
        let LoadSummary { index: summary, removed } = match (&input, &collection) {
            (IndexInput::Images(folder), Some(collection)) => {
                collection.index_images(folder, &metadata, missing, &encoding, &begin)?
            }
            (IndexInput::Captions { captions, .. }, Some(collection)) => {
                collection.index_captions(captions, &metadata, missing, &encoding, &begin)?
            }
            (IndexInput::Images(folder), None) if let Some((size, shard)) = sharding => {
                let sharded = ShardedIndex::create(&out, folder, size, description)?;
                let (summary, progress) = write_shards(&sharded, shard, folder, &encoding, &begin)?;
                shards = Some(progress);
                LoadSummary::from(summary)
            }
            (IndexInput::Images(folder), None) => {
                index_images(folder, &out, description, &encoding, &begin).map(LoadSummary::from)?
            }
            (IndexInput::Captions { captions, file }, None) => {
                index_captions(captions, file, &out, description, &encoding, &begin).map(LoadSummary::from)?
            }
        };
        if summary.encoded + summary.skipped.len() > 0 {
            progress_bar.end(&task, &format!("{} {kind}", summary.encoded));
        }
        let measured = match queries {
            Some(queries) => {
                let store: Box<dyn Store> = match collection {
                    Some(collection) => Box::new(collection),
                    None => Box::new(laps_search::Index::open(&out)?),
                };
                Some(measure(&model, progress_bar.as_ref(), &*store, queries)?)
            }
            None => None,
        };
        let (evaluation, skipped_queries) = match &measured {
            Some((evaluation, skipped)) => (Some(evaluation), skipped.as_slice()),
            None => (None, &[][..]),
        };
        if !distributed::is_first() {
            return Ok(CommandStatus::Success);
        }
        if self.json {
            let output = IndexOutput {
                schema: 1,
                index: path_to_text(&out),
                kind,
                model: model.used(),
                engine: model.engine(),
                truncated_captions: truncated(&model),
                precision,
                summary: &summary,
                shards: shards.as_ref(),
                removed: self.store.as_ref().map(|_| removed),
                evaluation,
                skipped_queries,
            };
            print(&format!("{}\n", serde_json::to_string_pretty(&output)?))?;
        } else {
            let mut text = format!("{}\n{}", summary_line(&model), render(&summary, removed, kind, &out));
            if let Some(ShardProgress { shards, waiting: waiting @ 1.. }) = shards {
                text += &format!("{waiting} of {shards} shards are not finished by other processes\n");
            }
            if let Some(evaluation) = evaluation {
                text += &recalls(evaluation);
                if !skipped_queries.is_empty() {
                    text += &format!("{} queries skipped\n{}", skipped_queries.len(), list(skipped_queries));
                }
            }
            print(&text)?;
        }
        Ok(CommandStatus::Success)
    }
}

/// Writes the shards of this process. The summary is that of its images.
fn write_shards(
    sharded: &ShardedIndex<'_>,
    shard: ShardSpec,
    folder: &ImageFolder,
    encoding: &EmbeddingPipeline<'_>,
    begin: &dyn Fn(usize),
) -> Result<(IndexSummary, ShardProgress)> {
    let mut sum = IndexSummary { skipped: folder.skipped.clone(), ..IndexSummary::default() };
    let mut waiting = 0;
    for number in 0..sharded.shards() {
        if !shard.has(number) {
            waiting += usize::from(!sharded.is_finished(number));
            continue;
        }
        let IndexSummary { items, encoded, kept, skipped, damaged } = sharded.write(number, encoding, begin)?;
        sum.items += items;
        sum.encoded += encoded;
        sum.kept += kept;
        sum.skipped.extend(skipped);
        sum.damaged.extend(damaged);
    }
    sum.skipped.sort();
    Ok((sum, ShardProgress { shards: sharded.shards(), waiting }))
}

/// The address of the database that --store names.
fn store_address(store: &Path) -> Result<DatabaseAddress> {
    match database_address(store)? {
        Some(address) => Ok(address),
        None => Err(laps_bench::Error::Argument {
            argument: "--store",
            expected: "postgres://USER@HOST/DATABASE?collection=NAME".to_owned(),
            found: format!("`{}`", store.display()),
        }
        .into()),
    }
}

/// The default index name: `photos.index` for `some/photos` and for `some/photos.txt`.
fn default_name(source: &Path) -> PathBuf {
    let full = fs_err::canonicalize(source).unwrap_or_else(|_| source.to_owned());
    let name = if full.is_dir() { full.file_name() } else { full.file_stem() };
    let mut name = name.unwrap_or("images".as_ref()).to_owned();
    name.push(".index");
    name.into()
}

fn captions_of(path: &Path) -> Result<Vec<CaptionLine>> {
    Ok(caption_lines(path).map_err(laps::Error::from)?)
}

/// Queries that an index is evaluated with.
enum IndexQueries {
    /// With the caption files that cannot be used.
    Captions(Vec<CaptionLine>, Vec<SkippedItem>),
    /// With the files and folders that cannot be used.
    Images(Vec<PathBuf>, Vec<SkippedItem>),
}

fn queries(input: &IndexInput, given: Option<&Path>, exclusions: &Exclusions) -> Result<IndexQueries> {
    let none = |path: &Path, expected: &str, found: String| {
        let (path, expected) = (path.to_owned(), expected.to_owned());
        laps::Error::from(SearchError::Empty { path, expected, found })
    };
    let expected = "text files next to the images, or captions given as --queries";
    match (input, given) {
        (IndexInput::Images(_), Some(path)) => Ok(IndexQueries::Captions(captions_of(path)?, Vec::new())),
        (IndexInput::Images(folder), None) => match folder.sidecar_captions() {
            (captions, skipped) if captions.is_empty() => {
                let found = if skipped.is_empty() { "none".to_owned() } else { format!("none\n{}", list(&skipped)) };
                Err(none(&folder.path, expected, found.trim_end().to_owned()).into())
            }
            (captions, skipped) => Ok(IndexQueries::Captions(captions, skipped)),
        },
        (IndexInput::Captions { .. }, Some(path)) => {
            let ImageFolder { images, skipped, .. } = ImageFolder::list(path, exclusions)?;
            Ok(IndexQueries::Images(images.into_iter().map(|(_, path)| path).collect(), skipped))
        }
        (IndexInput::Captions { file, .. }, None) => {
            Err(none(file, "a folder of images given as --queries", "none".to_owned()).into())
        }
    }
}

/// Encodes the queries and evaluates the index. Also returns the queries that cannot be used.
fn measure(
    model: &Model,
    progress_bar: &dyn Progress,
    index: &dyn Store,
    queries: IndexQueries,
) -> Result<(SearchEvaluation, Vec<SkippedItem>)> {
    let count = match &queries {
        IndexQueries::Captions(captions, _) => captions.len(),
        IndexQueries::Images(images, _) => images.len(),
    };
    let stage = StageProgress::begin(progress_bar, "encode queries", count);
    let progress = |count| stage.advance(count);
    let encoding = model.encoding(&progress);
    let (mut skipped, (embedded, unusable)) = match queries {
        IndexQueries::Captions(captions, skipped) => (skipped, encoding.encode_usable_captions(&captions)?),
        IndexQueries::Images(images, skipped) => (skipped, encoding.encode_usable_images(&images)?),
    };
    skipped.extend(unusable);
    stage.end(&format!("{} queries", embedded.len()));
    let searcher = Searcher { index, filter: None, engine: model.similarity(), stop: model.stop() };
    let stage = StageProgress::begin(progress_bar, "compare all items", embedded.len());
    let evaluation = evaluate(&searcher, &embedded, &|count| stage.advance(count))?;
    stage.end(&format!("{} queries", embedded.len()));
    Ok((evaluation, skipped))
}

fn render(summary: &IndexSummary, removed: usize, kind: IndexKind, out: &Path) -> String {
    let IndexSummary { items, encoded, kept, skipped, damaged } = summary;
    let mut text = format!("{items} {kind} in `{}`: {encoded} encoded, {kept} unchanged", out.display());
    if removed > 0 {
        text += &format!(", {removed} removed");
    }
    text += &counts(skipped, damaged);
    text + "\n" + &list(skipped) + &list_damaged(damaged)
}

/// How many items were skipped, and how many images are damaged.
pub(crate) fn counts(skipped: &[SkippedItem], damaged: &[DamagedImage]) -> String {
    let counts = [(skipped.len(), "skipped"), (damaged.len(), "damaged")].into_iter().filter(|&(count, _)| count > 0);
    counts.map(|(count, what)| format!(", {count} {what}")).collect()
}

/// One line for each image that was decoded in part.
pub(crate) fn list_damaged(damaged: &[DamagedImage]) -> String {
    let mut text = String::new();
    for DamagedImage { name, warning } in damaged.iter().take(LISTED) {
        text += &format!("  damaged `{}`, decoded in part: {}\n", plain(name), plain(warning));
    }
    if damaged.len() > LISTED {
        text += &format!("  and {} more\n", damaged.len() - LISTED);
    }
    text
}

/// One line for each skipped item.
pub(crate) fn list(skipped: &[SkippedItem]) -> String {
    let mut text = String::new();
    for SkippedItem { name, line, reason } in skipped.iter().take(LISTED) {
        let line = line.map_or_else(String::new, |line| format!(", line {line}"));
        text += &format!("  skipped `{}`{line}: {}\n", plain(name), plain(reason));
    }
    if skipped.len() > LISTED {
        text += &format!("  and {} more\n", skipped.len() - LISTED);
    }
    text
}

fn recalls(evaluation: &SearchEvaluation) -> String {
    let SearchEvaluation { queries, items, by_candidates } = evaluation;
    let rows = by_candidates.iter().map(|row| {
        let [r1, r5, r10] = [row.r1, row.r5, row.r10].map(|percent| format!("{percent:.1}"));
        [row.candidates.to_string(), r1, r5, r10]
    });
    let title =
        format!("\npercentage of the best 1, 5 and 10 of {items} by exact similarity that are among the candidates");
    format!("{title}, {queries} queries\n{}", table(["candidates", "best 1", "best 5", "best 10"], rows))
}
