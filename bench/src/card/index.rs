//! The front matter of a card.

use laps_align::{Evaluation, Protocol};
use laps_hub::registry::{self, Entry, embedded_checkpoint};
use serde::Serialize;

use crate::reproduce::{EntryUsed, Reproduction, recalls};

/// Type and name of each metric.
const METRICS: [(&str, &str); 6] = [
    ("recall_at_1", "image to text R@1"),
    ("recall_at_5", "image to text R@5"),
    ("recall_at_10", "image to text R@10"),
    ("recall_at_1", "text to image R@1"),
    ("recall_at_5", "text to image R@5"),
    ("recall_at_10", "text to image R@10"),
];

/// The front matter that the Hugging Face Hub reads.
#[derive(Serialize)]
pub(super) struct FrontMatter {
    language: &'static str,
    license: Vec<&'static str>,
    library_name: &'static str,
    tags: Vec<&'static str>,
    #[serde(rename = "model-index")]
    model_index: Vec<IndexedModel>,
}

#[derive(Serialize)]
struct IndexedModel {
    name: String,
    results: Vec<IndexedResult>,
}

#[derive(Serialize)]
struct IndexedResult {
    task: IndexedTask,
    dataset: IndexedDataset,
    metrics: Vec<IndexedMetric>,
    source: ResultSource,
}

#[derive(Serialize)]
struct IndexedTask {
    r#type: &'static str,
    name: &'static str,
}

#[derive(Serialize)]
struct IndexedDataset {
    r#type: String,
    name: String,
    split: String,
}

#[derive(Serialize)]
struct IndexedMetric {
    r#type: &'static str,
    name: &'static str,
    value: f64,
}

#[derive(Serialize)]
struct ResultSource {
    name: String,
}

impl FrontMatter {
    /// Front matter with measured, then published recalls.
    pub(super) fn new(entry: &Entry, results: &[Reproduction]) -> Self {
        let license =
            if embedded_checkpoint(&entry.name).is_some() { vec!["mit", "apache-2.0"] } else { vec!["unknown"] };
        // The index is about the model of the card. Results of foreign models are in its tables only.
        let own = results.iter().filter_map(|result| Some((result, result.provenance.entry()?)));
        let measured = own.flat_map(|(result, used)| {
            result.evaluations.iter().map(move |evaluation| measured(entry, result, used, evaluation))
        });
        let published = entry.data.protocol.iter().flat_map(|&protocol| published(entry, protocol));
        Self {
            language: "en",
            license,
            library_name: "laps-zoo",
            tags: vec!["image-text-retrieval", "laps"],
            model_index: vec![IndexedModel { name: entry.name.clone(), results: measured.chain(published).collect() }],
        }
    }
}

fn measured(entry: &Entry, result: &Reproduction, used: &EntryUsed, evaluation: &Evaluation) -> IndexedResult {
    let source = format!(
        "measured by laps-zoo {}, {} images and {} captions, checkpoint sha256 {}, {}",
        result.provenance.version, evaluation.images, evaluation.captions, used.checkpoint.sha256, used.engine
    );
    let values = recalls(&evaluation.headline).map(Some);
    indexed(entry, evaluation.protocol, &result.split, values, source)
}

fn published(entry: &Entry, protocol: Protocol) -> Vec<IndexedResult> {
    let tables = entry.published(protocol);
    let indexed_table = |table: &registry::PublishedTable| {
        let cells = [table.i2t, table.t2i].concat();
        let source = match table.source.as_str() {
            "paper" => "published: Table 1 of the paper, whose checkpoints are not published".to_owned(),
            "readme" => {
                "published: README of the authors, whose checkpoints were selected on the test split".to_owned()
            }
            other => format!("published: {other}"),
        };
        indexed(entry, protocol, &entry.data.test, std::array::from_fn(|index| Some(cells[index]?.value)), source)
    };
    tables.iter().map(indexed_table).collect()
}

fn indexed(entry: &Entry, protocol: Protocol, split: &str, values: [Option<f64>; 6], source: String) -> IndexedResult {
    let metric = |((r#type, name), value): ((&'static str, &'static str), Option<f64>)| {
        // Three decimals distinguish any two recalls.
        Some(IndexedMetric { r#type, name, value: (value? * 1000.0).round() / 1000.0 })
    };
    IndexedResult {
        task: IndexedTask { r#type: "image-text-retrieval", name: "Image-text retrieval" },
        dataset: IndexedDataset {
            r#type: protocol.name().to_owned(),
            name: data_set(entry, protocol),
            split: split.to_owned(),
        },
        metrics: METRICS.into_iter().zip(values).filter_map(metric).collect(),
        source: ResultSource { name: source },
    }
}

/// Name of the data set; for an entry file, only the protocol is known.
pub(super) fn data_set(entry: &Entry, protocol: Protocol) -> String {
    if entry.data.drawn.is_some() {
        return "scenes drawn by laps-zoo".to_owned();
    }
    if !registry::names().contains(&entry.name.as_str()) {
        return format!("custom data, protocol {protocol}");
    }
    match protocol {
        Protocol::F30k => "Flickr30K, 1,000 images",
        Protocol::Coco5k => "MS-COCO, 5,000 images",
        Protocol::Coco1k => "MS-COCO, five folds of 1,000 images",
    }
    .to_owned()
}
