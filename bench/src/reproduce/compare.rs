//! Measured beside published.

use laps_align::{Directions, Evaluation, Protocol};
use laps_hub::registry::{Cell, PublishedTable};
use serde::{Deserialize, Serialize};

/// Rounding of a difference of two decimal numbers in binary.
const ROUNDING: f64 = 1e-9;
/// Why an entry is not compared that nothing is published for.
pub(super) const NO_PUBLISHED: &str = "the entry has no published recalls";

/// A published table and what the measured one differs by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Who published it: `readme`, `paper`, or a name that the entry gives.
    pub source: String,
    /// How it was measured.
    pub protocol: Protocol,
    /// R@1, R@5, R@10 from image to text, then from text to image; those that are published.
    pub recalls: [Option<Difference>; 6],
    /// Sum of the six.
    pub rsum: Option<Difference>,
    /// Whether the verdict rests on it.
    pub decides: bool,
}

/// A published figure and the measured one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// In percent.
    pub published: f64,
    /// `printed`, `restored` or `inferred`.
    pub status: laps_hub::registry::Status,
    /// Measured less published.
    pub difference: f64,
}

/// What follows from the comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Verdict {
    /// Every deciding figure is within the tolerance.
    Reproduced {
        /// Largest allowed difference of a recall, in points.
        tolerance: f64,
    },
    /// Some are not.
    Deviates {
        /// Largest allowed difference of a recall, in points.
        tolerance: f64,
        /// Largest difference that was found.
        largest: f64,
        /// Figures outside.
        outside: usize,
    },
    /// There is nothing that the figures could be compared with.
    NotCompared {
        /// Why.
        reason: String,
    },
}

impl Verdict {
    /// Whether a check failed.
    pub fn failed(&self) -> bool {
        matches!(self, Self::Deviates { .. })
    }
}

/// The six recalls in the order of the tables.
pub(crate) fn recalls(directions: &Directions) -> [f64; 6] {
    let (i, t) = (&directions.i2t, &directions.t2i);
    [i.r1, i.r5, i.r10, t.r1, t.r5, t.r10]
}

impl Comparison {
    /// `measured` against a published table of the same protocol.
    pub fn new(measured: &Evaluation, table: &PublishedTable) -> Self {
        let difference = |found: f64, cell: Option<Cell>| {
            let Cell { value, status } = cell?;
            Some(Difference { published: value, status, difference: found - value })
        };
        let found = recalls(&measured.headline);
        let cells = [table.i2t, table.t2i].concat();
        let recalls = std::array::from_fn(|index| difference(found[index], cells[index]));
        Self {
            source: table.source.clone(),
            protocol: table.protocol,
            recalls,
            rsum: difference(measured.headline.rsum, table.rsum),
            decides: false,
        }
    }
}

/// Marks the comparisons that decide, and decides.
///
/// The paper's own checkpoints are not published, so its figures are those of another training run: they decide only
/// where nothing else is given. What the authors print beside a checkpoint, or an entry file gives, is of that checkpoint.
pub(super) fn decide(comparisons: &mut [Comparison], tolerance: f64) -> Verdict {
    let only_paper = comparisons.iter().all(|comparison| comparison.source == "paper");
    for comparison in comparisons.iter_mut() {
        comparison.decides = only_paper || comparison.source != "paper";
    }
    let deciding = comparisons.iter().filter(|comparison| comparison.decides);
    let differences: Vec<f64> =
        deciding.flat_map(|comparison| comparison.recalls).flatten().map(|cell| cell.difference.abs()).collect();
    if differences.is_empty() {
        return Verdict::NotCompared { reason: NO_PUBLISHED.to_owned() };
    }
    let outside = differences.iter().filter(|&&difference| difference > tolerance + ROUNDING).count();
    if outside == 0 {
        return Verdict::Reproduced { tolerance };
    }
    let largest = differences.into_iter().fold(0.0, f64::max);
    Verdict::Deviates { tolerance, largest, outside }
}

#[cfg(test)]
mod tests {
    use laps_align::{CaptionImages, Scores, evaluate};
    use laps_hub::registry::Status;

    use super::*;

    fn measured() -> Evaluation {
        let captions = CaptionImages::uniform(2, 1).unwrap();
        evaluate(&Scores::new(&[1.0, 0.0, 0.5, 0.2], 2, 2).unwrap(), &captions, Protocol::F30k).unwrap()
    }

    fn table(source: &str, first: f64) -> PublishedTable {
        let cell = |value| Some(Cell { value, status: Status::Printed });
        PublishedTable {
            source: source.to_owned(),
            protocol: Protocol::F30k,
            i2t: [cell(first), cell(100.0), None],
            t2i: [None; 3],
            rsum: None,
            printed_t2i: None,
        }
    }

    fn verdict(tables: &[PublishedTable], tolerance: f64) -> (Vec<bool>, Verdict) {
        let mut comparisons: Vec<_> = tables.iter().map(|table| Comparison::new(&measured(), table)).collect();
        let verdict = decide(&mut comparisons, tolerance);
        (comparisons.iter().map(|comparison| comparison.decides).collect(), verdict)
    }

    #[test]
    fn a_difference_of_exactly_the_tolerance_is_within() {
        assert_eq!(measured().headline.i2t.r1, 50.0);
        assert_eq!(verdict(&[table("readme", 50.1)], 0.1).1, Verdict::Reproduced { tolerance: 0.1 });
        let (_, Verdict::Deviates { outside, largest, .. }) = verdict(&[table("readme", 50.3)], 0.1) else { panic!() };
        assert_eq!(outside, 1);
        assert!((largest - 0.3).abs() < 1e-9);
    }

    #[test]
    fn the_paper_decides_only_alone() {
        let (decides, outcome) = verdict(&[table("paper", 80.0), table("readme", 50.0)], 0.1);
        assert_eq!(decides, [false, true]);
        assert!(!outcome.failed());
        assert!(verdict(&[table("paper", 80.0)], 0.1).1.failed());
        assert!(matches!(verdict(&[], 0.1).1, Verdict::NotCompared { .. }));
    }
}
