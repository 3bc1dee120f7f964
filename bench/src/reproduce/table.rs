//! The result as a table for the terminal.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};
use laps_align::Evaluation;
use laps_hub::registry::{AuditMark, Status};

use super::{
    CheckpointUsed, EvaluatedModel, JudgedEvaluation, PublishedComparison, RecallDifference, Reproduction, RunTime,
    Verdict, compare::recalls, short,
};
use crate::statistics::RecallIntervals;

/// Mark of a recall that is not where its source prints it.
pub(crate) fn mark(status: Status) -> &'static str {
    match status {
        Status::Printed => "",
        Status::Restored => "\u{2020}",
        Status::Inferred => "\u{2021}",
    }
}

/// Mark of a recall whose queries contain descriptions of the test images, by the audit of its source.
pub(crate) fn audit_mark(audit: Option<AuditMark>) -> &'static str {
    match audit {
        Some(AuditMark::Yes) => "\u{a7}",
        Some(AuditMark::No) | None => "",
    }
}

/// The meaning of [`audit_mark`].
pub(crate) const AUDITED: &str =
    "\u{a7} audit: the queries contain descriptions of the test images, so the recall does not compare with others";
const RESTORED: &str = "\u{2020} restored: an earlier version of the source has it in the right place";
const INFERRED: &str = "\u{2021} inferred: the source prints it in a row where it cannot belong";

/// Measured and published recalls, differences, times and the verdict.
pub fn render(result: &Reproduction) -> String {
    let mut text = String::new();
    let Reproduction { entry, split, images, captions, provenance, .. } = result;
    line(&mut text, format_args!("{entry}, split {split}: {images} images, {captions} captions"));
    match &provenance.model {
        EvaluatedModel::Entry(used) => {
            let CheckpointUsed { file, sha256, .. } = &used.checkpoint;
            line(&mut text, format_args!("checkpoint {file} (sha256 {})", short(sha256)));
            line(&mut text, format_args!("engine {}; similarities {}", used.engine, provenance.similarity));
        }
        EvaluatedModel::Foreign { foreign } => {
            line(&mut text, format_args!("{}", foreign.describe()));
            line(&mut text, format_args!("similarities {}", provenance.similarity));
        }
    }
    for evaluation in &result.evaluations {
        line(&mut text, format_args!("\n{}", recall_table(evaluation, &result.comparisons)));
        line(&mut text, format_args!("{}", ranks(evaluation)));
    }
    if !result.intervals.is_empty() {
        line(&mut text, format_args!("\n{}", interval_table(&result.intervals)));
    }
    if !result.judged.is_empty() {
        line(&mut text, format_args!("\n{}", judged_table(&result.judged)));
    }
    let published = result.comparisons.iter().flat_map(|comparison| comparison.recalls).flatten();
    for footnote in footnotes(published.map(|cell| cell.status)) {
        line(&mut text, format_args!("{footnote}"));
    }
    line(&mut text, format_args!("\n{}", stages(result)));
    for note in &result.notes {
        line(&mut text, format_args!("note: {note}"));
    }
    line(&mut text, format_args!("verdict: {}", outcome(&result.verdict)));
    text
}

fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{content}");
}

fn recall_table(evaluation: &Evaluation, comparisons: &[PublishedComparison]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header([evaluation.protocol.name(), "i2t R@1", "R@5", "R@10", "t2i R@1", "R@5", "R@10", "rSum"]);
    let measured = recalls(&evaluation.headline).map(|recall| format!("{recall:.1}"));
    table.add_row(row("measured", measured, format!("{:.1}", evaluation.headline.rsum)));
    for comparison in comparisons.iter().filter(|comparison| comparison.protocol == evaluation.protocol) {
        let show =
            |cell: Option<RecallDifference>, f: fn(RecallDifference) -> String| cell.map_or_else(|| "-".to_owned(), f);
        let published: fn(RecallDifference) -> String = |cell| format!("{:.1}{}", cell.published, mark(cell.status));
        let difference: fn(RecallDifference) -> String = |cell| signed(cell.difference);
        let cells = comparison.recalls.map(|cell| show(cell, published));
        table.add_row(row(&comparison.source, cells, show(comparison.rsum, published)));
        let cells = comparison.recalls.map(|cell| show(cell, difference));
        table.add_row(row("  difference", cells, show(comparison.rsum, difference)));
    }
    right_aligned(table)
}

fn interval_table(intervals: &[RecallIntervals]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(["95% intervals", "i2t R@1", "R@5", "R@10", "t2i R@1", "R@5", "R@10", "rSum"]);
    for interval in intervals {
        let cell = |[low, high]: [f64; 2]| format!("{low:.1} to {high:.1}");
        table.add_row(row(interval.protocol.name(), interval.recalls.map(cell), cell(interval.rsum)));
    }
    right_aligned(table)
}

fn judged_table(judged: &[JudgedEvaluation]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(["judgements", "queries", "mAP@R", "R-P", "R@1", "R@5", "R@10"]);
    for JudgedEvaluation { set, metrics, .. } in judged {
        for (direction, found) in [("i2t", &metrics.i2t), ("t2i", &metrics.t2i)] {
            let values = [found.map_at_r, found.r_precision, found.r1, found.r5, found.r10];
            let cells = values.map(|value| format!("{value:.2}"));
            table.add_row([format!("{set} {direction}"), found.queries.to_string()].into_iter().chain(cells));
        }
    }
    right_aligned(table)
}

/// All columns but the first aligned to the right.
fn right_aligned(mut table: Table) -> Table {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// A difference with sign and two decimals; no sign if it rounds to zero.
pub(crate) fn signed(difference: f64) -> String {
    let text = format!("{difference:+.2}");
    if text == "-0.00" || text == "+0.00" { "0.00".to_owned() } else { text }
}

fn row(name: &str, recalls: [String; 6], rsum: String) -> Vec<String> {
    std::iter::once(name.to_owned()).chain(recalls).chain([rsum]).collect()
}

fn ranks(evaluation: &Evaluation) -> String {
    let (i2t, t2i) = (&evaluation.headline.i2t, &evaluation.headline.t2i);
    let mut text = format!(
        "median rank {:.0} / {:.0}, mean rank {:.3} / {:.3} (image to text / text to image)",
        i2t.median_rank, t2i.median_rank, i2t.mean_rank, t2i.mean_rank
    );
    let ties = evaluation.ties;
    if ties.i2t + ties.t2i > 0 {
        let (low, high) = (evaluation.pessimistic.rsum, evaluation.optimistic.rsum);
        let _ = write!(
            text,
            "\nties: {} image and {} caption queries; of equal scores the later ranks first; rSum {low:.1} to {high:.1} with other tie rules",
            ties.i2t, ties.t2i
        );
    }
    if evaluation.folds.len() > 1 {
        let sums: Vec<String> = evaluation.folds.iter().map(|fold| format!("{:.1}", fold.headline.rsum)).collect();
        let _ = write!(text, "\nrSum by fold: {}", sums.join(", "));
    }
    text
}

/// The meaning of the marks of these statuses.
pub(crate) fn footnotes(statuses: impl Iterator<Item = Status>) -> Vec<&'static str> {
    let present: Vec<Status> = statuses.collect();
    [(Status::Restored, RESTORED), (Status::Inferred, INFERRED)]
        .into_iter()
        .filter_map(|(status, text)| present.contains(&status).then_some(text))
        .collect()
}

fn stages(result: &Reproduction) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(["stage", "seconds", "items", "per second"]);
    for stage in &result.stages {
        table.add_row([
            stage.name.to_string(),
            format!("{:.2}", stage.seconds),
            format!("{} {}", stage.items, stage.unit),
            format!("{:.1}", stage.rate()),
        ]);
    }
    if let Some(RunTime { seconds, overhead }) = result.time {
        let overhead = format!("overhead {:.1} %", 100.0 * overhead);
        table.add_row(["total".to_owned(), format!("{seconds:.2}"), overhead, String::new()]);
    }
    right_aligned(table)
}

/// The verdict as text.
pub(crate) fn outcome(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Reproduced { tolerance } => {
            format!("reproduced, every published recall is within {tolerance} points")
        }
        Verdict::Deviates { tolerance, largest, outside } => {
            let recalls = if *outside == 1 { "recall is" } else { "recalls are" };
            format!(
                "deviates, {outside} published {recalls} off by more than {tolerance} points (largest difference: {largest:.2})"
            )
        }
        Verdict::NotCompared { reason } => format!("not compared, {reason}"),
    }
}
