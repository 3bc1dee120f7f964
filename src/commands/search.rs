//! `laps-zoo search`

use std::{num::NonZeroUsize, path::PathBuf};

use anyhow::Result;
use clap::{ArgGroup, Args};
use laps::EngineUsed;
use laps::{Backends, Workload};
use laps_hub::registry;
use laps_search::{DEFAULT_CANDIDATES, Hit, Index, IndexKind, ModelUsed, SearchScope, Searcher};
use serde::Serialize;

use crate::{
    model::{ModelOptions, summary_line},
    ranking::{plain, table},
    report::{CommandStatus, print},
};

/// Search an index of images by text, or an index of captions by image
#[derive(Args)]
#[command(group = ArgGroup::new("query").required(true).args(["text", "image"]))]
pub(crate) struct SearchArgs {
    /// Index written by `laps-zoo index`
    #[arg(value_name = "INDEX")]
    index: PathBuf,
    /// Query text, for an index of images
    #[arg(value_name = "TEXT")]
    text: Option<String>,
    /// Query image, for an index of captions
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// Number of results
    #[arg(long, value_name = "N", default_value = "10")]
    top: NonZeroUsize,
    /// Number of items to compare exactly, selected by their pooled vectors
    #[arg(long, value_name = "N", default_value_t = candidates())]
    candidates: NonZeroUsize,
    /// Compare every item exactly
    #[arg(long, conflicts_with = "candidates")]
    exact: bool,
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
    /// Items that were compared exactly.
    compared: usize,
    model: &'a ModelUsed,
    engine: &'a EngineUsed,
    results: Vec<ResultRow<'a>>,
}

#[derive(Serialize)]
struct ResultRow<'a> {
    rank: usize,
    similarity: f32,
    /// Cosine of the pooled vectors.
    pooled: f32,
    name: &'a str,
}

impl SearchArgs {
    /// Whether the request can only be met with libtorch.
    pub(crate) fn needs_libtorch(&self) -> bool {
        self.model.needs_libtorch()
    }

    pub(crate) fn run(self, backends: Backends) -> Result<CommandStatus> {
        let Self { index, text, image, top, candidates, exact, json, mut model } = self;
        let index = Index::open(&index)?;
        let description = index.description();
        let kind = if text.is_some() { IndexKind::Images } else { IndexKind::Captions };
        description.check_kind(index.path(), kind).map_err(laps::Error::from)?;
        if model.entry.is_none() && model.graphs.is_none() && registry::names().contains(&&*description.model.entry) {
            model.entry = Some(description.model.entry.clone());
        }
        let (model, _) = model.open(backends, Workload::Few)?;
        description.check_model(index.path(), model.used()).map_err(laps::Error::from)?;

        let encoding = model.encoding(&|_| ());
        let (query, embedded) = match (text, image) {
            (Some(text), _) => {
                let text = text.trim().to_owned();
                (text.clone(), encoding.encode_captions(&[text])?)
            }
            (None, Some(path)) => (path.display().to_string(), encoding.encode_images(&[path])?),
            // clap requires one of them.
            (None, None) => return Ok(CommandStatus::Success),
        };
        let scope = if exact { SearchScope::All } else { SearchScope::Candidates(candidates.get()) };
        let searcher = Searcher { index: &index, engine: model.similarity(), stop: model.stop() };
        let hits = match embedded.first() {
            Some(query) => searcher.search(query, scope, top.get())?,
            None => Vec::new(),
        };
        let items = index.items().len();
        let compared = if exact { items } else { candidates.max(top).get().min(items) };
        if json {
            let row = |(place, hit): (usize, &Hit)| ResultRow {
                rank: place + 1,
                similarity: hit.similarity,
                pooled: hit.pooled,
                name: &index.items()[hit.item].name,
            };
            let output = SearchOutput {
                schema: 1,
                index: index.path().display().to_string(),
                kind,
                source: &description.source,
                items,
                query,
                compared,
                model: model.used(),
                engine: model.engine(),
                results: hits.iter().enumerate().map(row).collect(),
            };
            print(&format!("{}\n", serde_json::to_string_pretty(&output)?))?;
        } else {
            let row = |(place, hit): (usize, &Hit)| {
                [(place + 1).to_string(), format!("{:.4}", hit.similarity), plain(&index.items()[hit.item].name)]
            };
            let what = if kind == IndexKind::Images { "image" } else { "caption" };
            let rows = table(["", "similarity", what], hits.iter().enumerate().map(row));
            print(&format!("{}\n{compared} of {items} {kind} compared exactly\n\n{rows}", summary_line(&model)))?;
        }
        Ok(CommandStatus::Success)
    }
}
