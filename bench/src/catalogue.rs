//! What the zoo holds: the list of entries, and one of them in full.

use std::{fmt::Write, path::PathBuf};

use comfy_table::{CellAlignment, Table, presets};
use laps_hub::{
    registry::{self, Entry, PublishedTable},
    store::{Kept, State, Store},
};
use laps_model::{
    models::{
        self,
        config::{ImageConfig, ModelConfig},
    },
    params::Parameter,
};
use serde::Serialize;

use crate::{
    Result,
    reproduce::{footnotes, mark},
};

/// An entry in one line.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Its name.
    pub name: &'static str,
    /// `vit` or `swin`, and the size of the image.
    pub image: String,
    /// Width of the joint space.
    pub embed_size: usize,
    /// Numbers in its parameters.
    pub parameters: usize,
    /// How its test split is evaluated.
    pub protocols: Vec<String>,
    /// Where its checkpoint comes from.
    pub checkpoint: Origin,
    /// What is here of a published checkpoint; None where there is no place for it.
    pub stored: Option<Kept>,
    /// Sum of recalls in the paper, by the first protocol.
    pub paper_rsum: Option<f64>,
}

/// Where a checkpoint comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// It is part of the program.
    Embedded,
    /// The authors published it, at this address.
    Published(String),
    /// There is none.
    None,
}

impl Origin {
    fn of(entry: &Entry) -> Result<Self> {
        if registry::embedded_checkpoint(&entry.name).is_some() {
            return Ok(Self::Embedded);
        }
        Ok(entry.checkpoint_source()?.and_then(|source| source.url()).map_or(Self::None, Self::Published))
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Published(_) => "published",
            Self::None => "none published",
        }
    }
}

/// Every built-in entry, with what is here of it in `store`.
pub fn list(store: Option<&Store>) -> Result<Vec<Summary>> {
    registry::names().into_iter().map(|name| summary(name, store)).collect()
}

/// What is here of the published checkpoint of `entry`.
fn stored(entry: &Entry, origin: &Origin, store: Option<&Store>) -> Result<Option<Kept>> {
    match (origin, store) {
        (Origin::Published(_), Some(store)) => Ok(Some(store.kept_checkpoint(entry)?)),
        _ => Ok(None),
    }
}

/// In megabytes, `about` where the size follows from the model alone.
fn size(kept: &Kept) -> String {
    let megabytes = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
    match (kept.bytes, kept.about_bytes) {
        (Some(bytes), _) => megabytes(bytes),
        (None, Some(bytes)) => format!("about {:.0} MB", bytes as f64 / 1e6),
        (None, None) => "unknown".to_owned(),
    }
}

fn summary(name: &'static str, store: Option<&Store>) -> Result<Summary> {
    let entry = registry::find(name)?;
    let checkpoint = Origin::of(&entry)?;
    let tables = entry.data.protocol.first().map(|&protocol| entry.published(protocol)).unwrap_or_default();
    Ok(Summary {
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
    let kind = match model.image {
        ImageConfig::Vit(_) => "vit",
        ImageConfig::Swin(_) => "swin",
    };
    format!("{kind} {}", model.image.image_size())
}

fn elements(parameters: &[Parameter]) -> usize {
    parameters.iter().map(Parameter::elements).sum()
}

/// In millions, or in thousands where that says more.
fn count(elements: usize) -> String {
    if elements >= 1_000_000 {
        format!("{:.1} M", elements as f64 / 1e6)
    } else {
        format!("{:.1} k", elements as f64 / 1e3)
    }
}

/// The list for people.
pub fn table(entries: &[Summary]) -> String {
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
                Some(kept) if kept.pin.is_some() => format!("{}, pinned", kept.state.word()),
                Some(kept) => kept.state.word().to_owned(),
                None => entry.checkpoint.word().to_owned(),
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

/// An entry in full.
#[derive(Clone, Debug, Serialize)]
pub struct Info {
    /// Its name.
    pub name: String,
    /// SHA-256 of its effective configuration.
    pub config_sha256: String,
    /// The model.
    pub model: ModelConfig,
    /// Spatial patches of an image.
    pub patches: usize,
    /// Those kept for a caption.
    pub kept: usize,
    /// Those that the kept ones are merged into.
    pub groups: usize,
    /// Numbers in the parameters of the image encoder, the text encoder and the alignment.
    pub sizes: [usize; 3],
    /// Every parameter: name and shape.
    pub parameters: Vec<(String, Vec<usize>)>,
    /// Folders and files below `--data`: captions, images, vocabulary.
    pub data: [PathBuf; 3],
    /// The split that recalls are reported for.
    pub test: String,
    /// How.
    pub protocols: Vec<String>,
    /// Where its checkpoint comes from.
    pub checkpoint: Origin,
    /// What is here of a published checkpoint; None where there is no place for it.
    pub stored: Option<Kept>,
    /// Whether its data is drawn where `--data` is not given.
    pub drawn: bool,
    #[serde(skip)]
    published: Vec<PublishedTable>,
}

impl Info {
    /// Collects it, with what is here of it in `store`. Needs neither weights nor a native library.
    pub fn new(entry: &Entry, store: Option<&Store>) -> Result<Self> {
        let checkpoint = Origin::of(entry)?;
        let parameters = models::parameters(&entry.model)?;
        let size = |prefix: &str| {
            parameters.iter().filter(|parameter| parameter.name.starts_with(prefix)).map(Parameter::elements).sum()
        };
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
            published: entry.data.protocol.iter().flat_map(|&protocol| entry.published(protocol)).collect(),
        })
    }

    /// The text for people.
    pub fn render(&self, parameters: bool) -> String {
        let mut text = format!("{}\n", self.name);
        let mut line = |name: &str, value: String| {
            // Writing to a string can not fail.
            let _ = writeln!(text, "  {name:12}{value}");
        };
        line("model", format!("{}, embed size {}", image(&self.model), self.model.embed_size));
        line("patches", format!("{}, of which {} are kept and merged into {}", self.patches, self.kept, self.groups));
        let [images, captions, alignment] = self.sizes.map(count);
        line("parameters", format!("image encoder {images}, text encoder {captions}, alignment {alignment}"));
        let [captions, images, vocab] = self.data.each_ref().map(|path| path.display());
        let place = if self.drawn { "drawn into the cache, or below --data" } else { "below --data" };
        line("data", format!("captions `{captions}`, images `{images}`, vocabulary `{vocab}`, {place}"));
        line("evaluation", format!("split `{}` by {}", self.test, self.protocols.join(", ")));
        line(
            "checkpoint",
            match &self.checkpoint {
                Origin::Published(url) => url.clone(),
                other => other.word().to_owned(),
            },
        );
        if let Some(kept) = &self.stored {
            line("here", here(kept));
            line("licence", kept.licence.clone().unwrap_or_else(|| "none stated".to_owned()));
        }
        line("config", format!("sha256 {}", self.config_sha256));
        if !self.published.is_empty() {
            let _ = writeln!(text, "{}", published(&self.published));
            for footnote in footnotes(self.published.iter().flat_map(PublishedTable::statuses)) {
                let _ = writeln!(text, "{footnote}");
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

fn here(kept: &Kept) -> String {
    let state = match kept.state {
        State::Ready => "ready".to_owned(),
        State::Fetched => "fetched, not converted".to_owned(),
        State::Partial(bytes) => format!("{:.1} MB of it, the rest to fetch", bytes as f64 / 1e6),
        State::Absent => "no, to fetch".to_owned(),
    };
    let pin = match &kept.pin {
        Some(pin) => format!("pinned as sha256 {} on {}", &pin.sha256[..12], pin.fetched),
        None if kept.known_hash => "of a known hash".to_owned(),
        None => "not pinned: no hash is published, the first fetch pins it".to_owned(),
    };
    format!("{state}; {}; {pin}", size(kept))
}

fn published(tables: &[PublishedTable]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(["published", "i2t R@1", "R@5", "R@10", "t2i R@1", "R@5", "R@10", "rSum"]);
    for row in tables {
        let cells = [&row.i2t[..], &row.t2i, &[row.rsum]].concat();
        let cells = cells
            .into_iter()
            .map(|cell| cell.map_or_else(|| "-".to_owned(), |cell| format!("{:.1}{}", cell.value, mark(cell.status))));
        table.add_row(std::iter::once(format!("{}, {}", row.source, row.protocol)).chain(cells));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
