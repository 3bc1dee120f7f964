//! Many results in the tables of the paper: entries by protocol, measured beside published.
//!
//! What is printed depends on the results alone, not on their order or on clocks, so that two versions of a table can be
//! compared line by line.

mod build;
mod csv;
mod latex;
mod markdown;
mod terminal;
#[cfg(test)]
mod tests;

use std::str::FromStr;

use laps_align::Protocol;
use laps_hub::registry::{Cell, Status};
use serde::Serialize;

use crate::{
    Error, Result,
    reproduce::{Provenance, Reproduction, Verdict, footnotes, mark, outcome, signed},
};

pub(crate) use markdown::table as markdown_table;

/// Version of [`Tables`] as JSON; it changes when the meaning of a field does.
pub const SCHEMA: u32 = 1;

/// Names of the figures of a row.
pub const FIGURES: [&str; 7] = ["i2t R@1", "R@5", "R@10", "t2i R@1", "R@5", "R@10", "rSum"];

/// The tables, and the results that they are of.
#[derive(Clone, Debug, Serialize)]
pub struct Tables {
    /// [`SCHEMA`].
    pub schema: u32,
    /// One a protocol, in the order of [`Protocol::ALL`].
    pub tables: Vec<RecallTable>,
    /// What measured what; rows refer to them by number, from 1.
    pub results: Vec<ResultUsed>,
}

/// The rows of a protocol.
#[derive(Clone, Debug, Serialize)]
pub struct RecallTable {
    /// How the recalls were measured.
    pub protocol: Protocol,
    /// One an entry, in the order of the registry; others come after, by name.
    pub groups: Vec<Group>,
}

/// The rows of an entry.
#[derive(Clone, Debug, Serialize)]
pub struct Group {
    /// Its name, and what is evaluated of its data where that is not the whole test split.
    pub name: String,
    /// Published rows first, then the measured ones, each with its differences.
    pub rows: Vec<Row>,
}

/// A row of figures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Who measured, or what it is the difference to.
    pub name: String,
    /// What the figures are.
    pub kind: RowKind,
    /// The number of the result in [`Tables::results`], where it is of one.
    pub result: Option<usize>,
    /// In percent or points, as [`FIGURES`] names them; None for what is not published.
    #[serde(serialize_with = "serialize_figures")]
    pub figures: [Option<Cell>; 7],
}

/// What the figures of a row are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RowKind {
    /// Of a method that the paper compares with.
    Baseline,
    /// Published for the entry.
    Published,
    /// Measured.
    Measured,
    /// Measured less published.
    Difference,
}

/// A result that rows are of.
#[derive(Clone, Debug, Serialize)]
pub struct ResultUsed {
    /// The entry.
    pub entry: String,
    /// The split.
    pub split: String,
    /// What its comparison came to.
    pub verdict: Verdict,
    /// What produced it.
    pub provenance: Provenance,
}

/// How tables are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// With lines, for a terminal.
    Terminal,
    /// As GitHub reads it.
    Markdown,
    /// A line a row, with what measured it.
    Csv,
    /// Tabular environments, without packages.
    Latex,
    /// [`Tables`].
    Json,
}

impl Format {
    /// Every format, with the name that it is asked for by.
    pub const ALL: [(&str, Self); 5] = [
        ("terminal", Self::Terminal),
        ("markdown", Self::Markdown),
        ("csv", Self::Csv),
        ("latex", Self::Latex),
        ("json", Self::Json),
    ];
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL.iter().find(|(known, _)| *known == name).map(|&(_, format)| format);
        found.ok_or_else(|| Error::Option {
            option: "--format",
            expected: Self::ALL.map(|(known, _)| format!("`{known}`")).join(", "),
            found: format!("`{name}`"),
        })
    }
}

impl Tables {
    /// The text of all tables, which ends with the end of a line.
    ///
    /// # Errors
    /// If they can not be written as JSON, which is not known to happen.
    pub fn render(&self, format: Format) -> serde_json::Result<String> {
        Ok(match format {
            Format::Terminal => terminal::render(self),
            Format::Markdown => markdown::render(self),
            Format::Csv => csv::render(self),
            Format::Latex => latex::render(self),
            Format::Json => format!("{}\n", serde_json::to_string_pretty(self)?),
        })
    }

    /// The notes as items of a Markdown list.
    pub(crate) fn markdown_notes(&self) -> Vec<String> {
        self.notes().iter().map(|note| markdown::escape(note)).collect()
    }

    fn rows(&self) -> impl Iterator<Item = &Row> {
        self.tables.iter().flat_map(|table| &table.groups).flat_map(|group| &group.rows)
    }

    /// What the reader has to know about the rows that there are.
    pub(crate) fn notes(&self) -> Vec<String> {
        let has = |kind, name| self.rows().any(|row| row.kind == kind && row.name.starts_with(name));
        let statuses = self.rows().flat_map(|row| row.figures).flatten().map(|cell| cell.status);
        let mut notes: Vec<String> = footnotes(statuses).into_iter().map(str::to_owned).collect();
        if has(RowKind::Baseline, "") || has(RowKind::Published, build::PAPER) {
            notes.push(
                "paper: Table 1, also for the methods that it compares with; its checkpoints are not published"
                    .to_owned(),
            );
        }
        if has(RowKind::Published, build::README) {
            notes.push(
                "README: what the authors print beside their checkpoints, which were chosen on the test split"
                    .to_owned(),
            );
        }
        notes.extend((1..).zip(&self.results).map(|(number, result)| format!("[{number}] {}", result.describe())));
        notes
    }
}

impl Row {
    /// The figure `index` as all formats for people show it: one decimal and the mark of its status, two decimals and a
    /// sign for a difference, `-` for none.
    fn text(&self, index: usize) -> String {
        match (self.kind, self.figures[index]) {
            (_, None) => "-".to_owned(),
            (RowKind::Difference, Some(cell)) => signed(cell.value),
            (_, Some(cell)) => format!("{:.1}{}", cell.value, mark(cell.status)),
        }
    }

    /// The name with the number of the result.
    pub(crate) fn label(&self) -> String {
        match (self.kind, self.result) {
            (RowKind::Measured, Some(number)) => format!("{} [{number}]", self.name),
            _ => self.name.clone(),
        }
    }

    pub(crate) fn texts(&self) -> [String; 7] {
        std::array::from_fn(|index| self.text(index))
    }
}

impl ResultUsed {
    fn new(result: &Reproduction) -> Self {
        Self {
            entry: result.entry.clone(),
            split: result.split.clone(),
            verdict: result.verdict.clone(),
            provenance: result.provenance.clone(),
        }
    }

    /// What produced the result, in a line.
    fn describe(&self) -> String {
        let Provenance { version, commit, config_sha256, checkpoint, data, engine, similarity, machine, .. } =
            &self.provenance;
        let short = |hash: &str| hash.chars().take(12).collect::<String>();
        let commit = commit.as_deref().map_or_else(String::new, |commit| format!(" ({commit})"));
        format!(
            "{} on {}: {}; checkpoint {} (sha256 {}), config {}, data {}; engine {engine}; similarities {similarity}; \
             {}, {}{}; laps-zoo {version}{commit}",
            self.entry,
            self.split,
            outcome(&self.verdict),
            checkpoint.file,
            short(&checkpoint.sha256),
            short(config_sha256),
            short(&data.sha256),
            machine.processor,
            machine.system,
            machine.gpu_names(),
        )
    }
}

fn serialize_figures<S: serde::Serializer>(figures: &[Option<Cell>; 7], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Figure {
        value: f64,
        status: Status,
    }
    let figures = figures.map(|cell| cell.map(|Cell { value, status }| Figure { value, status }));
    figures.serialize(serializer)
}
