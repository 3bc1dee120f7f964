//! Known issues of the published recalls of an entry, derived from their provenance.

use laps_hub::registry::{Entry, PublishedTable, Status};

/// One paragraph per issue; empty for an entry without published recalls.
pub(super) fn known_issues(entry: &Entry) -> Vec<String> {
    let tables: Vec<PublishedTable> =
        entry.data.protocol.iter().flat_map(|&protocol| entry.published(protocol)).collect();
    let mut issues = Vec::new();
    let has = |source: &str| tables.iter().any(|table| table.source == source);
    if has("readme") {
        issues.push(
            "The recalls in the authors' README belong to checkpoints that were selected on the test split, as in the \
             released code: they are higher than with selection on the dev split. They still decide the verdict, because \
             they belong to the checkpoint that can be downloaded. The README does not give R@10 and rSum."
                .to_owned(),
        );
    }
    if has("paper") {
        issues.push(
            "The checkpoints of the paper are not published: its recalls come from a different training run than the \
             checkpoint that can be evaluated."
                .to_owned(),
        );
    }
    issues.extend(tables.iter().filter_map(misplaced));
    issues
}

/// Describes recalls that are printed in the wrong place.
fn misplaced(table: &PublishedTable) -> Option<String> {
    let status = table.statuses().find(|&status| status != Status::Printed)?;
    let numbers = |values: &[Option<f64>]| {
        let numbers: Vec<String> = values.iter().flatten().map(|value| format!("{value:.1}")).collect();
        numbers.join(" / ")
    };
    let meant = numbers(&table.t2i.map(|cell| cell.map(|cell| cell.value)));
    let printed = table.printed_t2i.map_or_else(|| "nothing".to_owned(), |values| numbers(&values));
    let why = match status {
        Status::Restored => "an earlier version of the source has them in the right place",
        _ => "the source has them in a row where they cannot belong, and they fit no other row",
    };
    Some(format!(
        "Text to image, {}: the {} prints {printed} instead of {meant}; {why} ({status}).",
        table.protocol, table.source
    ))
}
