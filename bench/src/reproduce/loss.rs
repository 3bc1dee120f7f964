//! rSum lost by one engine or precision compared with another.

use comfy_table::{CellAlignment, Table, presets};
use laps_align::{Evaluation, Protocol};
use serde::{Deserialize, Serialize};

use super::{Reproduction, compare::recalls};
use laps::EngineUsed;

/// Recalls of two results by one protocol, in percent.
#[derive(Clone, Debug, PartialEq)]
pub struct RecallLoss {
    /// The protocol.
    pub protocol: Protocol,
    /// R@1, R@5, R@10 of image to text, then of text to image, and rSum: of the first result.
    pub first: [f64; 7],
    /// The same of the second result.
    pub second: [f64; 7],
}

impl RecallLoss {
    /// Points of rSum that the second result loses; negative if it gains.
    pub fn points(&self) -> f64 {
        self.first[6] - self.second[6]
    }
}

/// An evaluation of the same split with other graphs, and the rSum that they lose.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PrecisionComparison {
    /// Engine of the embeddings.
    pub engine: EngineUsed,
    /// Recalls in percent, and ranks starting at 1, one per protocol.
    pub evaluations: Vec<Evaluation>,
    /// Points of rSum lost, one per protocol; negative for a gain.
    pub rsum_lost: Vec<f64>,
    /// Largest accepted loss, in points of rSum.
    pub tolerance: f64,
    /// The recalls of both results, one per protocol.
    #[serde(skip)]
    pub losses: Vec<RecallLoss>,
}

impl PrecisionComparison {
    /// Compares `other` with `result`; `other` may lose `tolerance` points of rSum by each protocol. `None` if `other` is
    /// the result of a foreign model, which has no precision.
    pub fn new(result: &Reproduction, other: Reproduction, tolerance: f64) -> Option<Self> {
        let losses = losses(result, &other);
        let rsum_lost = losses.iter().map(RecallLoss::points).collect();
        let engine = other.provenance.entry()?.engine.clone();
        Some(Self { engine, evaluations: other.evaluations, rsum_lost, tolerance, losses })
    }

    /// Whether it loses more than the tolerance.
    pub fn failed(&self) -> bool {
        // NaN fails.
        !self.rsum_lost.iter().all(|&lost| lost <= self.tolerance)
    }
}

/// The recalls of both results, one per protocol.
fn losses(first: &Reproduction, second: &Reproduction) -> Vec<RecallLoss> {
    let values = |evaluation: &Evaluation| {
        let [a, b, c, d, e, f] = recalls(&evaluation.headline);
        [a, b, c, d, e, f, evaluation.headline.rsum]
    };
    let pairs = first.evaluations.iter().zip(&second.evaluations);
    pairs.map(|(a, b)| RecallLoss { protocol: a.protocol, first: values(a), second: values(b) }).collect()
}

/// A table of both results by engine, and the rSum lost.
pub fn render_losses(result: &Reproduction, comparison: &PrecisionComparison) -> String {
    let mut text = String::new();
    for loss in &comparison.losses {
        let mut table = Table::new();
        table.load_style(presets::UTF8_BORDERS_ONLY);
        let header = ["i2t R@1", "R@5", "R@10", "t2i R@1", "R@5", "R@10", "rSum"].map(str::to_owned);
        table.set_header([loss.protocol.to_string()].into_iter().chain(header));
        let first = result.provenance.entry().map(|entry| (loss.first, &entry.engine));
        for (values, engine) in first.into_iter().chain([(loss.second, &comparison.engine)]) {
            let name = engine
                .graphs
                .as_ref()
                .map_or_else(|| engine.name.to_string(), |graphs| format!("{}, {graphs}", engine.name));
            table.add_row([name].into_iter().chain(values.iter().map(|value| format!("{value:.2}"))));
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let verdict = if loss.points() <= comparison.tolerance { "within" } else { "outside" };
        text += &format!(
            "{table}\nrSum lost: {:.2} points, {verdict} the tolerance of {:.1}\n",
            loss.points(),
            comparison.tolerance
        );
    }
    text
}
