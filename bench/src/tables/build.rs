//! Builds the tables from results.

use std::collections::BTreeMap;

use laps_align::{Evaluation, JudgedMetrics, Protocol};
use laps_hub::registry::{self, AuditMark, Cell, Entry, PublishedTable, References, SourceAudit, Status};

use super::{JudgedRow, RecallRow, RecallTable, RecallTables, ResultUsed, RowGroup, RowKind, SCHEMA};
use crate::{
    Result,
    reproduce::{EvaluatedModel, PublishedComparison, RecallDifference, Reproduction, recalls},
};

/// Methods that the paper compares with: key in `references.yaml`, and name.
pub(super) const BASELINES: [(&str, &str); 4] =
    [("vsepp", "VSE++"), ("scan", "SCAN"), ("sgr", "SGR"), ("chan", "CHAN")];
/// Labels of the published rows of built-in sources.
pub(super) const PAPER: &str = "LAPS, paper";
pub(super) const README: &str = "LAPS, README";

impl RecallTables {
    /// The tables of results, whose order does not matter.
    ///
    /// # Errors
    /// If the published tables, which are part of the program, cannot be read.
    pub fn new(results: Vec<Reproduction>) -> Result<Self> {
        Ok(Self::sorted(results)?.0)
    }

    /// The published tables of an entry.
    ///
    /// # Errors
    /// If the published tables, which are part of the program, cannot be read.
    pub fn published(entry: &Entry) -> Result<Self> {
        let references = References::embedded()?;
        let table = |&protocol: &Protocol| {
            let row = |table: &PublishedTable| RecallRow {
                name: source_name(&table.source, Some(entry)),
                kind: RowKind::Published,
                result: None,
                audit: audit_of(&table.source, &references),
                figures: cells(table),
            };
            let published = entry.published(protocol);
            let rows: Vec<RecallRow> =
                baselines(entry, protocol, &references).into_iter().chain(published.iter().map(row)).collect();
            let groups = vec![RowGroup { name: entry.name.clone(), rows }];
            (!groups[0].rows.is_empty()).then_some(RecallTable { protocol, groups })
        };
        let tables = entry.data.protocol.iter().filter_map(table).collect();
        let published: Vec<PublishedTable> =
            entry.data.protocol.iter().flat_map(|&protocol| entry.published(protocol)).collect();
        let audits = audits(published.iter().map(|table| table.source.as_str()), &references);
        Ok(Self { schema: SCHEMA, source: None, audits, tables, judged: Vec::new(), results: Vec::new() })
    }

    /// The same as [`RecallTables::new`], with the results in the order of their numbers.
    pub(crate) fn sorted(mut results: Vec<Reproduction>) -> Result<(Self, Vec<Reproduction>)> {
        results.sort_by_cached_key(sort_key);
        let references = References::embedded()?;
        let tables =
            Protocol::ALL.into_iter().filter_map(|protocol| table(protocol, &results, &references).transpose());
        let comparisons = results.iter().flat_map(|result| &result.comparisons);
        let tables = Self {
            schema: SCHEMA,
            source: None,
            audits: audits(comparisons.map(|comparison| comparison.source.as_str()), &references),
            tables: tables.collect::<Result<_>>()?,
            judged: judged(&results),
            results: results.iter().map(ResultUsed::new).collect(),
        };
        Ok((tables, results))
    }
}

/// Metrics by human judgements, by set and then by result.
fn judged(results: &[Reproduction]) -> Vec<JudgedRow> {
    let rows = (1..).zip(results).flat_map(|(number, result)| {
        result.judged.iter().map(move |judged| {
            let values = |found: &JudgedMetrics| [found.map_at_r, found.r_precision, found.r1, found.r5, found.r10];
            let [i2t, t2i] = [&judged.metrics.i2t, &judged.metrics.t2i].map(values);
            JudgedRow { set: judged.set, name: result.entry.clone(), result: number, i2t, t2i }
        })
    });
    let mut rows: Vec<JudgedRow> = rows.collect();
    rows.sort_by_key(|row| row.set.to_string());
    rows
}

/// Sort key: everything that distinguishes results, except times.
pub(super) fn sort_key(result: &Reproduction) -> (usize, String, String, String, usize, [String; 5]) {
    let Reproduction { entry, split, limit, provenance, .. } = result;
    let position = registry::names().iter().position(|name| name == entry).unwrap_or(usize::MAX);
    let [checkpoint, data, engine] = match &provenance.model {
        EvaluatedModel::Entry(used) => {
            [used.checkpoint.sha256.clone(), used.data.sha256.clone(), used.engine.to_string()]
        }
        EvaluatedModel::Foreign { foreign } => [foreign.describe(), String::new(), String::new()],
    };
    let rest = [checkpoint, data, engine, provenance.similarity.clone(), provenance.machine.processor.clone()];
    (position, entry.clone(), config_sha256(result).to_owned(), split.clone(), limit.unwrap_or(0), rest)
}

/// The table of a protocol; `None` if no result has it.
fn table(protocol: Protocol, results: &[Reproduction], references: &References) -> Result<Option<RecallTable>> {
    let numbered = (1..).zip(results);
    let with: Vec<(usize, &Reproduction, &Evaluation)> = numbered
        .filter_map(|(number, result)| {
            let evaluation = result.evaluations.iter().find(|evaluation| evaluation.protocol == protocol)?;
            Some((number, result, evaluation))
        })
        .collect();
    let same = |a: &Reproduction, b: &Reproduction| {
        let key = |result: &Reproduction| (result.entry.clone(), result.split.clone(), result.limit);
        key(a) == key(b) && config_sha256(a) == config_sha256(b)
    };
    let groups = with.chunk_by(|(_, a, _), (_, b, _)| same(a, b));
    let groups = groups.map(|group| rows(group, references)).collect::<Result<Vec<_>>>()?;
    Ok((!groups.is_empty()).then_some(RecallTable { protocol, groups }))
}

fn rows(results: &[(usize, &Reproduction, &Evaluation)], references: &References) -> Result<RowGroup> {
    let [(_, first, evaluation), ..] = results else { return Ok(RowGroup { name: String::new(), rows: Vec::new() }) };
    let entry = built_in(first)?;
    let mut rows = Vec::new();
    if let Some(entry) = &entry
        && evaluation.published_size
        && first.split == entry.data.test
    {
        rows.extend(baselines(entry, evaluation.protocol, references));
    }
    let comparisons = |result: &'_ Reproduction| {
        let of_this = |comparison: &&PublishedComparison| comparison.protocol == evaluation.protocol;
        result.comparisons.iter().filter(of_this).cloned().collect::<Vec<_>>()
    };
    for comparison in results.iter().flat_map(|(_, result, _)| comparisons(result)) {
        let name = source_name(&comparison.source, entry.as_ref());
        let figures = figures(&comparison, |cell| Cell { value: cell.published, status: cell.status });
        let audit = audit_of(&comparison.source, references);
        let row = RecallRow { name, kind: RowKind::Published, result: None, audit, figures };
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
    for &(number, result, evaluation) in results {
        let printed = |value| Some(Cell { value, status: Status::Printed });
        let [a, b, c, d, e, f] = recalls(&evaluation.headline).map(printed);
        let measured = [a, b, c, d, e, f, printed(evaluation.headline.rsum)];
        let row = |name, kind, figures| RecallRow { name, kind, result: Some(number), audit: None, figures };
        rows.push(row("measured".to_owned(), RowKind::Measured, measured));
        for comparison in comparisons(result) {
            let name = format!("  minus {}", source_name(&comparison.source, entry.as_ref()));
            let cell = |cell: RecallDifference| Cell { value: cell.difference, status: Status::Printed };
            rows.push(row(name, RowKind::Difference, figures(&comparison, cell)));
        }
    }
    Ok(RowGroup { name: name(first, entry.as_ref()), rows })
}

/// The hash of the configuration; empty for a foreign model.
fn config_sha256(result: &Reproduction) -> &str {
    result.provenance.entry().map_or("", |entry| &entry.config_sha256)
}

/// The built-in entry of a result; `None` for a foreign model, and if the configuration differs from the entry of that
/// name.
pub(super) fn built_in(result: &Reproduction) -> Result<Option<Entry>> {
    if !registry::names().contains(&result.entry.as_str()) {
        return Ok(None);
    }
    let entry = registry::find(&result.entry)?;
    Ok((entry.config_sha256 == config_sha256(result)).then_some(entry))
}

/// The name of the entry, and what was evaluated unless it is the whole test split.
fn name(result: &Reproduction, entry: Option<&Entry>) -> String {
    let mut name = result.title();
    if entry.is_none() && result.provenance.foreign().is_none() && registry::names().contains(&result.entry.as_str()) {
        name += ", different configuration";
    }
    if entry.is_none_or(|entry| entry.data.test != result.split) {
        name += &format!(", split {}", result.split);
    }
    if let Some(limit) = result.limit {
        name += &format!(", first {limit} images");
    }
    name
}

/// The label of published recalls: in the paper those of the method that `entry` refers to.
fn source_name(source: &str, entry: Option<&Entry>) -> String {
    let method = entry.and_then(|entry| entry.reference_row(source)?.split_once('/')).map(|(_, method)| method);
    let baseline = BASELINES.iter().find(|(key, _)| Some(*key) == method);
    match (source, baseline) {
        ("paper", Some((_, name))) => format!("{name}, paper"),
        ("paper", None) => PAPER.to_owned(),
        ("readme", _) => README.to_owned(),
        (other, _) => other.to_owned(),
    }
}

/// The paper's recalls of the methods that it compares with, for the same image encoder.
fn baselines(entry: &Entry, protocol: Protocol, references: &References) -> Vec<RecallRow> {
    let methods = entry.reference_row("paper").and_then(|row| references.paper.get(row));
    let row = |(key, name): (&str, &str)| {
        let figures = cells(&methods?.get(key)?.get(&protocol)?.published("paper", protocol));
        Some(RecallRow { name: name.to_owned(), kind: RowKind::Baseline, result: None, audit: None, figures })
    };
    BASELINES.into_iter().filter_map(row).collect()
}

/// The audits of those `sources` that have one, by source.
pub(super) fn audits<'a>(
    sources: impl Iterator<Item = &'a str>,
    references: &References,
) -> BTreeMap<String, SourceAudit> {
    sources.filter_map(|source| Some((source.to_owned(), references.audits.get(source)?.clone()))).collect()
}

/// The answer of the audit of `source`.
pub(super) fn audit_of(source: &str, references: &References) -> Option<AuditMark> {
    references.audits.get(source).map(|audit| audit.mark)
}

pub(super) fn cells(table: &PublishedTable) -> [Option<Cell>; 7] {
    let ([a, b, c], [d, e, f]) = (table.i2t, table.t2i);
    [a, b, c, d, e, f, table.rsum]
}

fn figures(comparison: &PublishedComparison, cell: impl Fn(RecallDifference) -> Cell) -> [Option<Cell>; 7] {
    let [a, b, c, d, e, f] = comparison.recalls;
    [a, b, c, d, e, f, comparison.rsum].map(|difference| difference.map(&cell))
}
