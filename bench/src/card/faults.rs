//! What is known to be wrong with the published figures of an entry: read off their provenance.

use laps_hub::registry::{Entry, PublishedTable, Status};

/// A sentence each; none for an entry without published figures.
pub(super) fn of(entry: &Entry) -> Vec<String> {
    let tables: Vec<PublishedTable> =
        entry.data.protocol.iter().flat_map(|&protocol| entry.published(protocol)).collect();
    let mut faults = Vec::new();
    let has = |source: &str| tables.iter().any(|table| table.source == source);
    if has("readme") {
        faults.push(
            "The README's figures are of checkpoints that were chosen on the test split, as the released code does it: \
             they are higher than a choice on the dev split would give. They decide the verdict all the same, for they \
             are of the checkpoint that can be fetched. R@10 and rSum are not printed."
                .to_owned(),
        );
    }
    if has("paper") {
        faults.push(
            "The checkpoints behind the paper's table are not published: another training run stands in the paper than \
             can be evaluated."
                .to_owned(),
        );
    }
    faults.extend(tables.iter().filter_map(misplaced));
    faults
}

/// Figures that are not where they belong.
fn misplaced(table: &PublishedTable) -> Option<String> {
    let status = table.statuses().find(|&status| status != Status::Printed)?;
    let numbers = |values: &[Option<f64>]| {
        let numbers: Vec<String> = values.iter().flatten().map(|value| format!("{value:.1}")).collect();
        numbers.join(" / ")
    };
    let meant = numbers(&table.t2i.map(|cell| cell.map(|cell| cell.value)));
    let printed = table.printed_t2i.map_or_else(|| "nothing".to_owned(), |values| numbers(&values));
    let why = match status {
        Status::Restored => "an earlier version of it has them in the right place",
        _ => "they stand in a row where they can not belong, and fit no other one",
    };
    Some(format!(
        "Text to image by {}: the {} prints {printed} where {meant} belongs; {why} ({status}).",
        table.protocol, table.source
    ))
}
