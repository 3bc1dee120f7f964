//! The values that the page template shows.

use std::collections::BTreeMap;

use laps_align::{Evaluation, Protocol};

use super::{Explainer, Thumbnails, chart, contrast::ContrastView};
use crate::{
    Result,
    reproduce::{
        EntryUsed, EvaluatedModel, ForeignModel, JudgedEvaluation, Provenance, QueryFailure, RankCounts, Reproduction,
        Verdict, outcome,
    },
    tables::{RecallRow, RecallTables, RowKind},
};

/// Largest rank of the recall curves.
const DEPTH: u32 = 100;
/// First rank of each histogram bar.
const BARS: [u32; 7] = [1, 2, 3, 6, 11, 21, 51];

/// The table of one protocol.
pub(super) struct TableView {
    pub(super) title: String,
    pub(super) groups: Vec<(String, Vec<RowView>)>,
}

/// A row of a table.
pub(super) struct RowView {
    pub(super) class: &'static str,
    pub(super) label: String,
    /// Text and mark of each cell.
    pub(super) cells: [(String, &'static str); 7],
}

/// One result.
pub(super) struct ResultView<'a> {
    pub(super) number: usize,
    pub(super) title: String,
    pub(super) size: String,
    pub(super) verdict: (&'static str, String),
    pub(super) notes: &'a [String],
    pub(super) evaluations: Vec<EvaluationView>,
    pub(super) has_ranks: bool,
    /// Rows of metric, image to text, text to image.
    pub(super) judged: Vec<[String; 3]>,
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
    pub(super) contrast: Option<ContrastView>,
}

/// A candidate answer.
pub(super) struct AnswerView<'a> {
    pub(super) name: &'a str,
    pub(super) caption: &'a str,
    pub(super) image: Option<String>,
    pub(super) similarity: String,
    pub(super) is_right: bool,
}

/// The tables of one kind; `prefix` comes before the protocol in their titles.
pub(super) fn tables(tables: &RecallTables, prefix: &str) -> Vec<TableView> {
    let row = |row: &RecallRow| {
        let (mut texts, marks) = (row.texts(tables.style()), row.marks());
        RowView {
            class: match row.kind {
                RowKind::Baseline => "baseline",
                RowKind::Published => "published",
                RowKind::Measured => "measured",
                RowKind::Difference => "difference",
                RowKind::NotMeasured => "not-measured",
            },
            label: row.label(),
            cells: std::array::from_fn(|index| (std::mem::take(&mut texts[index]), marks[index].name())),
        }
    };
    let view = tables.tables.iter().map(|table| TableView {
        title: format!("{prefix}{}", table.protocol.name()),
        groups: table.groups.iter().map(|group| (group.name.clone(), group.rows.iter().map(row).collect())).collect(),
    });
    view.collect()
}

impl<'a> ResultView<'a> {
    pub(super) fn new(
        number: usize,
        result: &'a Reproduction,
        thumbnails: &Thumbnails,
        explainer: &Explainer,
    ) -> Result<Self> {
        let Reproduction { split, limit, images, captions, notes, failures, .. } = result;
        let limit = limit.map_or_else(String::new, |limit| format!(" (first {limit} images)"));
        let evaluations = result.evaluations.iter().map(|evaluation| EvaluationView::new(result, evaluation)).collect();
        let view = |failure, candidates| {
            let contrast = explainer.contrast(result, failure, thumbnails)?;
            Ok(FailureView { contrast, ..FailureView::new(failure, candidates, thumbnails) })
        };
        let i2t = failures.i2t.iter().map(|failure| view(failure, *captions)).collect::<Result<_>>()?;
        let t2i = failures.t2i.iter().map(|failure| view(failure, *images)).collect::<Result<_>>()?;
        Ok(Self {
            number,
            title: result.title(),
            size: format!("split {split}{limit}: {images} images, {captions} captions"),
            verdict: verdict(&result.verdict),
            notes,
            evaluations,
            has_ranks: !result.ranks.is_empty(),
            judged: result.judged.iter().flat_map(judged).collect(),
            failures: [i2t, t2i],
            stages: stages(result),
            provenance: provenance(result),
        })
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
        let mut facts = vec![
            row("median rank", [i2t, t2i].map(|recall| format!("{:.1}", recall.median_rank))),
            row("mean rank", [i2t, t2i].map(|recall| format!("{:.3}", recall.mean_rank))),
            row("queries with ties", [ties.i2t, ties.t2i].map(|count| count.to_string())),
        ];
        let intervals = result.intervals.iter().find(|intervals| intervals.protocol == evaluation.protocol);
        facts.extend(intervals.into_iter().flat_map(|intervals| {
            [1, 5, 10].into_iter().enumerate().map(|(index, depth)| {
                let bounds = [intervals.recalls[index], intervals.recalls[3 + index]];
                let name = format!("R@{depth}, {:.0}% interval", 100.0 * intervals.level);
                row(&name, bounds.map(|[low, high]| format!("{low:.1} to {high:.1}")))
            })
        }));
        Self {
            protocol: name,
            charts: ranks.map(|ranks| [curves(ranks, &published, name), histogram(ranks, name)]),
            folds: (folds.len() > 1).then(|| chart::dots(&folds, evaluation.headline.rsum, &label)),
            facts,
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

/// Rows of metric, image to text, text to image.
fn judged(judged: &JudgedEvaluation) -> Vec<[String; 3]> {
    let [i2t, t2i] = [&judged.metrics.i2t, &judged.metrics.t2i];
    let metrics: [(&str, [f64; 2]); 5] = [
        ("mAP@R", [i2t.map_at_r, t2i.map_at_r]),
        ("R-Precision", [i2t.r_precision, t2i.r_precision]),
        ("R@1", [i2t.r1, t2i.r1]),
        ("R@5", [i2t.r5, t2i.r5]),
        ("R@10", [i2t.r10, t2i.r10]),
    ];
    let row = |(name, [i2t, t2i]): (&str, [f64; 2])| {
        [format!("{} {name}", judged.set), format!("{i2t:.2}"), format!("{t2i:.2}")]
    };
    metrics.into_iter().map(row).collect()
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
            contrast: None,
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
    let Provenance { version, commit, model, similarity, machine, .. } = &result.provenance;
    let memory = result.peak_memory_bytes.map_or_else(|| "unknown".to_owned(), |bytes| format!("{} MiB", bytes >> 20));
    let mut rows =
        vec![("laps-zoo", version.to_string()), ("commit", commit.as_deref().unwrap_or("unknown").to_owned())];
    match model {
        EvaluatedModel::Entry(used) => rows.extend(entry_rows(used)),
        EvaluatedModel::Foreign { foreign } => rows.extend(foreign_rows(foreign)),
    }
    rows.extend([
        ("similarities", similarity.clone()),
        ("CPU", format!("{}, {} CPUs available", machine.processor, machine.processors)),
        ("system", machine.system.clone()),
    ]);
    rows.extend(machine.gpus.iter().map(|gpu| ("GPU", gpu.clone())));
    rows.extend([("peak memory", memory), ("result schema", result.schema.to_string())]);
    rows
}

fn entry_rows(used: &EntryUsed) -> Vec<(&'static str, String)> {
    let EntryUsed { config_sha256, checkpoint, data, engine } = used;
    let damaged = match data.damaged.as_slice() {
        [] => "none".to_owned(),
        ids => ids.join(", "),
    };
    let mut rows = vec![
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
    ]);
    rows
}

fn foreign_rows(foreign: &ForeignModel) -> Vec<(&'static str, String)> {
    let mut rows = vec![("model", "foreign: laps-zoo did not run it".to_owned())];
    rows.extend(foreign.files.iter().map(|file| ("file", format!("{}, sha256 {}", file.file, file.sha256))));
    if let Some(head) = &foreign.head {
        rows.push(("head", head.name.clone()));
        let parameters = head.checkpoint.as_ref();
        rows.extend(
            parameters.map(|file| ("parameters of the head", format!("{}, sha256 {}", file.file, file.sha256))),
        );
    }
    rows
}
