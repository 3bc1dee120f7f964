//! The tables that the paper, D2S-VSE and SEPS print, with our measured recalls beside the published ones.

use std::str::FromStr;

use laps_align::Protocol;
use laps_hub::registry::{self, Cell, Entry, References, Status};

use super::{
    RecallRow, RecallTable, RecallTables, ResultUsed, RowGroup, RowKind, SCHEMA,
    build::{BASELINES, audit_of, audits, built_in, cells, sort_key},
};
use crate::{
    Error, Result,
    reproduce::{Reproduction, recalls},
};

/// A printed table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrintedTable {
    /// Table 1 of the paper: five methods on four image encoders.
    One,
    /// Table 2 of the paper: LAPS on CLIP.
    Two,
    /// Table 4 of the paper: ablations.
    Four,
    /// The table of D2S-VSE's README.
    D2sVse,
    /// The table of SEPS's README, of which no entry exists.
    Seps,
}

/// The image encoders of Table 1, which SEPS has too.
const ENCODERS: [&str; 4] = ["vit_224", "vit_384", "swin_224", "swin_384"];

/// Order of the ablations in the paper. The last row is LAPS itself.
const ABLATIONS: [&str; 9] = [
    "without_patch_selection",
    "without_language_context",
    "attentive_scores_only",
    "without_patch_calibration",
    "without_redundant_fusion",
    "scan_alignment",
    "patch_to_word_only",
    "word_to_patch_only",
    "complete",
];

/// A row of a printed table.
struct PrintedRow {
    group: String,
    label: String,
    /// Source and row of its recalls in the published tables.
    published: (&'static str, String),
    /// Source and row by which its entries refer to it.
    entries: (&'static str, String),
}

impl PrintedTable {
    /// Every table by name.
    pub const ALL: [(&str, Self); 5] =
        [("1", Self::One), ("2", Self::Two), ("4", Self::Four), ("d2s", Self::D2sVse), ("seps", Self::Seps)];

    /// Title of the table.
    pub fn title(self) -> &'static str {
        match self {
            Self::One => "Table 1 of the paper",
            Self::Two => "Table 2 of the paper",
            Self::Four => "Table 4 of the paper",
            Self::D2sVse => "table of D2S-VSE",
            Self::Seps => "table of SEPS",
        }
    }

    /// Where the published recalls come from.
    fn source(self) -> &'static str {
        match self {
            Self::One => "published: Table 1 of the paper (CVPR 2024); its checkpoints are not published",
            Self::Two => {
                "published: Table 2 of the paper (CVPR 2024), which has no R@10; no checkpoint and no code is published"
            }
            Self::Four => {
                "published: Table 4 of the paper (CVPR 2024), which has no R@10; no checkpoint is published. The public code, \
                 which `f30k_vit` evaluates, has no score prediction: it is measured for `complete` and, being closest to it, \
                 for `attentive scores only`. What the other entries leave out is our choice"
            }
            Self::D2sVse => {
                "published: README of D2S-VSE (ICCV 2025), models selected on the test split; its rows 224 are run at 384 \
                 pixels, its rows 384 at 480"
            }
            Self::Seps => {
                "published: README of SEPS (arXiv 2511.01390), which has no R@10; rSum from a copy that prints the same \
                 recalls; no checkpoint is published, and the official code was not available. AVSE publishes no recalls"
            }
        }
    }

    /// The sources whose audits belong to the table.
    fn audited(self) -> &'static [&'static str] {
        match self {
            Self::One | Self::Two | Self::Four => &[],
            Self::D2sVse => &["d2s_vse"],
            Self::Seps => &["seps", "avse"],
        }
    }

    fn rows(self, references: &References) -> Vec<PrintedRow> {
        let row = |group: &str, label: &str, source, key: String| PrintedRow {
            group: group.to_owned(),
            label: label.to_owned(),
            published: (source, key.clone()),
            entries: (source, key),
        };
        match self {
            Self::One => ENCODERS
                .into_iter()
                .flat_map(|encoder| {
                    let baselines =
                        BASELINES.map(|(method, name)| row(encoder, name, "paper", format!("{encoder}/{method}")));
                    baselines.into_iter().chain([row(encoder, "LAPS", "paper", encoder.to_owned())])
                })
                .collect(),
            Self::Two => ["clip_vit_base_224", "clip_vit_large_224"]
                .map(|encoder| row(encoder, "LAPS", "paper_clip", encoder.to_owned()))
                .into(),
            Self::Four => ABLATIONS
                .into_iter()
                .map(|name| {
                    let row = row("vit_224", &name.replace('_', " "), "paper_ablation", name.to_owned());
                    match name {
                        "complete" | "attentive_scores_only" => {
                            PrintedRow { entries: ("paper", "vit_224".to_owned()), ..row }
                        }
                        _ => row,
                    }
                })
                .collect(),
            Self::D2sVse => references.d2s_vse.keys().map(|key| row(key, "D2S-VSE", "d2s_vse", key.clone())).collect(),
            Self::Seps => ENCODERS.map(|encoder| row(encoder, "SEPS", "seps", encoder.to_owned())).into(),
        }
    }
}

impl FromStr for PrintedTable {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let table = Self::ALL.iter().find(|(known, _)| *known == name).map(|&(_, table)| table);
        table.ok_or_else(|| Error::Argument {
            argument: "paper",
            expected: Self::ALL.map(|(known, _)| format!("`{known}`")).join(", "),
            found: format!("`{name}`"),
        })
    }
}

impl RecallTables {
    /// The whole printed `table`. Below each published row are the recalls of those `results` that evaluate an entry of this
    /// row on its whole test split, or that it was not measured.
    ///
    /// # Errors
    /// If the built-in entries and published tables, which are part of the program, cannot be read.
    pub fn printed(table: PrintedTable, mut results: Vec<Reproduction>) -> Result<Self> {
        results.sort_by_cached_key(sort_key);
        let references = References::embedded()?;
        let entries = registry::names().into_iter().map(registry::find).collect::<Result<Vec<_>, _>>()?;
        let rows = table.rows(&references);
        let mut tables = Vec::new();
        for protocol in Protocol::ALL {
            let mut groups: Vec<RowGroup> = Vec::new();
            for row in &rows {
                let Some(published) = published(row, protocol, &references) else { continue };
                let measured = measured(row, protocol, &entries, &results)?;
                let rows = std::iter::once(published).chain(measured);
                match groups.last_mut().filter(|group| group.name == row.group) {
                    Some(group) => group.rows.extend(rows),
                    None => groups.push(RowGroup { name: row.group.clone(), rows: rows.collect() }),
                }
            }
            if !groups.is_empty() {
                tables.push(RecallTable { protocol, groups });
            }
        }
        let results = results.iter().map(ResultUsed::new).collect();
        let audits = audits(table.audited().iter().copied(), &references);
        Ok(Self {
            schema: SCHEMA,
            source: Some(table.source().to_owned()),
            audits,
            tables,
            judged: Vec::new(),
            results,
        })
    }

    /// Whether any row is measured.
    pub(crate) fn has_measured(&self) -> bool {
        self.rows().any(|row| row.kind == RowKind::Measured)
    }
}

fn published(row: &PrintedRow, protocol: Protocol, references: &References) -> Option<RecallRow> {
    let (source, key) = &row.published;
    let table = references.rows(source)?.get(key)?.get(&protocol)?.published(source, protocol);
    Some(RecallRow {
        name: row.label.clone(),
        kind: RowKind::Published,
        result: None,
        audit: audit_of(source, references),
        figures: cells(&table),
    })
}

/// The rows of the results that evaluate an entry of `row`; one that says so if there are none.
fn measured(
    row: &PrintedRow,
    protocol: Protocol,
    entries: &[Entry],
    results: &[Reproduction],
) -> Result<Vec<RecallRow>> {
    let (source, key) = &row.entries;
    let is_of_row =
        |entry: &&Entry| entry.reference_row(source) == Some(key.as_str()) && entry.data.protocol.contains(&protocol);
    let entries: Vec<&Entry> = entries.iter().filter(is_of_row).collect();
    let mut rows = Vec::new();
    for (number, result) in (1..).zip(results) {
        let Some(entry) = entries.iter().find(|entry| entry.name == result.entry) else { continue };
        let evaluation = result.evaluations.iter().find(|evaluation| evaluation.protocol == protocol);
        let is_whole = result.limit.is_none() && result.split == entry.data.test;
        let Some(evaluation) = evaluation.filter(|evaluation| is_whole && evaluation.published_size) else { continue };
        if built_in(result)?.is_none() {
            continue;
        }
        let printed = |value| Some(Cell { value, status: Status::Printed });
        let [a, b, c, d, e, f] = recalls(&evaluation.headline).map(printed);
        let figures = [a, b, c, d, e, f, printed(evaluation.headline.rsum)];
        let name = format!("  measured, {}", entry.name);
        rows.push(RecallRow { name, kind: RowKind::Measured, result: Some(number), audit: None, figures });
    }
    if rows.is_empty() {
        let names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
        let names = if names.is_empty() { "no entry".to_owned() } else { names.join(", ") };
        let name = format!("  not measured, {names}");
        rows.push(RecallRow { name, kind: RowKind::NotMeasured, result: None, audit: None, figures: [None; 7] });
    }
    Ok(rows)
}
