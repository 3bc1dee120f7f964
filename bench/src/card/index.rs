//! The block of metadata at the head of a card.

use laps_align::{Evaluation, Protocol};
use laps_hub::registry::{self, Entry, embedded_checkpoint};
use serde::Serialize;

use crate::reproduce::{Reproduction, recalls};

/// Identifier and name of each figure.
const METRICS: [(&str, &str); 6] = [
    ("recall_at_1", "image to text R@1"),
    ("recall_at_5", "image to text R@5"),
    ("recall_at_10", "image to text R@10"),
    ("recall_at_1", "text to image R@1"),
    ("recall_at_5", "text to image R@5"),
    ("recall_at_10", "text to image R@10"),
];

/// What the hub reads of a card.
#[derive(Serialize)]
pub(super) struct FrontMatter {
    language: &'static str,
    license: Vec<&'static str>,
    library_name: &'static str,
    tags: Vec<&'static str>,
    #[serde(rename = "model-index")]
    model_index: Vec<Model>,
}

#[derive(Serialize)]
struct Model {
    name: String,
    results: Vec<IndexedResult>,
}

#[derive(Serialize)]
struct IndexedResult {
    task: Named,
    dataset: Dataset,
    metrics: Vec<Metric>,
    source: Source,
}

#[derive(Serialize)]
struct Named {
    r#type: &'static str,
    name: &'static str,
}

#[derive(Serialize)]
struct Dataset {
    r#type: String,
    name: String,
    split: String,
}

#[derive(Serialize)]
struct Metric {
    r#type: &'static str,
    name: &'static str,
    value: f64,
}

#[derive(Serialize)]
struct Source {
    name: String,
}

impl FrontMatter {
    /// What `results` measured, then what is published.
    pub(super) fn new(entry: &Entry, results: &[Reproduction]) -> Self {
        let license =
            if embedded_checkpoint(&entry.name).is_some() { vec!["mit", "apache-2.0"] } else { vec!["unknown"] };
        let measured = results
            .iter()
            .flat_map(|result| result.evaluations.iter().map(move |evaluation| measured(entry, result, evaluation)));
        let published = entry.data.protocol.iter().flat_map(|&protocol| published(entry, protocol));
        Self {
            language: "en",
            license,
            library_name: "laps-zoo",
            tags: vec!["image-text-retrieval", "laps"],
            model_index: vec![Model { name: entry.name.clone(), results: measured.chain(published).collect() }],
        }
    }
}

fn measured(entry: &Entry, result: &Reproduction, evaluation: &Evaluation) -> IndexedResult {
    let provenance = &result.provenance;
    let source = format!(
        "measured by laps-zoo {}, {} images and {} captions, checkpoint sha256 {}, {}",
        provenance.version, evaluation.images, evaluation.captions, provenance.checkpoint.sha256, provenance.engine
    );
    let values = recalls(&evaluation.headline).map(Some);
    indexed(entry, evaluation.protocol, &result.split, values, source)
}

fn published(entry: &Entry, protocol: Protocol) -> Vec<IndexedResult> {
    let tables = entry.published(protocol);
    let of = |table: &registry::PublishedTable| {
        let cells = [table.i2t, table.t2i].concat();
        let source = match table.source.as_str() {
            "paper" => "published: Table 1 of the paper, whose checkpoint is not published".to_owned(),
            "readme" => "published: the authors' README, chosen on the test split".to_owned(),
            other => format!("published: {other}"),
        };
        indexed(entry, protocol, &entry.data.test, std::array::from_fn(|index| Some(cells[index]?.value)), source)
    };
    tables.iter().map(of).collect()
}

fn indexed(entry: &Entry, protocol: Protocol, split: &str, values: [Option<f64>; 6], source: String) -> IndexedResult {
    let metric = |((r#type, name), value): ((&'static str, &'static str), Option<f64>)| {
        // Three decimals tell any two recalls apart.
        Some(Metric { r#type, name, value: (value? * 1000.0).round() / 1000.0 })
    };
    IndexedResult {
        task: Named { r#type: "image-text-retrieval", name: "Image-text retrieval" },
        dataset: Dataset {
            r#type: protocol.name().to_owned(),
            name: data_set(entry, protocol),
            split: split.to_owned(),
        },
        metrics: METRICS.into_iter().zip(values).filter_map(metric).collect(),
        source: Source { name: source },
    }
}

/// The data set in words; of an entry file, only the protocol is known.
pub(super) fn data_set(entry: &Entry, protocol: Protocol) -> String {
    if entry.data.drawn.is_some() {
        return "scenes that laps-zoo draws".to_owned();
    }
    if !registry::names().contains(&entry.name.as_str()) {
        return format!("own data, protocol {protocol}");
    }
    match protocol {
        Protocol::F30k => "Flickr30K, 1,000 images",
        Protocol::Coco5k => "MS-COCO, 5,000 images",
        Protocol::Coco1k => "MS-COCO, five folds of 1,000 images",
    }
    .to_owned()
}
