//! The list of entries, and one entry in detail.

use std::{collections::BTreeMap, fmt::Write, path::PathBuf};

use comfy_table::{CellAlignment, Table, presets};
use laps_hub::{
    registry::{self, AuditMark, Entry, PublishedTable, References, SourceAudit},
    store::{CacheItem, CacheState, FileStore},
};
use laps_model::{
    models::{self, config::ModelConfig},
    params::Parameter,
};
use serde::Serialize;

use crate::{
    Result,
    reproduce::{AUDITED, audit_mark, footnotes, mark},
};

/// A row of the list of entries.
#[derive(Clone, Debug, Serialize)]
pub struct EntrySummary {
    /// Name of the entry.
    pub name: &'static str,
    /// `vit` or `swin`, and the image size.
    pub image: String,
    /// Dimension of the embeddings.
    pub embed_size: usize,
    /// Number of parameters.
    pub parameters: usize,
    /// Protocols that its test split is evaluated by.
    pub protocols: Vec<String>,
    /// Where its checkpoint comes from.
    pub checkpoint: CheckpointOrigin,
    /// State of the published checkpoint in the cache; `None` without a published checkpoint or without a cache.
    pub stored: Option<CacheItem>,
    /// rSum in the paper, by the first protocol.
    pub paper_rsum: Option<f64>,
}

/// Where a checkpoint comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckpointOrigin {
    /// Part of the program.
    Embedded,
    /// Published by the authors at this URL.
    Published(String),
    /// No checkpoint is published.
    None,
}

impl CheckpointOrigin {
    fn of(entry: &Entry) -> Result<Self> {
        if registry::embedded_checkpoint(&entry.name).is_some() {
            return Ok(Self::Embedded);
        }
        Ok(entry.checkpoint_source()?.and_then(|source| source.url()).map_or(Self::None, Self::Published))
    }

    fn label(&self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Published(_) => "published",
            Self::None => "none published",
        }
    }
}

/// Every built-in entry, with the state of its checkpoint in `store`.
///
/// # Errors
/// If the registry, which is part of the program, or the cache cannot be read.
pub fn list(store: Option<&FileStore>) -> Result<Vec<EntrySummary>> {
    registry::names().into_iter().map(|name| summary(name, store)).collect()
}

/// State of the published checkpoint of `entry` in the cache.
fn stored(entry: &Entry, origin: &CheckpointOrigin, store: Option<&FileStore>) -> Result<Option<CacheItem>> {
    match (origin, store) {
        (CheckpointOrigin::Published(_), Some(store)) => Ok(Some(store.cached_checkpoint(entry)?)),
        _ => Ok(None),
    }
}

/// The size in megabytes, with `about` if it is estimated from the parameter count.
fn size(item: &CacheItem) -> String {
    let megabytes = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
    match (item.bytes, item.about_bytes) {
        (Some(bytes), _) => megabytes(bytes),
        (None, Some(bytes)) => format!("about {:.0} MB", bytes as f64 / 1e6),
        (None, None) => "unknown".to_owned(),
    }
}

fn summary(name: &'static str, store: Option<&FileStore>) -> Result<EntrySummary> {
    let entry = registry::find(name)?;
    let checkpoint = CheckpointOrigin::of(&entry)?;
    let tables = entry.data.protocol.first().map(|&protocol| entry.published(protocol)).unwrap_or_default();
    Ok(EntrySummary {
        name,
        image: image(&entry.model),
        embed_size: entry.model.embed_size,
        parameters: elements(&models::parameters(&entry.model)?),
        protocols: entry.data.protocol.iter().map(ToString::to_string).collect(),
        stored: stored(&entry, &checkpoint, store)?,
        checkpoint,
        paper_rsum: tables.iter().find(|table| table.source == "paper").and_then(|table| Some(table.rsum?.value)),
    })
}

fn image(model: &ModelConfig) -> String {
    format!("{} {}", model.image.kind(), model.image.image_size())
}

fn elements(parameters: &[Parameter]) -> usize {
    parameters.iter().map(Parameter::elements).sum()
}

/// Formats a count in millions, or in thousands below a million.
fn count(elements: usize) -> String {
    if elements >= 1_000_000 {
        format!("{:.1} M", elements as f64 / 1e6)
    } else {
        format!("{:.1} k", elements as f64 / 1e3)
    }
}

/// The list as a table.
pub fn table(entries: &[EntrySummary]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header([
        "entry",
        "image encoder",
        "embed size",
        "parameters",
        "protocols",
        "checkpoint",
        "size",
        "paper rSum",
    ]);
    for entry in entries {
        table.add_row([
            entry.name.to_owned(),
            entry.image.clone(),
            entry.embed_size.to_string(),
            count(entry.parameters),
            entry.protocols.join(", "),
            match &entry.stored {
                Some(item) if item.pin.is_some() => format!("{}, pinned", item.state.label()),
                Some(item) => item.state.label().to_owned(),
                None => entry.checkpoint.label().to_owned(),
            },
            entry.stored.as_ref().map_or_else(|| "-".to_owned(), size),
            entry.paper_rsum.map_or_else(|| "-".to_owned(), |rsum| format!("{rsum:.1}")),
        ]);
    }
    for column in [2, 3, 6, 7] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

/// The details of an entry.
#[derive(Clone, Debug, Serialize)]
pub struct EntryInfo {
    /// Name of the entry.
    pub name: String,
    /// SHA-256 of its effective configuration.
    pub config_sha256: String,
    /// Configuration of the model.
    pub model: ModelConfig,
    /// Number of spatial patches per image.
    pub patches: usize,
    /// Number of patches kept for a caption.
    pub kept: usize,
    /// Number of tokens that the kept patches are merged into.
    pub groups: usize,
    /// Number of parameters of the image encoder, the text encoder and the alignment.
    pub sizes: [usize; 3],
    /// Name and shape of every parameter.
    pub parameters: Vec<(String, Vec<usize>)>,
    /// Paths of captions, images and vocabulary, relative to the data root.
    pub data: [PathBuf; 3],
    /// Split that recalls are reported for.
    pub test: String,
    /// Protocols that recalls are reported by.
    pub protocols: Vec<String>,
    /// Where its checkpoint comes from.
    pub checkpoint: CheckpointOrigin,
    /// State of the published checkpoint in the cache; `None` without a published checkpoint or without a cache.
    pub stored: Option<CacheItem>,
    /// Whether the data is drawn if no data root is given.
    pub drawn: bool,
    /// Choices of the entry that the source of the model does not state.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<String>,
    /// The audits of the sources of its published recalls, by source.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub audits: BTreeMap<String, SourceAudit>,
    #[serde(skip)]
    published: Vec<PublishedTable>,
}

impl EntryInfo {
    /// Collects the details of `entry`, with the state of its checkpoint in `store`. Needs neither weights nor a native
    /// library.
    ///
    /// # Errors
    /// An invalid model configuration, or a cache that cannot be read.
    pub fn new(entry: &Entry, store: Option<&FileStore>) -> Result<Self> {
        let checkpoint = CheckpointOrigin::of(entry)?;
        let parameters = models::parameters(&entry.model)?;
        let size = |prefix: &str| {
            parameters.iter().filter(|parameter| parameter.name.starts_with(prefix)).map(Parameter::elements).sum()
        };
        let published: Vec<PublishedTable> =
            entry.data.protocol.iter().flat_map(|&protocol| entry.published(protocol)).collect();
        let mut audits = References::embedded()?.audits;
        audits.retain(|source, _| published.iter().any(|table| table.source == *source));
        Ok(Self {
            name: entry.name.clone(),
            config_sha256: entry.config_sha256.clone(),
            model: entry.model.clone(),
            patches: entry.model.image.num_patches(),
            kept: entry.model.kept(),
            groups: entry.model.groups(),
            sizes: ["img_enc.", "txt_enc.", "cross_net."].map(size),
            parameters: parameters.into_iter().map(|parameter| (parameter.name, parameter.shape)).collect(),
            data: [entry.data.captions.clone(), entry.data.images.clone(), entry.data.vocab.clone()],
            test: entry.data.test.clone(),
            protocols: entry.data.protocol.iter().map(ToString::to_string).collect(),
            stored: stored(entry, &checkpoint, store)?,
            checkpoint,
            drawn: entry.data.drawn.is_some(),
            choices: entry.choices.clone(),
            audits,
            published,
        })
    }

    /// The details as text; `parameters` adds a line for each parameter.
    pub fn render(&self, parameters: bool) -> String {
        let mut text = format!("{}\n", self.name);
        let mut line = |name: &str, value: String| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  {name:12}{value}");
        };
        line("model", format!("{}, embed size {}", image(&self.model), self.model.embed_size));
        line("patches", format!("{}, of which {} are kept and merged into {}", self.patches, self.kept, self.groups));
        let [images, captions, alignment] = self.sizes.map(count);
        line("parameters", format!("image encoder {images}, text encoder {captions}, alignment {alignment}"));
        let [captions, images, vocab] = self.data.each_ref().map(|path| path.display());
        let place = if self.drawn { "drawn into the cache, or below the data root" } else { "below the data root" };
        line("data", format!("captions `{captions}`, images `{images}`, vocabulary `{vocab}`, {place}"));
        line("evaluation", format!("split `{}` by {}", self.test, self.protocols.join(", ")));
        line(
            "checkpoint",
            match &self.checkpoint {
                CheckpointOrigin::Published(url) => url.clone(),
                other => other.label().to_owned(),
            },
        );
        if let Some(item) = &self.stored {
            line("cache", cache_state(item));
            line("licence", item.licence.clone().unwrap_or_else(|| "none stated".to_owned()));
        }
        for choice in &self.choices {
            line("our choice", choice.clone());
        }
        line("config", format!("sha256 {}", self.config_sha256));
        if !self.published.is_empty() {
            let _ = writeln!(text, "{}", published(&self.published, &self.audits));
            for footnote in footnotes(self.published.iter().flat_map(PublishedTable::statuses)) {
                let _ = writeln!(text, "{footnote}");
            }
            if self.audits.values().any(|audit| audit.mark == AuditMark::Yes) {
                let _ = writeln!(text, "{AUDITED}");
            }
            for (source, audit) in &self.audits {
                let _ = writeln!(text, "{}", audit.note(source));
            }
        }
        if parameters {
            for (name, shape) in &self.parameters {
                let _ = writeln!(text, "{name} {shape:?}");
            }
        }
        text
    }
}

fn cache_state(item: &CacheItem) -> String {
    let state = match item.state {
        CacheState::Ready => "ready".to_owned(),
        CacheState::Fetched => "downloaded, not converted".to_owned(),
        CacheState::Partial(bytes) => format!("{:.1} MB downloaded, resumable", bytes as f64 / 1e6),
        CacheState::Absent => "not downloaded".to_owned(),
    };
    let pin = match &item.pin {
        Some(pin) => format!("pinned as sha256 {} on {}", &pin.sha256[..12], pin.fetched),
        None if item.known_hash => "sha256 known".to_owned(),
        None => "no published sha256, pinned by the first download".to_owned(),
    };
    format!("{state}; {}; {pin}", size(item))
}

fn published(tables: &[PublishedTable], audits: &BTreeMap<String, SourceAudit>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(["published", "i2t R@1", "R@5", "R@10", "t2i R@1", "R@5", "R@10", "rSum"]);
    for row in tables {
        let cells = [&row.i2t[..], &row.t2i, &[row.rsum]].concat();
        let audit = audit_mark(audits.get(&row.source).map(|audit| audit.mark));
        let cells = cells.into_iter().map(|cell| {
            cell.map_or_else(|| "-".to_owned(), |cell| format!("{:.1}{}{audit}", cell.value, mark(cell.status)))
        });
        table.add_row(std::iter::once(format!("{}, {}", row.source, row.protocol)).chain(cells));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
