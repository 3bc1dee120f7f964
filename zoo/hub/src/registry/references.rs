//! Published recalls and their provenance.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::{Origin, Protocol, RegistryError, document::Document};

/// Tables by protocol.
pub type Tables = BTreeMap<Protocol, Table>;

/// `configs/references.yaml`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct References {
    /// Table 1 of the paper: by image encoder and size (`vit_224`), then by method (`laps` and the methods it compares with).
    pub paper: BTreeMap<String, BTreeMap<String, Tables>>,
    /// Table 2 of the paper: LAPS with CLIP encoders.
    pub paper_clip: BTreeMap<String, Tables>,
    /// Table 4 of the paper, by ablation: i2t R@1 and R@5, t2i R@1 and R@5 of `vit_224` on Flickr30K.
    pub paper_ablation_f30k_vit_224: BTreeMap<String, [f64; 4]>,
    /// The numbers next to the checkpoint of each entry in the authors' README.
    pub readme: BTreeMap<String, Tables>,
    /// The README of D2S-VSE, from `configs/successors.yaml`.
    #[serde(skip)]
    pub d2s_vse: BTreeMap<String, Tables>,
    /// The README of SEPS, from `configs/successors.yaml`, by image encoder and size. It has no checkpoints, so no entries.
    #[serde(skip)]
    pub seps: BTreeMap<String, Tables>,
    /// CLIP without training, as open_clip measured it, from `configs/successors.yaml`.
    #[serde(skip)]
    pub clip_zero_shot: BTreeMap<String, Tables>,
    /// The audits of the sources of `configs/successors.yaml`, by source; also of AVSE (`avse`), which publishes no recalls.
    #[serde(skip)]
    pub audits: BTreeMap<String, SourceAudit>,
}

/// `configs/successors.yaml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Successors {
    d2s_vse: Successor,
    seps: Successor,
    avse: Successor,
    clip_zero_shot: Successor,
}

/// A source of `configs/successors.yaml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Successor {
    audit: Option<SourceAudit>,
    rows: BTreeMap<String, Tables>,
}

/// Whether a text-to-image query of a source contains a description of its test image.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub struct SourceAudit {
    /// The answer.
    pub mark: AuditMark,
    /// The answer, then where it was seen.
    pub text: String,
}

/// The answer of a [`SourceAudit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditMark {
    /// No query does.
    No,
    /// Queries do, so the recalls do not compare with those of other sources.
    Yes,
}

impl fmt::Display for AuditMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::No => "no",
            Self::Yes => "yes",
        })
    }
}

impl TryFrom<String> for SourceAudit {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mark = match text.split_whitespace().next() {
            Some("no") => AuditMark::No,
            Some("yes") => AuditMark::Yes,
            _ => return Err(format!("expected a text that starts with `yes` or `no`, found `{text}`")),
        };
        Ok(Self { mark, text })
    }
}

impl SourceAudit {
    /// The question and the answer for `source` in one line.
    pub fn note(&self, source: &str) -> String {
        format!("audit of {source}, does a text-to-image query contain a description of its test image: {}", self.text)
    }
}

/// Recalls at 1, 5 and 10 in percent, as published. None for a number that is not printed.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Image to text.
    pub i2t: [Option<f64>; 3],
    /// Text to image.
    pub t2i: [Option<f64>; 3],
    /// Sum of the six recalls.
    pub rsum: Option<f64>,
    /// Provenance of `t2i`; `i2t` and `rsum` are always printed in their place.
    #[serde(default)]
    pub status: Status,
    /// The numbers that the source prints in place of `t2i`, if they differ.
    pub printed_t2i: Option<[Option<f64>; 3]>,
}

/// Provenance of a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It is printed in its place.
    #[default]
    Printed,
    /// An earlier version of the source prints it in its place.
    Restored,
    /// It is printed in another place and fits no other row.
    Inferred,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Printed => "printed",
            Self::Restored => "restored",
            Self::Inferred => "inferred",
        })
    }
}

/// A published number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    /// Percent, or a sum of percents.
    pub value: f64,
    /// Its provenance.
    pub status: Status,
}

/// The recalls that a source publishes for an entry under one protocol.
#[derive(Clone, Debug, PartialEq)]
pub struct PublishedTable {
    /// `paper`, `readme`, or a name from the entry file.
    pub source: String,
    /// The evaluation protocol.
    pub protocol: Protocol,
    /// Image to text, at 1, 5 and 10.
    pub i2t: [Option<Cell>; 3],
    /// Text to image, at 1, 5 and 10.
    pub t2i: [Option<Cell>; 3],
    /// Sum of the six recalls.
    pub rsum: Option<Cell>,
    /// The numbers that the source prints in place of `t2i`, if they differ.
    pub printed_t2i: Option<[Option<f64>; 3]>,
}

impl PublishedTable {
    /// The provenance of each of its recalls.
    pub fn statuses(&self) -> impl Iterator<Item = Status> {
        self.i2t.into_iter().chain(self.t2i).flatten().map(|cell| cell.status)
    }

    /// Whether it comes from `references.yaml`, and so from the published test split; otherwise it is in the entry file.
    pub fn is_built_in(&self) -> bool {
        References::SOURCES.contains(&self.source.as_str())
    }
}

impl References {
    /// The sources whose rows an entry can refer to.
    pub const SOURCES: [&str; 7] =
        ["paper", "paper_clip", "paper_ablation", "readme", "d2s_vse", "seps", "clip_zero_shot"];

    /// The tables of `configs/references.yaml` and `configs/successors.yaml`.
    pub fn embedded() -> Result<Self, RegistryError> {
        const TEXT: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/configs/references.yaml"));
        const SUCCESSORS: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/configs/successors.yaml"));
        let references: Self = Document { origin: &Origin::BuiltIn("references.yaml"), text: TEXT }.read()?;
        let Successors { d2s_vse, seps, avse, clip_zero_shot } =
            Document { origin: &Origin::BuiltIn("successors.yaml"), text: SUCCESSORS }.read()?;
        let sources = [("d2s_vse", &d2s_vse), ("seps", &seps), ("avse", &avse), ("clip_zero_shot", &clip_zero_shot)];
        let audit = |(source, successor): (&str, &Successor)| Some((source.to_owned(), successor.audit.clone()?));
        let audits = sources.into_iter().filter_map(audit).collect();
        Ok(Self { d2s_vse: d2s_vse.rows, seps: seps.rows, clip_zero_shot: clip_zero_shot.rows, audits, ..references })
    }

    /// The rows of `source` that an entry can refer to: in Table 1 `vit_224` for LAPS, and `vit_224/scan` for another method.
    /// None for an unknown source.
    pub fn rows(&self, source: &str) -> Option<BTreeMap<String, Tables>> {
        match source {
            "paper" => Some(
                self.paper
                    .iter()
                    .flat_map(|(encoder, methods)| {
                        methods.iter().map(move |(method, tables)| match method.as_str() {
                            "laps" => (encoder.clone(), tables.clone()),
                            method => (format!("{encoder}/{method}"), tables.clone()),
                        })
                    })
                    .collect(),
            ),
            "paper_clip" => Some(self.paper_clip.clone()),
            "paper_ablation" => Some(
                self.paper_ablation_f30k_vit_224
                    .iter()
                    .map(|(name, &recalls)| {
                        (name.clone(), BTreeMap::from([(Protocol::F30k, Table::ablation(recalls))]))
                    })
                    .collect(),
            ),
            "readme" => Some(self.readme.clone()),
            "d2s_vse" => Some(self.d2s_vse.clone()),
            "seps" => Some(self.seps.clone()),
            "clip_zero_shot" => Some(self.clip_zero_shot.clone()),
            _ => None,
        }
    }
}

impl Table {
    /// A row of Table 4: i2t R@1 and R@5, t2i R@1 and R@5.
    fn ablation([a, b, c, d]: [f64; 4]) -> Self {
        Self {
            i2t: [Some(a), Some(b), None],
            t2i: [Some(c), Some(d), None],
            rsum: None,
            status: Status::Printed,
            printed_t2i: None,
        }
    }

    /// This table as `source` publishes it.
    pub fn published(&self, source: &str, protocol: Protocol) -> PublishedTable {
        let cell = |status| move |value| Cell { value, status };
        PublishedTable {
            source: source.to_owned(),
            protocol,
            i2t: self.i2t.map(|value| value.map(cell(Status::Printed))),
            t2i: self.t2i.map(|value| value.map(cell(self.status))),
            rsum: self.rsum.map(cell(Status::Printed)),
            printed_t2i: self.printed_t2i,
        }
    }

    /// The key, the expected and the found value, where this is not a valid table of recalls.
    pub(super) fn problem(&self) -> Option<(&'static str, &'static str, String)> {
        for (key, recalls) in [("i2t", self.i2t), ("t2i", self.t2i)] {
            let given: Vec<f64> = recalls.into_iter().flatten().collect();
            if !given.iter().all(|recall| (0.0..=100.0).contains(recall)) {
                return Some((key, "percents from 0 to 100", format!("{given:?}")));
            }
            if !given.is_sorted() {
                return Some((key, "recalls that do not decrease from R@1 to R@5 to R@10", format!("{given:?}")));
            }
        }
        match self.rsum {
            Some(rsum) if !(0.0..=600.0).contains(&rsum) => Some(("rsum", "a sum from 0 to 600", rsum.to_string())),
            _ => None,
        }
    }
}
