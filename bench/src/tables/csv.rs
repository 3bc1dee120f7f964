//! Tables as comma-separated values: one line per row, with its provenance.

use laps_hub::registry::Status;

use super::{RecallTables, RowKind};
use crate::reproduce::ForeignModel;

const HEADER: [&str; 13] = [
    "protocol", "entry", "row", "kind", "i2t_r1", "i2t_r5", "i2t_r10", "t2i_r1", "t2i_r5", "t2i_r10", "rsum", "marks",
    "result",
];
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
    let mut text = line(HEADER.iter().chain(&PROVENANCE).map(|name| (*name).to_owned()));
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
            let marks = marked.collect::<Vec<_>>().join("; ");
            let result = row.result.map_or_else(String::new, |number| number.to_string());
            let provenance = row.result.and_then(|number| Some(&tables.results.get(number - 1)?.provenance));
            let provenance = provenance.map_or_else(Default::default, |provenance| {
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
            });
            let first = [table.protocol.name().to_owned(), group.name.clone(), name, kind];
            text += &line(first.into_iter().chain(figures).chain([marks, result]).chain(provenance));
        }
    }
    text
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
