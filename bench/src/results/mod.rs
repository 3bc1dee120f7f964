//! Reads and checks results of [`reproduce`](crate::reproduce) and [`foreign`](crate::foreign). A file whose values
//! contradict each other, or that does not name the machine it was measured on, is an error.

use std::{io::Read, path::Path};

use laps_align::{Directions, Evaluation, Recall};
use laps_files::decode_text;
use serde_json::Value;

use crate::{
    Error, Result,
    reproduce::{RankCounts, Reproduction, SCHEMA, recalls},
};

/// Maximum size in bytes. A result of 1,000 images has about 50 kB, one of 5,000 images about 300 kB.
const MAX_BYTES: u64 = 1 << 24;
/// Rounding error of sums and quotients of f64, and of decimals in JSON. Different recalls differ by at least 0.004.
const ROUNDING: f64 = 1e-6;
/// Description of a result file for messages.
const RESULT: &str = "a JSON result of `laps-zoo reproduce` or `laps-zoo evaluate`";

/// Reads a result and checks it.
///
/// # Errors
/// [`Error::Read`] if the file cannot be read; [`Error::InvalidResult`] if it is not a result, has an unknown version,
/// does not name its machine, or contradicts itself.
pub fn read(path: &Path) -> Result<Reproduction> {
    let invalid = |(expected, found): (String, String), hint| Error::InvalidResult {
        path: path.to_owned(),
        expected,
        found,
        hint,
    };
    let bytes = read_bytes(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let text = decode_text(bytes).map_err(|error| invalid((RESULT.to_owned(), error.to_string()), None))?;
    let value: Value =
        serde_json::from_str(&text).map_err(|error| invalid((RESULT.to_owned(), error.to_string()), None))?;
    if value.get("evaluations").is_none() {
        return Err(invalid((RESULT.to_owned(), "no `evaluations`".to_owned()), None));
    }
    let schema = value.get("schema").and_then(Value::as_u64);
    if !schema.is_some_and(|schema| (1..=u64::from(SCHEMA)).contains(&schema)) {
        let found = schema.map_or_else(|| "none".to_owned(), |schema| schema.to_string());
        let hint = Some("update laps-zoo to read results of newer versions");
        return Err(invalid((format!("`schema` from 1 to {SCHEMA}"), found), hint));
    }
    if !has_machine(&value) {
        let expected = "`provenance.machine` with `system`, `processor` and `processors`".to_owned();
        let hint = Some("results must name the machine they were measured on; reproduce the result again");
        return Err(invalid((expected, "no machine".to_owned()), hint));
    }
    let result: Reproduction =
        serde_json::from_value(value).map_err(|error| invalid((RESULT.to_owned(), error.to_string()), None))?;
    match contradiction(&result) {
        Some(contradiction) => {
            Err(invalid(contradiction, Some("the file was edited after it was written; reproduce the result again")))
        }
        None => Ok(result),
    }
}

fn read_bytes(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs_err::File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(std::io::Error::other(format!("a result has at most {MAX_BYTES} bytes")));
    }
    Ok(bytes)
}

fn has_machine(value: &Value) -> bool {
    let Some(machine) = value.pointer("/provenance/machine") else { return false };
    let text = |name: &str| machine.get(name).and_then(Value::as_str).is_some_and(|text| !text.trim().is_empty());
    text("system") && text("processor") && machine.get("processors").and_then(Value::as_u64).is_some_and(|n| n > 0)
}

/// The first contradiction in the result: expected and found.
fn contradiction(result: &Reproduction) -> Option<(String, String)> {
    if result.evaluations.is_empty() {
        return Some(("at least one of `evaluations`".to_owned(), "none".to_owned()));
    }
    for evaluation in &result.evaluations {
        let sides = [&evaluation.headline, &evaluation.optimistic, &evaluation.pessimistic];
        let folds = evaluation.folds.iter().flat_map(|fold| [&fold.headline, &fold.optimistic, &fold.pessimistic]);
        if let Some(found) = sides.into_iter().chain(folds).find_map(impossible_recalls) {
            return Some((format!("possible recalls of `{}`", evaluation.protocol), found));
        }
    }
    for comparison in &result.comparisons {
        let measured = result.evaluations.iter().find(|evaluation| evaluation.protocol == comparison.protocol);
        let Some(measured) = measured.map(|evaluation| recalls(&evaluation.headline)) else {
            return Some((format!("an evaluation by `{}`", comparison.protocol), "a comparison only".to_owned()));
        };
        for (cell, measured) in comparison.recalls.iter().zip(measured) {
            if let Some(cell) = cell.filter(|cell| differ(cell.published + cell.difference, measured)) {
                let expected =
                    format!("measured minus published of `{}`, {}", comparison.source, measured - cell.published);
                return Some((expected, cell.difference.to_string()));
            }
        }
    }
    result.ranks.iter().find_map(|ranks| {
        let evaluation = result.evaluations.iter().find(|evaluation| evaluation.protocol == ranks.protocol)?;
        rank_contradiction(ranks, evaluation)
    })
}

fn differ(a: f64, b: f64) -> bool {
    (a - b).abs() > ROUNDING
}

fn impossible_recalls(directions: &Directions) -> Option<String> {
    let all = recalls(directions);
    let is_possible =
        |recall: &Recall| 0.0 <= recall.r1 && recall.r1 <= recall.r5 && recall.r5 <= recall.r10 && recall.r10 <= 100.0;
    if !(is_possible(&directions.i2t) && is_possible(&directions.t2i)) {
        return Some(format!("{all:?}"));
    }
    let sum: f64 = all.iter().sum();
    differ(sum, directions.rsum).then(|| format!("an rSum of {} for recalls whose sum is {sum}", directions.rsum))
}

/// Recalls follow from ranks. With several folds, which may have different numbers of captions, only the number of
/// queries is checked.
fn rank_contradiction(ranks: &RankCounts, evaluation: &Evaluation) -> Option<(String, String)> {
    let queries = ranks.queries.as_ref();
    let [i2t, t2i] = [queries.map(|ranks| &ranks.i2t), queries.map(|ranks| &ranks.t2i)];
    let sides = [
        ("i2t", &ranks.i2t, i2t, evaluation.images, &evaluation.headline.i2t),
        ("t2i", &ranks.t2i, t2i, evaluation.captions, &evaluation.headline.t2i),
    ];
    sides.into_iter().find_map(|(side, counts, each, queries, recall)| {
        if let Some(ranks) = each
            && crate::reproduce::counts(ranks) != *counts
        {
            let expected = format!("`ranks.queries.{side}` with the counts of `ranks.{side}`");
            return Some((expected, format!("other counts, of {} queries", ranks.len())));
        }
        let total: usize = counts.values().sum();
        if total != queries {
            return Some((format!("`ranks.{side}` of {queries} queries"), total.to_string()));
        }
        if evaluation.folds.len() > 1 {
            return None;
        }
        [(1, recall.r1), (5, recall.r5), (10, recall.r10)].into_iter().find_map(|(depth, stated)| {
            let within: usize = counts.range(..=depth).map(|(_, count)| count).sum();
            let counted = 100.0 * within as f64 / queries as f64;
            differ(counted, stated)
                .then(|| (format!("{side} R@{depth} of {counted}, from the ranks"), stated.to_string()))
        })
    })
}

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
