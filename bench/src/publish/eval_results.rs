//! `.eval_results/*.yaml`, from which the Hugging Face hub makes the results of a model page.
//!
//! The format is that of `huggingface_hub.EvalResultEntry`: one value per task of a benchmark data set.

use laps_hub::registry::Entry;
use serde::Serialize;

use super::HubDataSet;
use crate::{
    Error, Result,
    reproduce::{Reproduction, recalls},
};

/// Task ids of the recalls of one protocol.
const TASKS: [&str; 6] = [
    "i2t_recall_at_1",
    "i2t_recall_at_5",
    "i2t_recall_at_10",
    "t2i_recall_at_1",
    "t2i_recall_at_5",
    "t2i_recall_at_10",
];

#[derive(Serialize)]
struct EvalResult {
    dataset: EvalDataSet,
    value: f64,
    source: EvalSource,
    notes: String,
}

#[derive(Serialize)]
struct EvalDataSet {
    id: String,
    task_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<String>,
}

#[derive(Clone, Serialize)]
struct EvalSource {
    url: String,
    name: String,
}

/// The text of a file for each data set of the hub, by its name. Results of foreign models and of a limited number of images
/// are left out.
pub(super) fn files(
    entry: &Entry,
    results: &[(String, Reproduction)],
    hub_data: Option<&HubDataSet>,
    repository: &str,
) -> Result<Vec<(String, String)>> {
    let mut files: Vec<(String, Vec<EvalResult>)> = Vec::new();
    for (name, result) in results.iter().filter(|(_, result)| result.limit.is_none()) {
        let Some(used) = result.provenance.entry() else { continue };
        let source = EvalSource {
            url: format!("https://huggingface.co/{repository}/blob/main/results/{name}"),
            name: "laps-zoo".to_owned(),
        };
        for evaluation in &result.evaluations {
            let Some(data_set) = hub_data.cloned().or_else(|| HubDataSet::of(entry, evaluation.protocol)) else {
                continue;
            };
            let file = format!("{}.yaml", data_set.id.replace('/', "__"));
            let notes = format!(
                "laps-zoo {}, split {}, {} images, {} captions, data sha256 {}, checkpoint sha256 {}",
                result.provenance.version,
                result.split,
                evaluation.images,
                evaluation.captions,
                used.data.sha256,
                used.checkpoint.sha256
            );
            let values = TASKS.iter().zip(recalls(&evaluation.headline)).map(|(task, value)| EvalResult {
                dataset: EvalDataSet {
                    id: data_set.id.clone(),
                    task_id: format!("{}_{task}", evaluation.protocol),
                    revision: data_set.revision.clone(),
                },
                // Three decimals distinguish any two recalls.
                value: (value * 1000.0).round() / 1000.0,
                source: source.clone(),
                notes: notes.clone(),
            });
            match files.iter_mut().find(|(known, _)| *known == file) {
                Some((_, results)) => results.extend(values),
                None => files.push((file, values.collect())),
            }
        }
    }
    let text = |(file, results): (String, Vec<EvalResult>)| match serde_yaml::to_string(&results) {
        Ok(text) => Ok((file, text)),
        Err(source) => Err(Error::Template { source: source.into() }),
    };
    files.into_iter().map(text).collect()
}
