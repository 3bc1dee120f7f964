//! The front matter of a card.

use laps_align::{Evaluation, Protocol};
use laps_hub::registry::{self, Entry, embedded_checkpoint};
use serde::Serialize;

use crate::{
    publish::HubDataSet,
    reproduce::{EntryUsed, Reproduction, recalls},
};

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
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<ResultSource>,
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
    config: &'static str,
    split: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<String>,
    args: ResultDetails,
}

/// Details of the recalls, for which the format has no key.
#[derive(Serialize)]
#[serde(untagged)]
enum ResultDetails {
    Measured {
        measured_by: String,
        images: usize,
        captions: usize,
        data_sha256: String,
        checkpoint_sha256: String,
        engine: String,
    },
    Published {
        published: String,
    },
}

#[derive(Serialize)]
struct IndexedMetric {
    r#type: &'static str,
    name: &'static str,
    value: f64,
}

/// A source needs a URL: `huggingface_hub` refuses a name alone.
#[derive(Serialize)]
struct ResultSource {
    name: String,
    url: &'static str,
}

impl FrontMatter {
    /// Front matter with measured, then published recalls.
    pub(super) fn new(entry: &Entry, results: &[Reproduction], hub_data: Option<&HubDataSet>) -> Self {
        let indexed = IndexedEntry { entry, hub_data };
        let license =
            if embedded_checkpoint(&entry.name).is_some() { vec!["mit", "apache-2.0"] } else { vec!["unknown"] };
        // The index is about the model of the card. Results of foreign models are in its tables only.
        let own = results.iter().filter_map(|result| Some((result, result.provenance.entry()?)));
        let measured = own.flat_map(|(result, used)| {
            result.evaluations.iter().map(move |evaluation| indexed.measured(result, used, evaluation))
        });
        let published = entry.data.protocol.iter().flat_map(|&protocol| indexed.published(protocol));
        Self {
            language: "en",
            license,
            library_name: "laps-zoo",
            tags: vec!["image-text-retrieval", "laps"],
            model_index: vec![IndexedModel { name: entry.name.clone(), results: measured.chain(published).collect() }],
        }
    }
}

/// The entry of a card, and the data set of the hub that its results are of.
#[derive(Clone, Copy)]
struct IndexedEntry<'a> {
    entry: &'a Entry,
    hub_data: Option<&'a HubDataSet>,
}

impl IndexedEntry<'_> {
    fn measured(self, result: &Reproduction, used: &EntryUsed, evaluation: &Evaluation) -> IndexedResult {
        let details = ResultDetails::Measured {
            measured_by: format!("laps-zoo {}", result.provenance.version),
            images: evaluation.images,
            captions: evaluation.captions,
            data_sha256: used.data.sha256.clone(),
            checkpoint_sha256: used.checkpoint.sha256.clone(),
            engine: used.engine.to_string(),
        };
        let dataset = self.dataset(evaluation.protocol, &result.split, details);
        IndexedResult { task: TASK, dataset, metrics: metrics(recalls(&evaluation.headline).map(Some)), source: None }
    }

    fn published(self, protocol: Protocol) -> Vec<IndexedResult> {
        let tables = self.entry.published(protocol);
        let indexed_table = |table: &registry::PublishedTable| {
            let cells = [table.i2t, table.t2i].concat();
            let published = match table.source.as_str() {
                "paper" => "Table 1 of the paper, whose checkpoints are not published".to_owned(),
                "readme" => "README of the authors, whose checkpoints were selected on the test split".to_owned(),
                other => other.to_owned(),
            };
            let dataset = self.dataset(protocol, &self.entry.data.test, ResultDetails::Published { published });
            let source =
                source_url(&table.source).map(|url| ResultSource { name: format!("published: {}", table.source), url });
            let metrics = metrics(std::array::from_fn(|index| Some(cells[index]?.value)));
            IndexedResult { task: TASK, dataset, metrics, source }
        };
        tables.iter().map(indexed_table).collect()
    }

    fn dataset(self, protocol: Protocol, split: &str, args: ResultDetails) -> IndexedDataset {
        let hub_data = self.hub_data.cloned().or_else(|| HubDataSet::of(self.entry, protocol));
        let (r#type, revision) = match hub_data {
            Some(HubDataSet { id, revision }) => (id, revision),
            None => (protocol.name().to_owned(), None),
        };
        let (name, split) = (data_set(self.entry, protocol), split.to_owned());
        IndexedDataset { r#type, name, config: protocol.name(), split, revision, args }
    }
}

const TASK: IndexedTask = IndexedTask { r#type: "image-text-retrieval", name: "Image-text retrieval" };

/// Where a published table is.
fn source_url(source: &str) -> Option<&'static str> {
    Some(match source {
        "paper" | "paper_clip" | "paper_ablation" => {
            "https://openaccess.thecvf.com/content/CVPR2024/html/Fu_Linguistic-Aware_Patch_Slimming_Framework_for_Fine-grained_Cross-Modal_Alignment_CVPR_2024_paper.html"
        }
        "readme" => "https://github.com/CrossmodalGroup/LAPS",
        "d2s_vse" => "https://github.com/liuyyy111/d2s-vse",
        "clip_zero_shot" => "https://github.com/mlfoundations/open_clip",
        _ => return None,
    })
}

fn metrics(values: [Option<f64>; 6]) -> Vec<IndexedMetric> {
    let metric = |((r#type, name), value): ((&'static str, &'static str), Option<f64>)| {
        // Three decimals distinguish any two recalls.
        Some(IndexedMetric { r#type, name, value: (value? * 1000.0).round() / 1000.0 })
    };
    METRICS.into_iter().zip(values).filter_map(metric).collect()
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
