//! Ranks by counting, under each rule for ties, in one pass over the similarity matrix.

use std::ops::Range;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{CaptionImages, RetrievalError, Scores};

/// Which of several candidates with exactly the same score comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TieRule {
    /// The right one.
    Optimistic,
    /// The one with the higher index, as in a stable ascending argsort read backwards.
    LaterFirst,
    /// A wrong one.
    Pessimistic,
}

impl TieRule {
    /// The rule of the headline figures.
    ///
    /// The authors rank by `numpy.argsort(scores)[::-1]`, which leaves the order of equal scores to the machine: without
    /// AVX-512 and up to 16 candidates it is this rule, otherwise any. Only a stated rule gives one figure everywhere.
    pub const HEADLINE: Self = Self::LaterFirst;
}

/// How many candidates come before the right one, so 0 is the best, under each [`TieRule`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Rank {
    /// [`TieRule::Optimistic`].
    pub optimistic: u32,
    /// [`TieRule::LaterFirst`].
    pub later_first: u32,
    /// [`TieRule::Pessimistic`].
    pub pessimistic: u32,
}

impl Rank {
    /// Candidates before the right one under `rule`.
    pub fn under(&self, rule: TieRule) -> u32 {
        match rule {
            TieRule::Optimistic => self.optimistic,
            TieRule::LaterFirst => self.later_first,
            TieRule::Pessimistic => self.pessimistic,
        }
    }

    /// Whether the rule for ties decides this rank.
    pub fn is_tied(&self) -> bool {
        self.optimistic != self.pessimistic
    }
}

/// Ranks of consecutive images and their captions among each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranks {
    /// Of each image: the rank of the best of its captions.
    pub i2t: Vec<Rank>,
    /// Of each caption, in the order of the matrix's columns: the rank of its image.
    pub t2i: Vec<Rank>,
}

impl Ranks {
    /// Ranks within the rows `images` and the columns of their captions. Rows are shared among rayon's threads.
    pub(super) fn of(scores: &Scores, captions: &CaptionImages, images: Range<usize>) -> Result<Self, RetrievalError> {
        let columns = Columns::new(scores, captions, images.clone())?;
        let rows_each = images.len().div_ceil(rayon::current_num_threads()).max(1);
        let starts: Vec<usize> = images.clone().step_by(rows_each).collect();
        let parts: Vec<Result<RowBlockRanks, RetrievalError>> = starts
            .into_par_iter()
            .map(|start| columns.count(scores, captions, start..(start + rows_each).min(images.end)))
            .collect();

        let mut i2t = Vec::with_capacity(images.len());
        let mut total = Counts::new(columns.goals.len());
        for part in parts {
            let part = part?;
            i2t.extend(part.i2t);
            total.add(&part.counts);
        }
        Ok(Self { i2t, t2i: total.ranks() })
    }
}

/// The captions that take part.
struct Columns {
    /// Their columns, ascending.
    columns: Vec<u32>,
    /// The row of each one's image.
    rows: Vec<u32>,
    /// The score of each one with its image.
    goals: Vec<f32>,
}

/// What a block of rows contributes.
struct RowBlockRanks {
    i2t: Vec<Rank>,
    counts: Counts,
}

impl Columns {
    fn new(scores: &Scores, captions: &CaptionImages, images: Range<usize>) -> Result<Self, RetrievalError> {
        let mut columns = captions.of(images).to_vec();
        columns.sort_unstable();
        let rows: Vec<u32> = columns.iter().map(|&column| captions.image(column)).collect();
        let pairs = rows.iter().zip(&columns);
        let goals: Result<_, _> = pairs.map(|(&row, &column)| scores.at(row as usize, column as usize)).collect();
        let goals = goals?;
        Ok(Self { columns, rows, goals })
    }

    /// The range of the columns, if there is no gap in it.
    fn range(&self) -> Option<Range<usize>> {
        let (&first, &last) = (self.columns.first()?, self.columns.last()?);
        let range = first as usize..last as usize + 1;
        (range.len() == self.columns.len()).then_some(range)
    }

    fn count(
        &self,
        scores: &Scores,
        captions: &CaptionImages,
        rows: Range<usize>,
    ) -> Result<RowBlockRanks, RetrievalError> {
        let range = self.range();
        let (mut decoded, mut gathered) = (Vec::new(), Vec::new());
        let mut part = RowBlockRanks { i2t: Vec::with_capacity(rows.len()), counts: Counts::new(self.columns.len()) };
        for row in rows {
            let whole = scores.row(row, &mut decoded)?;
            let values = match range.clone() {
                Some(range) => &whole[range],
                None => {
                    gathered.clear();
                    gathered.extend(self.columns.iter().map(|&column| whole[column as usize]));
                    &gathered
                }
            };
            // A plain fold is vectorised, a search that stops early is not.
            if values.iter().fold(false, |found, value| found | value.is_nan()) {
                let index = values.iter().position(|value| value.is_nan()).unwrap_or_default();
                return Err(RetrievalError::NotANumber { row, column: self.columns[index] as usize });
            }
            let own = captions.of(row..row + 1).iter().map(|column| self.columns.partition_point(|c| c < column));
            part.i2t.push(best_of(values, own));
            part.counts.row(row as u32, values, self);
        }
        Ok(part)
    }
}

/// Rank of the best of the positions `own`.
fn best_of(values: &[f32], own: impl Iterator<Item = usize> + Clone) -> Rank {
    let best = own.clone().map(|index| values[index]).fold(f32::NEG_INFINITY, f32::max);
    let ties = own.filter(|&index| values[index] == best);
    let (tied, last) = ties.fold((0, 0), |(tied, _), index| (tied + 1, index));
    let equal = |values: &[f32]| values.iter().filter(|&&value| value == best).count() as u32;
    let greater = values.iter().filter(|&&value| value > best).count() as u32;
    Rank {
        optimistic: greater,
        later_first: greater + equal(&values[last + 1..]),
        pessimistic: greater + equal(values) - tied,
    }
}

/// For each caption, how many images of some rows score as well as or better than its own.
struct Counts {
    greater: Vec<u32>,
    equal: Vec<u32>,
    equal_later: Vec<u32>,
}

impl Counts {
    fn new(captions: usize) -> Self {
        Self { greater: vec![0; captions], equal: vec![0; captions], equal_later: vec![0; captions] }
    }

    fn row(&mut self, row: u32, values: &[f32], columns: &Columns) {
        let goals = columns.goals.iter().zip(&columns.rows).zip(values);
        let counts = self.greater.iter_mut().zip(&mut self.equal).zip(&mut self.equal_later);
        for (((goal, &goal_row), value), ((greater, equal), equal_later)) in goals.zip(counts) {
            *greater += u32::from(value > goal);
            *equal += u32::from(value == goal);
            *equal_later += u32::from((value == goal) & (row > goal_row));
        }
    }

    fn add(&mut self, other: &Self) {
        let sums = [
            (&mut self.greater, &other.greater),
            (&mut self.equal, &other.equal),
            (&mut self.equal_later, &other.equal_later),
        ];
        for (sum, counts) in sums {
            sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
    }

    fn ranks(&self) -> Vec<Rank> {
        let counts = self.greater.iter().zip(&self.equal).zip(&self.equal_later);
        counts
            .map(|((&greater, &equal), &equal_later)| Rank {
                optimistic: greater,
                later_first: greater + equal_later,
                // The image itself is among the equal ones.
                pessimistic: greater + equal - 1,
            })
            .collect()
    }
}
