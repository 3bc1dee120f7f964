//! Results that were written by `laps-zoo reproduce --json`, read again and not believed: a figure that contradicts
//! another of the same file is an error, and so is a result that does not say which machine it is of.

use std::{io::Read, path::Path};

use laps_align::{Directions, Evaluation, Recall};
use serde_json::Value;

use crate::{
    Error, Result,
    reproduce::{RankCounts, Reproduction, SCHEMA, recalls},
};

/// In bytes; a result has about 30 kB.
const LARGEST_FILE: u64 = 1 << 24;
/// Rounding of sums and quotients of f64, and of decimals in JSON; the least difference of two recalls is 0.004.
const ROUNDING: f64 = 1e-6;
/// What writes a result.
const WRITER: &str = "the JSON file of `laps-zoo reproduce --json`";

/// Reads a result and checks it.
///
/// # Errors
/// If the file can not be read or is no result, is of a version that is not known, does not say which machine it is of, or
/// contradicts itself.
pub fn read(path: &Path) -> Result<Reproduction> {
    let refuse =
        |(expected, found): (String, String), hint| Error::NoResult { path: path.to_owned(), expected, found, hint };
    let bytes = read_bytes(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let value: Value =
        serde_json::from_slice(&bytes).map_err(|error| refuse((WRITER.to_owned(), error.to_string()), None))?;
    if value.get("evaluations").is_none() {
        return Err(refuse((WRITER.to_owned(), "no `evaluations`".to_owned()), None));
    }
    let schema = value.get("schema").and_then(Value::as_u64);
    if !schema.is_some_and(|schema| (1..=u64::from(SCHEMA)).contains(&schema)) {
        let found = schema.map_or_else(|| "none".to_owned(), |schema| schema.to_string());
        let hint = Some("a newer version of this program reads results of newer versions");
        return Err(refuse((format!("`schema` from 1 to {SCHEMA}"), found), hint));
    }
    if !has_machine(&value) {
        let expected = "`provenance.machine` with `system`, `processor` and `processors`".to_owned();
        let hint = Some("a figure without its machine is worth little: reproduce it again with `--json`");
        return Err(refuse((expected, "no machine".to_owned()), hint));
    }
    let result: Reproduction =
        serde_json::from_value(value).map_err(|error| refuse((WRITER.to_owned(), error.to_string()), None))?;
    match fault(&result) {
        Some(fault) => Err(refuse(fault, Some("the file was changed after it was written: reproduce it again"))),
        None => Ok(result),
    }
}

fn read_bytes(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs_err::File::open(path)?.take(LARGEST_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(std::io::Error::other(format!("a result has at most {LARGEST_FILE} bytes")));
    }
    Ok(bytes)
}

fn has_machine(value: &Value) -> bool {
    let Some(machine) = value.pointer("/provenance/machine") else { return false };
    let text = |name: &str| machine.get(name).and_then(Value::as_str).is_some_and(|text| !text.trim().is_empty());
    text("system") && text("processor") && machine.get("processors").and_then(Value::as_u64).is_some_and(|n| n > 0)
}

/// What is expected and what is there instead, where the result contradicts itself.
fn fault(result: &Reproduction) -> Option<(String, String)> {
    if result.evaluations.is_empty() {
        return Some(("at least one of `evaluations`".to_owned(), "none".to_owned()));
    }
    for evaluation in &result.evaluations {
        let sides = [&evaluation.headline, &evaluation.optimistic, &evaluation.pessimistic];
        let folds = evaluation.folds.iter().flat_map(|fold| [&fold.headline, &fold.optimistic, &fold.pessimistic]);
        if let Some(found) = sides.into_iter().chain(folds).find_map(impossible) {
            return Some((format!("recalls of `{}` that can be", evaluation.protocol), found));
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
                    format!("measured less published of `{}`, {}", comparison.source, measured - cell.published);
                return Some((expected, cell.difference.to_string()));
            }
        }
    }
    result.ranks.iter().find_map(|ranks| {
        let evaluation = result.evaluations.iter().find(|evaluation| evaluation.protocol == ranks.protocol)?;
        contradiction(ranks, evaluation)
    })
}

fn differ(a: f64, b: f64) -> bool {
    (a - b).abs() > ROUNDING
}

fn impossible(directions: &Directions) -> Option<String> {
    let all = recalls(directions);
    let in_order =
        |recall: &Recall| 0.0 <= recall.r1 && recall.r1 <= recall.r5 && recall.r5 <= recall.r10 && recall.r10 <= 100.0;
    if !(in_order(&directions.i2t) && in_order(&directions.t2i)) {
        return Some(format!("{all:?}"));
    }
    let sum: f64 = all.iter().sum();
    differ(sum, directions.rsum).then(|| format!("an rSum of {} for recalls whose sum is {sum}", directions.rsum))
}

/// The recalls follow from the ranks; of several folds, which may have more or fewer captions, only the number of queries is
/// looked at.
fn contradiction(ranks: &RankCounts, evaluation: &Evaluation) -> Option<(String, String)> {
    let sides = [
        ("i2t", &ranks.i2t, evaluation.images, &evaluation.headline.i2t),
        ("t2i", &ranks.t2i, evaluation.captions, &evaluation.headline.t2i),
    ];
    sides.into_iter().find_map(|(side, counts, queries, recall)| {
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
                .then(|| (format!("{side} R@{depth} of {counted}, as the ranks say"), stated.to_string()))
        })
    })
}

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
