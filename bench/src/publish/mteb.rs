//! Result files of MTEB for the tasks `Flickr30kI2TRetrieval` and `Flickr30kT2IRetrieval`.
//!
//! Their protocol is that of `f30k`: the 1,000 test images and 5,000 captions of Flickr30K, ranked in the whole split. The
//! COCO tasks of MTEB (`MSCOCOI2TRetrieval`, `MSCOCOT2IRetrieval`) have 24,809 captions without repeated texts, some of
//! which belong to several images, so that results of the published protocol cannot be theirs.
//!
//! Metrics are those of `pytrec_eval` as `mteb` 2.26 calls it, rounded like there. Its measures of abstention (`nauc_*`) are
//! left out.

use std::path::Path;

use laps_align::{CaptionImages, JudgedQuery, Judgements, Protocol, Scores, answer_ranks};
use laps_data::Split;
use serde_json::{Map, Value, json};

use crate::{Error, Result, files::write_atomic};

/// Version of `mteb` whose tasks and metrics these are.
const VERSION: &str = "2.26.24";

const DEPTHS: [u32; 7] = [1, 3, 5, 10, 20, 100, 1000];

/// Images, captions, and letters of all, the shortest and the longest caption in the data of the tasks.
const FLICKR30K: CaptionStatistics =
    CaptionStatistics { images: 1000, captions: 5000, letters: 319_250, range: [11, 375] };

/// Sizes by which the captions of a task are recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CaptionStatistics {
    images: usize,
    captions: usize,
    letters: usize,
    range: [usize; 2],
}

/// A task: name, data set of the hub and its commit.
struct Task {
    name: &'static str,
    revision: &'static str,
}

const I2T: Task = Task { name: "Flickr30kI2TRetrieval", revision: "e26fbfcb4532ab61e3c8512fdf3dd9008f2575bd" };
const T2I: Task = Task { name: "Flickr30kT2IRetrieval", revision: "e819702b287bfbe084e129a61f308a802b7c108e" };

impl CaptionStatistics {
    fn of(split: &Split) -> Self {
        let lengths: Vec<usize> = split.captions().iter().map(|caption| caption.chars().count()).collect();
        Self {
            images: split.images().len(),
            captions: lengths.len(),
            letters: lengths.iter().sum(),
            range: [lengths.iter().copied().min().unwrap_or(0), lengths.iter().copied().max().unwrap_or(0)],
        }
    }

    fn describe(self) -> String {
        let Self { images, captions, letters, range: [shortest, longest] } = self;
        format!("{images} images, {captions} captions of {letters} letters, {shortest} to {longest} each")
    }
}

/// Checks that the tasks rank what `split` has, before anything is computed.
///
/// # Errors
/// [`Error::Mteb`] for another protocol, and for captions that are not those of the tasks.
pub fn check(split: &Split, protocols: &[Protocol]) -> Result<()> {
    let refused = |expected: String, found: String| Error::Mteb { expected, found };
    if protocols.iter().any(|&protocol| protocol != Protocol::F30k) {
        return Err(refused(
            "the protocol `f30k`".to_owned(),
            "a protocol of COCO; the COCO tasks of MTEB rank 24,809 captions without repeated texts instead of 25,000"
                .to_owned(),
        ));
    }
    match CaptionStatistics::of(split) {
        FLICKR30K => Ok(()),
        found => Err(refused(FLICKR30K.describe(), found.describe())),
    }
}

/// Writes `Flickr30kI2TRetrieval.json` and `Flickr30kT2IRetrieval.json` into `folder`, which is created. `seconds` is the
/// time of the evaluation, if it is known.
///
/// # Errors
/// A matrix that cannot be read, and files that cannot be written. See [`check`] for the data.
pub fn write(folder: &Path, scores: &Scores<'_>, captions: &CaptionImages, seconds: Option<f64>) -> Result<()> {
    fs_err::create_dir_all(folder).map_err(|source| Error::Write { path: folder.to_owned(), source: source.into() })?;
    let query = |query: usize, positives: Vec<usize>| JudgedQuery { query, positives, missing: 0 };
    let own = |image: usize| captions.of_images(image..image + 1).iter().map(|&caption| caption as usize).collect();
    let judgements = Judgements {
        i2t: (0..captions.images()).map(|image| query(image, own(image))).collect(),
        t2i: (0..captions.captions())
            .map(|column| query(column, vec![captions.image(column as u32) as usize]))
            .collect(),
    };
    let ranks = answer_ranks(scores, &judgements)?;
    for (task, ranks) in [(I2T, ranks.i2t), (T2I, ranks.t2i)] {
        let mut scores = metrics(&ranks);
        scores.insert("main_score".to_owned(), scores["ndcg_at_10"].clone());
        scores.insert("hf_subset".to_owned(), json!("default"));
        scores.insert("languages".to_owned(), json!(["eng-Latn"]));
        let result = json!({
            "dataset_revision": task.revision,
            "task_name": task.name,
            "mteb_version": VERSION,
            "scores": { "test": [scores] },
            "evaluation_time": seconds,
            "kg_co2_emissions": null,
        });
        let text = format!("{:#}\n", result);
        write_atomic(&folder.join(format!("{}.json", task.name)), text.as_bytes())?;
    }
    Ok(())
}

/// Means over the queries of the metrics of `pytrec_eval`, from the ranks of the right answers of each query, from 0.
fn metrics(ranks: &[Vec<u32>]) -> Map<String, Value> {
    let mut sums = [[0.0; 6]; DEPTHS.len()];
    for answers in ranks {
        let mut answers = answers.clone();
        answers.sort_unstable();
        let gain = |rank: u32| 1.0 / (f64::from(rank) + 2.0).log2();
        for (sums, depth) in sums.iter_mut().zip(DEPTHS) {
            let found = &answers[..answers.partition_point(|&rank| rank < depth)];
            let ideal: f64 = (0..depth.min(answers.len() as u32)).map(gain).sum();
            let precisions: f64 = (1..).zip(found).map(|(hit, &rank)| f64::from(hit) / (f64::from(rank) + 1.0)).sum();
            let hits = found.len() as f64;
            let values = [
                found.iter().copied().map(gain).sum::<f64>() / ideal,
                precisions / answers.len() as f64,
                hits / answers.len() as f64,
                hits / f64::from(depth),
                found.first().map_or(0.0, |&rank| 1.0 / (f64::from(rank) + 1.0)),
                f64::from(u8::from(!found.is_empty())),
            ];
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        }
    }
    let names = ["ndcg", "map", "recall", "precision", "mrr", "hit_rate"];
    let mut metrics = Map::new();
    for (place, name) in names.into_iter().enumerate() {
        for (sums, depth) in sums.iter().zip(DEPTHS) {
            let mean = sums[place] / ranks.len() as f64;
            // mteb rounds all but the reciprocal ranks.
            let value = if name == "mrr" { mean } else { (mean * 1e5).round() / 1e5 };
            metrics.insert(format!("{name}_at_{depth}"), json!(value));
        }
    }
    metrics.insert("accuracy".to_owned(), metrics["recall_at_1"].clone());
    metrics
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One query with the right answers at the ranks 1 and 4, counted from 1, and one with its answer at rank 2.
    #[test]
    fn metrics_equal_those_counted_by_hand() {
        let metrics = metrics(&[vec![3, 0], vec![1]]);
        let value = |name: &str| metrics[name].as_f64().unwrap();
        let near =
            |name: &str, expected: f64| assert!((value(name) - expected).abs() < 1e-5, "{name}: {}", value(name));
        let third = 1.0 / 3f64.log2();
        near("ndcg_at_1", 0.5);
        near("ndcg_at_3", (1.0 / (1.0 + third) + third) / 2.0);
        near("ndcg_at_5", ((1.0 + 1.0 / 5f64.log2()) / (1.0 + third) + third) / 2.0);
        near("map_at_3", (0.5 + 0.5) / 2.0);
        near("map_at_10", (0.75 + 0.5) / 2.0);
        near("recall_at_1", 0.25);
        near("recall_at_5", 1.0);
        near("precision_at_5", (0.4 + 0.2) / 2.0);
        near("mrr_at_1", 0.5);
        near("mrr_at_10", 0.75);
        near("hit_rate_at_1", 0.5);
        near("accuracy", 0.25);
    }
}
