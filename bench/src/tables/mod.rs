//! Results as the tables of the paper: one table per protocol, with measured and published recalls of each entry.
//!
//! The text depends only on the results, not on their order or on times, so that versions of a table can be compared
//! line by line.

mod build;
mod csv;
mod latex;
mod markdown;
mod printed;
mod terminal;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, str::FromStr};

use laps_align::Protocol;
use laps_hub::registry::{AuditMark, Cell, SourceAudit, Status};
use serde::Serialize;

use crate::{
    Error, Result,
    foreign::JudgementSet,
    reproduce::{
        AUDITED, EvaluatedModel, Provenance, Reproduction, Verdict, audit_mark, footnotes, mark, outcome, short, signed,
    },
};

pub(crate) use markdown::table as markdown_table;
pub use printed::PrintedTable;

/// Version of the JSON format of [`RecallTables`]; it changes when a field changes its meaning.
pub const SCHEMA: u32 = 1;

/// Text of a cell that was not measured.
const NOT_MEASURED: &str = "n/m";
/// Text of a cell of a printed table that its source does not have.
const NOT_PUBLISHED: &str = "n/p";

/// Names of the columns.
pub const COLUMNS: [&str; 7] = ["i2t R@1", "R@5", "R@10", "t2i R@1", "R@5", "R@10", "rSum"];

/// The tables, and the results in them.
#[derive(Clone, Debug, Serialize)]
pub struct RecallTables {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Where the published recalls of a printed table come from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The audits of the sources of the published recalls, by source.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub audits: BTreeMap<String, SourceAudit>,
    /// One per protocol, in the order of [`Protocol::ALL`].
    pub tables: Vec<RecallTable>,
    /// Metrics by human judgements, of the results that have them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub judged: Vec<JudgedRow>,
    /// The results; rows refer to them by number, starting at 1.
    pub results: Vec<ResultUsed>,
}

/// Names of the metrics by human judgements.
pub const JUDGED_COLUMNS: [&str; 5] = ["mAP@R", "R-P", "R@1", "R@5", "R@10"];

/// The metrics of a result by one set of human judgements.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JudgedRow {
    /// The judgements.
    pub set: JudgementSet,
    /// Name of the entry or the foreign model.
    pub name: String,
    /// Number of the result in [`RecallTables::results`].
    pub result: usize,
    /// Image to text, in percent, in the order of [`JUDGED_COLUMNS`].
    pub i2t: [f64; 5],
    /// Text to image.
    pub t2i: [f64; 5],
}

impl JudgedRow {
    /// Label and metrics of both directions.
    fn lines(&self) -> [(String, [String; 5]); 2] {
        [("i2t", self.i2t), ("t2i", self.t2i)].map(|(direction, values)| {
            let label = format!("{} {direction}, {} [{}]", self.set, self.name, self.result);
            (label, values.map(|value| format!("{value:.2}")))
        })
    }
}

/// The table of one protocol.
#[derive(Clone, Debug, Serialize)]
pub struct RecallTable {
    /// The protocol.
    pub protocol: Protocol,
    /// One per entry, in the order of the registry, then other entries by name.
    pub groups: Vec<RowGroup>,
}

/// The rows of one entry.
#[derive(Clone, Debug, Serialize)]
pub struct RowGroup {
    /// Name of the entry, and what was evaluated unless it is the whole test split.
    pub name: String,
    /// Published rows, then measured rows, each followed by its differences.
    pub rows: Vec<RecallRow>,
}

/// A row of recalls.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(into = "MarkedRow")]
pub struct RecallRow {
    /// Label: the source of the recalls.
    pub name: String,
    /// Kind of the recalls.
    pub kind: RowKind,
    /// Number of the result in [`RecallTables::results`], for measured rows and differences.
    pub result: Option<usize>,
    /// The audit of the source, for published rows of a source that has one.
    pub audit: Option<AuditMark>,
    /// Recalls in percent, or differences in points, in the order of [`COLUMNS`]; `None` if not published.
    pub figures: [Option<Cell>; 7],
}

/// The origin of a figure in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "&'static str")]
pub enum CellMark {
    /// The source publishes it.
    Published,
    /// The source does not have it.
    NotPublished,
    /// The result of the row, whose provenance is with the table, has it.
    Measured,
    /// No result has it.
    NotMeasured,
    /// It is a difference of two others.
    Difference,
}

impl CellMark {
    /// Its name, as in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::NotPublished => "not_published",
            Self::Measured => "measured",
            Self::NotMeasured => "not_measured",
            Self::Difference => "difference",
        }
    }
}

impl From<CellMark> for &'static str {
    fn from(mark: CellMark) -> Self {
        mark.name()
    }
}

/// A [`RecallRow`] as JSON, with the mark of each figure.
#[derive(Serialize)]
struct MarkedRow {
    name: String,
    kind: RowKind,
    result: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    audit: Option<AuditMark>,
    #[serde(serialize_with = "serialize_figures")]
    figures: [Option<Cell>; 7],
    marks: [CellMark; 7],
}

impl From<RecallRow> for MarkedRow {
    fn from(row: RecallRow) -> Self {
        let marks = row.marks();
        let RecallRow { name, kind, result, audit, figures } = row;
        Self { name, kind, result, audit, figures, marks }
    }
}

/// How a cell is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CellStyle {
    /// The number alone.
    Plain,
    /// The number with its [`CellMark`].
    Marked,
}

/// Kind of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RowKind {
    /// Published for a method that the paper compares with.
    Baseline,
    /// Published for the entry.
    Published,
    /// Measured by a result.
    Measured,
    /// Measured minus published.
    Difference,
    /// Stands where no result measures a published row.
    NotMeasured,
}

/// A result in the tables.
#[derive(Clone, Debug, Serialize)]
pub struct ResultUsed {
    /// The entry, or the name of a foreign model.
    pub entry: String,
    /// The split.
    pub split: String,
    /// Its verdict.
    pub verdict: Verdict,
    /// Its provenance.
    pub provenance: Provenance,
}

/// Output format of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableFormat {
    /// Tables with borders, for a terminal.
    Terminal,
    /// GitHub-flavoured Markdown.
    Markdown,
    /// One self-contained line per row.
    Csv,
    /// LaTeX `tabular` environments that need no packages.
    Latex,
    /// [`RecallTables`] as JSON.
    Json,
}

impl TableFormat {
    /// Every format by name.
    pub const ALL: [(&str, Self); 5] = [
        ("terminal", Self::Terminal),
        ("markdown", Self::Markdown),
        ("csv", Self::Csv),
        ("latex", Self::Latex),
        ("json", Self::Json),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, format)| *format == self).map_or("", |(name, _)| name)
    }
}

impl FromStr for TableFormat {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let format = Self::ALL.iter().find(|(known, _)| *known == name).map(|&(_, format)| format);
        format.ok_or_else(|| Error::Argument {
            argument: "format",
            expected: Self::ALL.map(|(known, _)| format!("`{known}`")).join(", "),
            found: format!("`{name}`"),
        })
    }
}

impl RecallTables {
    /// The text of all tables, ending with a newline.
    ///
    /// # Errors
    /// A failure to serialise JSON, which is not known to happen.
    pub fn render(&self, format: TableFormat) -> serde_json::Result<String> {
        Ok(match format {
            TableFormat::Terminal => terminal::render(self),
            TableFormat::Markdown => markdown::render(self),
            TableFormat::Csv => csv::render(self),
            TableFormat::Latex => latex::render(self),
            TableFormat::Json => format!("{}\n", serde_json::to_string_pretty(self)?),
        })
    }

    /// How the cells are written: in a printed table with their marks.
    pub(crate) fn style(&self) -> CellStyle {
        if self.source.is_some() { CellStyle::Marked } else { CellStyle::Plain }
    }

    /// The notes, escaped for Markdown.
    pub(crate) fn markdown_notes(&self) -> Vec<String> {
        self.notes().iter().map(|note| markdown::escape(note)).collect()
    }

    fn rows(&self) -> impl Iterator<Item = &RecallRow> {
        self.tables.iter().flat_map(|table| &table.groups).flat_map(|group| &group.rows)
    }

    /// Notes that the rows need: marks, sources and provenance.
    pub(crate) fn notes(&self) -> Vec<String> {
        let has = |kind, name| self.rows().any(|row| row.kind == kind && row.name.starts_with(name));
        let statuses = self.rows().flat_map(|row| row.figures).flatten().map(|cell| cell.status);
        let mut notes: Vec<String> = footnotes(statuses).into_iter().map(str::to_owned).collect();
        if self.rows().any(|row| row.audit == Some(AuditMark::Yes)) {
            notes.push(AUDITED.to_owned());
        }
        let is_plain = self.style() == CellStyle::Plain;
        if is_plain && has(RowKind::Baseline, "") || has(RowKind::Published, build::PAPER) {
            notes.push(
                "paper: Table 1 of the paper, also for the methods it compares with; its checkpoints are not published"
                    .to_owned(),
            );
        }
        if has(RowKind::Published, build::README) {
            notes.push(
                "README: recalls that the authors give for their checkpoints, which were selected on the test split"
                    .to_owned(),
            );
        }
        notes.extend(self.source.clone());
        notes.extend(self.audits.iter().map(|(source, audit)| audit.note(source)));
        if !is_plain {
            notes.push(format!(
                "p: published; [N]: measured here, by result N; {NOT_MEASURED}: not measured here; {NOT_PUBLISHED}: not \
                 published"
            ));
        }
        notes.extend((1..).zip(&self.results).map(|(number, result)| format!("[{number}] {}", result.describe())));
        notes
    }
}

impl RecallRow {
    /// The mark of each figure.
    pub(crate) fn marks(&self) -> [CellMark; 7] {
        self.figures.map(|figure| match (self.kind, figure) {
            (RowKind::Difference, _) => CellMark::Difference,
            (RowKind::NotMeasured, _) | (RowKind::Measured, None) => CellMark::NotMeasured,
            (RowKind::Measured, Some(_)) => CellMark::Measured,
            (RowKind::Published | RowKind::Baseline, Some(_)) => CellMark::Published,
            (RowKind::Published | RowKind::Baseline, None) => CellMark::NotPublished,
        })
    }

    /// Column `index` as text: one decimal and the marks of its status and of the audit; sign and two decimals for a
    /// difference; `-` for `None`; [`NOT_MEASURED`] in a row without a result. A marked cell also has its [`CellMark`].
    fn text(&self, index: usize, style: CellStyle) -> String {
        let number = |cell: Cell| format!("{:.1}{}{}", cell.value, mark(cell.status), audit_mark(self.audit));
        match (self.marks()[index], self.figures[index], style) {
            (CellMark::NotMeasured, ..) => NOT_MEASURED.to_owned(),
            (CellMark::Difference, Some(cell), _) => signed(cell.value),
            (CellMark::NotPublished, _, CellStyle::Marked) => NOT_PUBLISHED.to_owned(),
            (_, None, _) => "-".to_owned(),
            (CellMark::Measured, Some(cell), CellStyle::Marked) => match self.result {
                Some(result) => format!("{} [{result}]", number(cell)),
                None => number(cell),
            },
            (_, Some(cell), CellStyle::Marked) => format!("{} p", number(cell)),
            (_, Some(cell), CellStyle::Plain) => number(cell),
        }
    }

    /// The name, with the number of the result for measured rows.
    pub(crate) fn label(&self) -> String {
        match (self.kind, self.result) {
            (RowKind::Measured, Some(number)) => format!("{} [{number}]", self.name),
            _ => self.name.clone(),
        }
    }

    pub(crate) fn texts(&self, style: CellStyle) -> [String; 7] {
        std::array::from_fn(|index| self.text(index, style))
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

    /// Verdict and provenance in one line.
    fn describe(&self) -> String {
        let Provenance { version, commit, model, similarity, machine, .. } = &self.provenance;
        let commit = commit.as_deref().map_or_else(String::new, |commit| format!(" ({commit})"));
        let model = match model {
            EvaluatedModel::Entry(used) => format!(
                "checkpoint {} (sha256 {}), config {}, data {}; engine {}",
                used.checkpoint.file,
                short(&used.checkpoint.sha256),
                short(&used.config_sha256),
                short(&used.data.sha256),
                used.engine
            ),
            EvaluatedModel::Foreign { foreign } => foreign.describe(),
        };
        format!(
            "{} on {}: {}; {model}; similarities {similarity}; {}, {}{}; laps-zoo {version}{commit}",
            self.entry,
            self.split,
            outcome(&self.verdict),
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
