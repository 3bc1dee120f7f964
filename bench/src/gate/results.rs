//! Hits of results of `reproduce` and `evaluate`.

use std::path::PathBuf;

use super::{GateGroup, GroupMeasures, Measure};
use crate::{Result, reproduce::RankCounts, results};

/// Queries whose right answer is among the first 1, 5 and 10, by protocol and direction, in each of `files`; skipped
/// without files.
///
/// # Errors
/// Those of [`results::read`].
pub fn result_hits(files: &[PathBuf]) -> Result<GroupMeasures> {
    if files.is_empty() {
        return Ok(GroupMeasures::skipped(GateGroup::Results, "no results were given"));
    }
    let mut measures = Vec::new();
    for path in files {
        let result = results::read(path)?;
        let limit = result.limit.map_or_else(String::new, |limit| format!(", first {limit} images"));
        let name = format!("{}/{}{limit}", result.title(), result.split);
        measures.extend(result.ranks.iter().flat_map(|ranks| hits(&name, ranks)));
    }
    Ok(GroupMeasures::measured(GateGroup::Results, measures))
}

fn hits(name: &str, ranks: &RankCounts) -> Vec<Measure> {
    let mut measures = Vec::new();
    for (direction, counts) in [("image to text", &ranks.i2t), ("text to image", &ranks.t2i)] {
        for depth in [1, 5, 10] {
            let name = format!("{name}/{}/{direction}/hits among the first {depth}", ranks.protocol);
            measures.push(Measure::count(name, counts.range(..=depth).map(|(_, count)| count).sum()));
        }
    }
    measures
}
