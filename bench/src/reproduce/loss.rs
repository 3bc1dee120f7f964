//! What the recalls of one result lose against those of another.

use comfy_table::{CellAlignment, Table, presets};
use zoo::retrieval::{Evaluation, Protocol};

use super::{Reproduction, compare::recalls};

/// Recalls by one protocol, in percent.
#[derive(Clone, Debug)]
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

/// The recalls of both results, a protocol each.
pub fn losses(first: &Reproduction, second: &Reproduction) -> Vec<Loss> {
    let figures = |evaluation: &Evaluation| {
        let [a, b, c, d, e, f] = recalls(&evaluation.headline);
        [a, b, c, d, e, f, evaluation.headline.rsum]
    };
    let pairs = first.evaluations.iter().zip(&second.evaluations);
    pairs.map(|(a, b)| Loss { protocol: a.protocol, first: figures(a), second: figures(b) }).collect()
}

/// The table for people: both results by their engines, and the points that are lost.
pub fn render_losses(losses: &[Loss], results: [&Reproduction; 2], tolerance: f64) -> String {
    let mut text = String::new();
    for loss in losses {
        let mut table = Table::new();
        table.load_style(presets::UTF8_BORDERS_ONLY);
        let header = ["i2t R@1", "R@5", "R@10", "t2i R@1", "R@5", "R@10", "rSum"].map(str::to_owned);
        table.set_header([loss.protocol.to_string()].into_iter().chain(header));
        for (figures, result) in [loss.first, loss.second].iter().zip(results) {
            let engine = &result.provenance.engine;
            let name = engine
                .graphs
                .as_ref()
                .map_or_else(|| engine.name.to_string(), |graphs| format!("{}, {graphs}", engine.name));
            table.add_row([name].into_iter().chain(figures.iter().map(|figure| format!("{figure:.2}"))));
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let verdict = if loss.points() <= tolerance { "within" } else { "outside" };
        text +=
            &format!("{table}\nrSum lost: {:.2} points, {verdict} the tolerance of {tolerance:.1}\n", loss.points());
    }
    text
}
