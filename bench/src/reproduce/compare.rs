//! Measured recalls compared with published ones.

use laps_align::{Directions, Evaluation, Protocol};
use laps_hub::registry::{Cell, PublishedTable};
use serde::{Deserialize, Serialize};

/// Rounding error of the difference of two decimal numbers.
const ROUNDING: f64 = 1e-9;
/// Why an entry without published recalls is not compared.
pub(super) const NO_PUBLISHED: &str = "the entry has no published recalls";

/// A published table, and its differences from the measured one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PublishedComparison {
    /// The source: `readme`, `paper`, or a name from the entry file.
    pub source: String,
    /// Protocol of both.
    pub protocol: Protocol,
    /// R@1, R@5, R@10 of image to text, then of text to image; `None` if not published.
    pub recalls: [Option<RecallDifference>; 6],
    /// rSum: the sum of the six recalls.
    pub rsum: Option<RecallDifference>,
    /// Whether the verdict depends on it.
    pub decides: bool,
}

/// A published recall and its difference from the measured one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecallDifference {
    /// In percent.
    pub published: f64,
    /// `printed`, `restored` or `inferred`.
    pub status: laps_hub::registry::Status,
    /// Measured minus published.
    pub difference: f64,
}

/// The outcome of all comparisons.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Verdict {
    /// Every deciding recall is within the tolerance.
    Reproduced {
        /// Largest accepted difference of a recall, in points.
        tolerance: f64,
    },
    /// Some deciding recalls are outside the tolerance.
    Deviates {
        /// Largest accepted difference of a recall, in points.
        tolerance: f64,
        /// Largest difference, in points.
        largest: f64,
        /// Number of recalls outside the tolerance.
        outside: usize,
    },
    /// There are no published recalls to compare with.
    NotCompared {
        /// The reason.
        reason: String,
    },
}

impl Verdict {
    /// Whether it counts as a failed check.
    pub fn failed(&self) -> bool {
        matches!(self, Self::Deviates { .. })
    }
}

/// The six recalls in table order.
pub(crate) fn recalls(directions: &Directions) -> [f64; 6] {
    let (i, t) = (&directions.i2t, &directions.t2i);
    [i.r1, i.r5, i.r10, t.r1, t.r5, t.r10]
}

impl PublishedComparison {
    /// Compares `measured` with a published table of the same protocol.
    pub fn new(measured: &Evaluation, table: &PublishedTable) -> Self {
        let difference = |measured: f64, cell: Option<Cell>| {
            let Cell { value, status } = cell?;
            Some(RecallDifference { published: value, status, difference: measured - value })
        };
        let values = recalls(&measured.headline);
        let cells = [table.i2t, table.t2i].concat();
        let recalls = std::array::from_fn(|index| difference(values[index], cells[index]));
        Self {
            source: table.source.clone(),
            protocol: table.protocol,
            recalls,
            rsum: difference(measured.headline.rsum, table.rsum),
            decides: false,
        }
    }
}

/// Marks the deciding comparisons, and returns the verdict.
///
/// The checkpoints of the paper are not published, so its recalls come from another training run: they decide only if
/// there are no others. Recalls that the authors print next to a checkpoint, or that an entry file gives, belong to
/// that checkpoint.
pub(super) fn decide(comparisons: &mut [PublishedComparison], tolerance: f64) -> Verdict {
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
        let mut comparisons: Vec<_> = tables.iter().map(|table| PublishedComparison::new(&measured(), table)).collect();
        let verdict = decide(&mut comparisons, tolerance);
        (comparisons.iter().map(|comparison| comparison.decides).collect(), verdict)
    }

    #[test]
    fn difference_equal_to_the_tolerance_is_accepted() {
        assert_eq!(measured().headline.i2t.r1, 50.0);
        assert_eq!(verdict(&[table("readme", 50.1)], 0.1).1, Verdict::Reproduced { tolerance: 0.1 });
        let (_, Verdict::Deviates { outside, largest, .. }) = verdict(&[table("readme", 50.3)], 0.1) else { panic!() };
        assert_eq!(outside, 1);
        assert!((largest - 0.3).abs() < 1e-9);
    }

    #[test]
    fn paper_decides_only_without_other_sources() {
        let (decides, outcome) = verdict(&[table("paper", 80.0), table("readme", 50.0)], 0.1);
        assert_eq!(decides, [false, true]);
        assert!(!outcome.failed());
        assert!(verdict(&[table("paper", 80.0)], 0.1).1.failed());
        assert!(matches!(verdict(&[], 0.1).1, Verdict::NotCompared { .. }));
    }
}
