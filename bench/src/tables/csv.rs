//! Tables as comma-separated values: one line per row, with its provenance.

use laps_hub::registry::Status;

use super::{CellMark, RecallTables, ResultUsed, RowKind};
use crate::reproduce::ForeignModel;

const HEADER: [&str; 14] = [
    "protocol", "entry", "row", "kind", "i2t_r1", "i2t_r5", "i2t_r10", "t2i_r1", "t2i_r5", "t2i_r10", "rsum", "marks",
    "result", "cells",
];
/// Metrics of rows by human judgements only.
const JUDGED: [&str; 4] = ["i2t_map_at_r", "i2t_r_precision", "t2i_map_at_r", "t2i_r_precision"];
const PROVENANCE: [&str; 10] = [
    "checkpoint_sha256",
    "config_sha256",
    "data_sha256",
    "engine",
    "similarity",
    "processor",
    "system",
    "version",
    "commit",
    "foreign",
];

/// A header, then the rows. Recalls have three decimals, which distinguish any two recalls.
pub(super) fn render(tables: &RecallTables) -> String {
    let mut text = line(HEADER.iter().chain(&PROVENANCE).chain(&JUDGED).map(|name| (*name).to_owned()));
    for table in &tables.tables {
        for (group, row) in table.groups.iter().flat_map(|group| group.rows.iter().map(move |row| (group, row))) {
            let kind = match row.kind {
                RowKind::Baseline => "baseline",
                RowKind::Published => "published",
                RowKind::Measured => "measured",
                RowKind::Difference => "difference",
                RowKind::NotMeasured => "not_measured",
            }
            .to_owned();
            let name = row.name.trim_start().to_owned();
            let figures = row.figures.map(|cell| cell.map_or_else(String::new, |cell| number(cell.value)));
            let marked = HEADER[4..11].iter().zip(row.figures).filter_map(|(name, cell)| {
                let status = cell?.status;
                (status != Status::Printed).then(|| format!("{name} {status}"))
            });
            let audit = row.audit.map(|audit| format!("audit {audit}"));
            let marks = marked.chain(audit).collect::<Vec<_>>().join("; ");
            // What each of the seven figures is, also the empty ones.
            let cells = row.marks().map(CellMark::name).join("; ");
            let result = row.result.map_or_else(String::new, |number| number.to_string());
            let provenance = row.result.map_or_else(Default::default, |number| provenance(tables, number));
            let first = [table.protocol.name().to_owned(), group.name.clone(), name, kind];
            text += &line(
                first
                    .into_iter()
                    .chain(figures)
                    .chain([marks, result, cells])
                    .chain(provenance)
                    .chain(const { [const { String::new() }; 4] }),
            );
        }
    }
    for row in &tables.judged {
        let first = [row.set.to_string(), row.name.clone(), "measured".to_owned(), "judged".to_owned()];
        let ([map_i2t, precision_i2t, i2t @ ..], [map_t2i, precision_t2i, t2i @ ..]) = (row.i2t, row.t2i);
        let recalls = i2t.into_iter().chain(t2i).map(number).chain([const { String::new() }; 2]);
        let recalls = recalls.chain([row.result.to_string(), String::new()]);
        let judged = [map_i2t, precision_i2t, map_t2i, precision_t2i].map(number);
        text += &line(first.into_iter().chain(recalls).chain(provenance(tables, row.result)).chain(judged));
    }
    text
}

/// The columns [`PROVENANCE`] of a result.
fn provenance(tables: &RecallTables, number: usize) -> [String; 10] {
    let Some(ResultUsed { provenance, .. }) = tables.results.get(number - 1) else { return Default::default() };
    let [checkpoint, config, data, engine] = provenance.entry().map_or_else(Default::default, |used| {
        let hashes = [&used.checkpoint.sha256, &used.config_sha256, &used.data.sha256];
        let [checkpoint, config, data] = hashes.map(String::clone);
        [checkpoint, config, data, used.engine.to_string()]
    });
    [
        checkpoint,
        config,
        data,
        engine,
        provenance.similarity.clone(),
        provenance.machine.processor.clone(),
        provenance.machine.system.clone(),
        provenance.version.to_string(),
        provenance.commit.as_deref().unwrap_or_default().to_owned(),
        provenance.foreign().map_or_else(String::new, ForeignModel::describe),
    ]
}

fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    if text == "-0.000" { "0.000".to_owned() } else { text }
}

/// A line as in RFC 4180, except for the line ending.
fn line(cells: impl Iterator<Item = String>) -> String {
    let quote = |cell: String| {
        if cell.contains([',', '"', '\n', '\r']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell }
    };
    format!("{}\n", cells.map(quote).collect::<Vec<_>>().join(","))
}
