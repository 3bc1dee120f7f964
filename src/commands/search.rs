//! `laps-zoo search`

use std::{
    io::Write,
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use anyhow::Result;
use clap::{ArgGroup, Args};
use laps::EngineUsed;
use laps::{Backends, Workload};
use laps_files::{path_to_text, text_to_path};
use laps_hub::registry;
use laps_model::array::Array;
use laps_search::{DEFAULT_CANDIDATES, Filter, IndexKind, ModelUsed, SearchScope, Searcher};
use serde::Serialize;

use crate::{
    model::{ModelOptions, summary_line, truncated},
    open_store::open_store,
    ranking::{plain, table},
    report::{CommandStatus, print},
};

/// Search an index of images by text or image, or an index of captions by image
#[derive(Args)]
#[command(group = ArgGroup::new("query").required(true).args(["text", "image"]))]
pub(crate) struct SearchArgs {
    /// Index written by `laps-zoo index`: a file, or `postgres://USER@HOST/DATABASE?collection=NAME`
    #[arg(value_name = "INDEX")]
    index: PathBuf,
    /// Query text, for an index of images
    #[arg(value_name = "TEXT")]
    text: Option<String>,
    /// Query image; in an index of images, it finds those with the nearest pooled vectors
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// Number of results
    #[arg(long, value_name = "N", default_value = "10")]
    top: NonZeroUsize,
    /// Number of items to compare exactly, selected by their pooled vectors
    #[arg(long, value_name = "N", default_value_t = candidates())]
    candidates: NonZeroUsize,
    /// Search only items whose metadata match `KEY OPERATOR VALUE` (`year >= 2020`, `camera.maker = Leica`), in a
    /// database; operators: = != < <= > >=; repeat it for conditions that all must hold
    #[arg(long = "where", value_name = "CONDITION")]
    conditions: Vec<String>,
    /// Compare every item exactly
    #[arg(long, conflicts_with = "candidates")]
    exact: bool,
    /// Print only the paths of the images, one a line
    #[arg(long, conflicts_with = "json")]
    paths: bool,
    /// End each path of --paths with a NUL byte instead of a line feed, for `xargs -0`
    #[arg(short = '0', long = "null", requires = "paths")]
    null: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelOptions,
}

fn candidates() -> NonZeroUsize {
    NonZeroUsize::new(DEFAULT_CANDIDATES).unwrap_or(NonZeroUsize::MIN)
}

/// The output of `--json`.
#[derive(Serialize)]
struct SearchOutput<'a> {
    schema: u32,
    index: String,
    kind: IndexKind,
    /// The folder or file that was indexed.
    source: &'a str,
    items: usize,
    query: String,
    ranked_by: RankedBy,
    /// Items that were compared exactly.
    compared: usize,
    model: &'a ModelUsed,
    engine: &'a EngineUsed,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated_captions: Option<usize>,
    results: Vec<ResultRow>,
}

/// The order of the results.
#[derive(Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum RankedBy {
    /// The exact similarity of an image and a caption.
    Similarity,
    /// The cosine of the pooled vectors of two images.
    Pooled,
}

#[derive(Serialize)]
struct ResultRow {
    rank: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    similarity: Option<f32>,
    /// Cosine of the pooled vectors.
    pooled: f32,
    name: String,
}

impl SearchArgs {
    /// Whether the request can only be met with libtorch.
    pub(crate) fn needs_libtorch(&self) -> bool {
        self.model.needs_libtorch()
    }

    pub(crate) fn run(self, backends: Backends) -> Result<CommandStatus> {
        let Self { index, text, image, top, candidates, conditions, exact, paths, null, json, mut model } = self;
        let filter = Filter::parse(&conditions).map_err(laps::Error::from)?;
        let index = open_store(&index)?;
        let description = index.description();
        let kind = description.kind;
        if text.is_some() || paths {
            description.check_kind(index.location(), IndexKind::Images).map_err(laps::Error::from)?;
        }
        let ranked_by = match (kind, &image) {
            (IndexKind::Images, Some(_)) => RankedBy::Pooled,
            _ => RankedBy::Similarity,
        };
        if ranked_by == RankedBy::Pooled && exact {
            return Err(laps_bench::Error::Argument {
                argument: "--exact",
                expected: "a query text, because two images are compared by their pooled vectors alone".to_owned(),
                found: "a query image for an index of images".to_owned(),
            }
            .into());
        }
        if model.entry.is_none() && model.graphs.is_none() && registry::names().contains(&&*description.model.entry) {
            model.entry = Some(description.model.entry.clone());
        }
        let (model, _) = model.open(backends, Workload::Few)?;
        description.check_model(index.location(), model.used()).map_err(laps::Error::from)?;

        let encoding = model.encoding(&|_| ());
        let (query, embedded) = match (text, image) {
            (Some(text), _) => {
                let text = text.trim().to_owned();
                (text.clone(), encoding.encode_captions(&[text])?)
            }
            (None, Some(path)) => (path_to_text(&path), encoding.encode_images(&[path], description.orientation())?),
            // clap requires one of them.
            (None, None) => return Ok(CommandStatus::Success),
        };
        let searcher =
            Searcher { index: &*index, filter: Some(&filter), engine: model.similarity(), stop: model.stop() };
        let items = index.item_count(searcher.filter)?;
        let (compared, results) = match ranked_by {
            RankedBy::Similarity => {
                let scope = if exact { SearchScope::All } else { SearchScope::Candidates(candidates.get()) };
                (searcher.compared(scope, top.get())?, exact_results(&searcher, embedded.first(), scope, top.get())?)
            }
            RankedBy::Pooled => (0, pooled_results(&searcher, embedded.first(), top.get())?),
        };
        if paths {
            print_paths(&text_to_path(&description.source), &results, if null { b'\0' } else { b'\n' })?;
        } else if json {
            let output = SearchOutput {
                schema: 1,
                index: path_to_text(index.location()),
                kind,
                source: &description.source,
                items,
                query,
                ranked_by,
                compared,
                model: model.used(),
                engine: model.engine(),
                truncated_captions: truncated(&model),
                results,
            };
            print(&format!("{}\n", serde_json::to_string_pretty(&output)?))?;
        } else {
            let row = |row: &ResultRow| {
                [row.rank.to_string(), format!("{:.4}", row.similarity.unwrap_or(row.pooled)), plain(&row.name)]
            };
            let what = if kind == IndexKind::Images { "image" } else { "caption" };
            let (note, column) = match ranked_by {
                RankedBy::Similarity => (format!("{compared} of {items} {kind} compared exactly"), "similarity"),
                RankedBy::Pooled => (format!("{items} {kind} compared by pooled vectors"), "cosine"),
            };
            let rows = table(["", column, what], results.iter().map(row));
            print(&format!("{}\n{note}\n\n{rows}", summary_line(&model)))?;
        }
        Ok(CommandStatus::Success)
    }
}

fn exact_results(
    searcher: &Searcher<'_>,
    query: Option<&Array>,
    scope: SearchScope,
    top: usize,
) -> Result<Vec<ResultRow>> {
    let Some(query) = query else { return Ok(Vec::new()) };
    let hits = searcher.search(query, scope, top)?;
    rows(searcher, hits.iter().map(|hit| (hit.item, Some(hit.similarity), hit.pooled)))
}

fn pooled_results(searcher: &Searcher<'_>, query: Option<&Array>, top: usize) -> Result<Vec<ResultRow>> {
    let Some(query) = query else { return Ok(Vec::new()) };
    let neighbors = searcher.neighbors(query, top)?;
    rows(searcher, neighbors.iter().map(|near| (near.item, None, near.pooled)))
}

/// The rows of results, each the item's number, exact similarity and cosine, in order.
fn rows(
    searcher: &Searcher<'_>,
    results: impl Iterator<Item = (usize, Option<f32>, f32)> + Clone,
) -> Result<Vec<ResultRow>> {
    let items: Vec<usize> = results.clone().map(|(item, ..)| item).collect();
    let rows = (1..).zip(results.zip(searcher.index.names(&items)?));
    Ok(rows.map(|(rank, ((_, similarity, pooled), name))| ResultRow { rank, similarity, pooled, name }).collect())
}

/// Prints the paths of images below `folder` as the bytes that they are.
fn print_paths(folder: &Path, results: &[ResultRow], end: u8) -> Result<()> {
    let mut bytes = Vec::new();
    for row in results {
        bytes.extend_from_slice(folder.join(text_to_path(&row.name)).as_os_str().as_encoded_bytes());
        bytes.push(end);
    }
    let mut output = std::io::stdout().lock();
    output.write_all(&bytes)?;
    Ok(output.flush()?)
}
