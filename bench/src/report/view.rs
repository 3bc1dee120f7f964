//! The values that the page template shows.

use std::collections::BTreeMap;

use laps_align::{Evaluation, Protocol};

use super::{Thumbnails, chart};
use crate::{
    reproduce::{Provenance, QueryFailure, RankCounts, Reproduction, Verdict, outcome},
    tables::{RecallRow, RecallTables, RowKind},
};

/// Largest rank of the recall curves.
const DEPTH: u32 = 100;
/// First rank of each histogram bar.
const BARS: [u32; 7] = [1, 2, 3, 6, 11, 21, 51];

/// The table of one protocol.
pub(super) struct TableView {
    pub(super) protocol: &'static str,
    pub(super) groups: Vec<(String, Vec<RowView>)>,
}

/// A row of a table.
pub(super) struct RowView {
    pub(super) class: &'static str,
    pub(super) label: String,
    pub(super) texts: [String; 7],
}

/// One result.
pub(super) struct ResultView<'a> {
    pub(super) number: usize,
    pub(super) entry: &'a str,
    pub(super) size: String,
    pub(super) verdict: (&'static str, String),
    pub(super) notes: &'a [String],
    pub(super) evaluations: Vec<EvaluationView>,
    pub(super) has_ranks: bool,
    pub(super) failures: [Vec<FailureView<'a>>; 2],
    pub(super) stages: String,
    pub(super) provenance: Vec<(&'static str, String)>,
}

/// One result by one protocol.
pub(super) struct EvaluationView {
    pub(super) protocol: &'static str,
    /// Recall curves and histogram, if the result has ranks.
    pub(super) charts: Option<[String; 2]>,
    /// rSum by fold, if there are several folds.
    pub(super) folds: Option<String>,
    /// Rows of name, image to text, text to image.
    pub(super) facts: Vec<[String; 3]>,
    pub(super) ties: String,
}

/// A failed query.
pub(super) struct FailureView<'a> {
    pub(super) failure: &'a QueryFailure,
    /// Number of candidates.
    pub(super) candidates: usize,
    pub(super) image: Option<String>,
    pub(super) right: Option<String>,
    pub(super) first: Vec<AnswerView<'a>>,
}

/// A candidate answer.
pub(super) struct AnswerView<'a> {
    pub(super) name: &'a str,
    pub(super) caption: &'a str,
    pub(super) image: Option<String>,
    pub(super) similarity: String,
    pub(super) is_right: bool,
}

pub(super) fn tables(tables: &RecallTables) -> Vec<TableView> {
    let row = |row: &RecallRow| RowView {
        class: match row.kind {
            RowKind::Baseline => "baseline",
            RowKind::Published => "published",
            RowKind::Measured => "measured",
            RowKind::Difference => "difference",
        },
        label: row.label(),
        texts: row.texts(),
    };
    let view = tables.tables.iter().map(|table| TableView {
        protocol: table.protocol.name(),
        groups: table.groups.iter().map(|group| (group.name.clone(), group.rows.iter().map(row).collect())).collect(),
    });
    view.collect()
}

impl<'a> ResultView<'a> {
    pub(super) fn new(number: usize, result: &'a Reproduction, thumbnails: &Thumbnails) -> Self {
        let Reproduction { entry, split, limit, images, captions, notes, failures, .. } = result;
        let limit = limit.map_or_else(String::new, |limit| format!(" (first {limit} images)"));
        let evaluations = result.evaluations.iter().map(|evaluation| EvaluationView::new(result, evaluation)).collect();
        let i2t = failures.i2t.iter().map(|failure| FailureView::new(failure, *captions, thumbnails));
        let t2i = failures.t2i.iter().map(|failure| FailureView::new(failure, *images, thumbnails));
        Self {
            number,
            entry,
            size: format!("split {split}{limit}: {images} images, {captions} captions"),
            verdict: verdict(&result.verdict),
            notes,
            evaluations,
            has_ranks: !result.ranks.is_empty(),
            failures: [i2t.collect(), t2i.collect()],
            stages: stages(result),
            provenance: provenance(result),
        }
    }
}

fn verdict(verdict: &Verdict) -> (&'static str, String) {
    let class = match verdict {
        Verdict::Reproduced { .. } => "good",
        Verdict::Deviates { .. } => "bad",
        Verdict::NotCompared { .. } => "open",
    };
    (class, outcome(verdict))
}

impl EvaluationView {
    fn new(result: &Reproduction, evaluation: &Evaluation) -> Self {
        let ranks = result.ranks.iter().find(|ranks| ranks.protocol == evaluation.protocol);
        let published = published(result, evaluation.protocol);
        let name = evaluation.protocol.name();
        let folds: Vec<(String, f64)> = evaluation
            .folds
            .iter()
            .map(|fold| {
                let (first, last) = (fold.first_image, (fold.first_image + fold.images).saturating_sub(1));
                (format!("{first} to {last}"), fold.headline.rsum)
            })
            .collect();
        let label = format!("rSum by fold, protocol {name}");
        let (i2t, t2i) = (&evaluation.headline.i2t, &evaluation.headline.t2i);
        let ties = evaluation.ties;
        let row = |name: &str, [a, b]: [String; 2]| [name.to_owned(), a, b];
        Self {
            protocol: name,
            charts: ranks.map(|ranks| [curves(ranks, &published, name), histogram(ranks, name)]),
            folds: (folds.len() > 1).then(|| chart::dots(&folds, evaluation.headline.rsum, &label)),
            facts: vec![
                row("median rank", [i2t, t2i].map(|recall| format!("{:.1}", recall.median_rank))),
                row("mean rank", [i2t, t2i].map(|recall| format!("{:.3}", recall.mean_rank))),
                row("queries with ties", [ties.i2t, ties.t2i].map(|count| count.to_string())),
            ],
            ties: if ties.i2t + ties.t2i == 0 {
                "No ties affect a rank.".to_owned()
            } else {
                format!(
                    "Of equal scores, the later ranks first. If every tie ranked the correct answer last, rSum would be {:.1}; \
                     if first, {:.1}.",
                    evaluation.pessimistic.rsum, evaluation.optimistic.rsum
                )
            },
        }
    }
}

/// Direction, K and value of the published recalls that decide the verdict.
fn published(result: &Reproduction, protocol: Protocol) -> Vec<(usize, usize, f64)> {
    let deciding = result.comparisons.iter().filter(|comparison| comparison.protocol == protocol && comparison.decides);
    let cells = deciding.flat_map(|comparison| comparison.recalls.iter().enumerate());
    cells.filter_map(|(index, cell)| Some((index / 3, [1, 5, 10][index % 3], cell.as_ref()?.published))).collect()
}

fn curves(ranks: &RankCounts, published: &[(usize, usize, f64)], protocol: &str) -> String {
    let curve = |counts: &BTreeMap<u32, usize>| {
        let queries = counts.values().sum::<usize>().max(1);
        let within = |depth| counts.range(..=depth).map(|(_, count)| count).sum::<usize>();
        (1..=DEPTH).map(|depth| 100.0 * within(depth) as f64 / queries as f64).collect()
    };
    chart::curves(&[curve(&ranks.i2t), curve(&ranks.t2i)], published, &format!("recall at K, protocol {protocol}"))
}

fn histogram(ranks: &RankCounts, protocol: &str) -> String {
    let share = |counts: &BTreeMap<u32, usize>, first, next: Option<u32>| {
        let queries = counts.values().sum::<usize>().max(1);
        let within = counts.range(first..next.unwrap_or(u32::MAX)).map(|(_, count)| count).sum::<usize>();
        100.0 * within as f64 / queries as f64
    };
    let groups: Vec<(String, [f64; 2])> = BARS
        .iter()
        .enumerate()
        .map(|(index, &first)| {
            let next = BARS.get(index + 1).copied();
            let name = match next {
                Some(next) if next == first + 1 => first.to_string(),
                Some(next) => format!("{first}\u{2013}{}", next - 1),
                None => format!(">{}", first - 1),
            };
            (name, [share(&ranks.i2t, first, next), share(&ranks.t2i, first, next)])
        })
        .collect();
    chart::histogram(&groups, &format!("percentage of queries by rank, protocol {protocol}"))
}

impl<'a> FailureView<'a> {
    fn new(failure: &'a QueryFailure, candidates: usize, thumbnails: &Thumbnails) -> Self {
        let first = failure.first.iter().map(|answer| AnswerView {
            name: &answer.image,
            caption: answer.caption.as_deref().unwrap_or_default(),
            image: answer.caption.is_none().then(|| thumbnails.of(&answer.image)).flatten(),
            similarity: format!("{:.3}", answer.similarity),
            is_right: answer.is_right,
        });
        Self {
            failure,
            candidates,
            image: failure.caption.is_none().then(|| thumbnails.of(&failure.image)).flatten(),
            right: failure.caption.is_some().then(|| thumbnails.of(&failure.right.image)).flatten(),
            first: first.collect(),
        }
    }
}

fn stages(result: &Reproduction) -> String {
    let lines: Vec<(String, f64, String)> = result
        .stages
        .iter()
        .map(|stage| {
            let text = format!("{:.2} s, {:.0} {} per second", stage.seconds, stage.rate(), stage.unit);
            (stage.name.to_string(), stage.seconds, text)
        })
        .collect();
    chart::bars(&lines, "seconds per stage")
}

fn provenance(result: &Reproduction) -> Vec<(&'static str, String)> {
    let Provenance { version, commit, config_sha256, checkpoint, data, engine, similarity, machine, .. } =
        &result.provenance;
    let memory = result.peak_memory_bytes.map_or_else(|| "unknown".to_owned(), |bytes| format!("{} MiB", bytes >> 20));
    let damaged = match data.damaged.as_slice() {
        [] => "none".to_owned(),
        ids => ids.join(", "),
    };
    let mut rows = vec![
        ("laps-zoo", version.to_string()),
        ("commit", commit.as_deref().unwrap_or("unknown").to_owned()),
        ("configuration", format!("sha256 {config_sha256}")),
        ("checkpoint", format!("{} ({})", checkpoint.file, checkpoint.format)),
        ("checkpoint hash", format!("sha256 {}", checkpoint.sha256)),
    ];
    rows.extend(checkpoint.epoch.map(|epoch| ("checkpoint epoch", epoch.to_string())));
    rows.extend(checkpoint.best_rsum.map(|rsum| ("rSum recorded in training", format!("{rsum:.1}"))));
    rows.extend([
        ("data hash", format!("sha256 {}", data.sha256)),
        ("image files", format!("{:.1} MB", data.image_bytes as f64 / 1e6)),
        ("partially decoded images", damaged),
        ("engine", engine.to_string()),
        ("similarities", similarity.clone()),
        ("CPU", format!("{}, {} CPUs available", machine.processor, machine.processors)),
        ("system", machine.system.clone()),
    ]);
    rows.extend(machine.gpus.iter().map(|gpu| ("GPU", gpu.clone())));
    rows.extend([("peak memory", memory), ("result schema", result.schema.to_string())]);
    rows
}
