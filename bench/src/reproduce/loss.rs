//! What the recalls of one result lose against those of another.

use comfy_table::{CellAlignment, Table, presets};
use laps_align::{Evaluation, Protocol};
use serde::{Deserialize, Serialize};

use super::{Reproduction, compare::recalls};
use laps::EngineUsed;

/// Recalls by one protocol, in percent.
#[derive(Clone, Debug, PartialEq)]
pub struct Loss {
    /// How they were counted.
    pub protocol: Protocol,
    /// From image to text and from text to image at 1, 5 and 10, and their sum: those of the first result.
    pub first: [f64; 7],
    /// Those of the second.
    pub second: [f64; 7],
}

impl Loss {
    /// Points of the sum of recalls by which the second is lower; negative where it is higher.
    pub fn points(&self) -> f64 {
        self.first[6] - self.second[6]
    }
}

/// The same split by other graphs, and what they lose.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Beside {
    /// What computed the embeddings.
    pub engine: EngineUsed,
    /// Recalls in percent and ranks from 1, a protocol each.
    pub evaluations: Vec<Evaluation>,
    /// Points of the sum of recalls that are lost, a protocol each; negative where some are won.
    pub rsum_lost: Vec<f64>,
    /// Points that may be lost.
    pub tolerance: f64,
    /// Figures beside figures.
    #[serde(skip)]
    pub losses: Vec<Loss>,
}

impl Beside {
    /// Compares `other` with `result`, of whose sum of recalls it may lose `tolerance` points by each protocol.
    pub fn new(result: &Reproduction, other: Reproduction, tolerance: f64) -> Self {
        let losses = losses(result, &other);
        let rsum_lost = losses.iter().map(Loss::points).collect();
        let Reproduction { evaluations, provenance, .. } = other;
        Self { engine: provenance.engine, evaluations, rsum_lost, tolerance, losses }
    }

    /// Whether more is lost than may be.
    pub fn failed(&self) -> bool {
        // What is no number has lost everything.
        !self.rsum_lost.iter().all(|&lost| lost <= self.tolerance)
    }
}

/// The recalls of both results, a protocol each.
fn losses(first: &Reproduction, second: &Reproduction) -> Vec<Loss> {
    let figures = |evaluation: &Evaluation| {
        let [a, b, c, d, e, f] = recalls(&evaluation.headline);
        [a, b, c, d, e, f, evaluation.headline.rsum]
    };
    let pairs = first.evaluations.iter().zip(&second.evaluations);
    pairs.map(|(a, b)| Loss { protocol: a.protocol, first: figures(a), second: figures(b) }).collect()
}

/// The table for people: both results by their engines, and the points that are lost.
pub fn render_losses(result: &Reproduction, beside: &Beside) -> String {
    let mut text = String::new();
    for loss in &beside.losses {
        let mut table = Table::new();
        table.load_style(presets::UTF8_BORDERS_ONLY);
        let header = ["i2t R@1", "R@5", "R@10", "t2i R@1", "R@5", "R@10", "rSum"].map(str::to_owned);
        table.set_header([loss.protocol.to_string()].into_iter().chain(header));
        for (figures, engine) in [(loss.first, &result.provenance.engine), (loss.second, &beside.engine)] {
            let name = engine
                .graphs
                .as_ref()
                .map_or_else(|| engine.name.to_string(), |graphs| format!("{}, {graphs}", engine.name));
            table.add_row([name].into_iter().chain(figures.iter().map(|figure| format!("{figure:.2}"))));
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let verdict = if loss.points() <= beside.tolerance { "within" } else { "outside" };
        text += &format!(
            "{table}\nrSum lost: {:.2} points, {verdict} the tolerance of {:.1}\n",
            loss.points(),
            beside.tolerance
        );
    }
    text
}
