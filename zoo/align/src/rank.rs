//! Ranks under each tie rule, counted in one pass over the similarity matrix.

use std::ops::Range;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{CaptionImages, RetrievalError, Scores};

/// The order of candidates with exactly the same score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TieRule {
    /// Matches first.
    Optimistic,
    /// Descending index, as in a reversed stable ascending argsort.
    LaterFirst,
    /// Matches last.
    Pessimistic,
}

impl TieRule {
    /// The tie rule of the headline metrics.
    ///
    /// The authors rank by `numpy.argsort(scores)[::-1]`, whose order of equal scores depends on the machine: it is this rule
    /// without AVX-512 for up to 16 candidates, and undefined otherwise. A fixed rule gives the same metrics everywhere.
    pub const HEADLINE: Self = Self::LaterFirst;
}

/// Number of candidates that rank above the best match, so 0 is the best rank, under each [`TieRule`].
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
    /// The rank under `rule`.
    pub fn under(&self, rule: TieRule) -> u32 {
        match rule {
            TieRule::Optimistic => self.optimistic,
            TieRule::LaterFirst => self.later_first,
            TieRule::Pessimistic => self.pessimistic,
        }
    }

    /// Whether the rank depends on the tie rule.
    pub(super) fn is_tied(&self) -> bool {
        self.optimistic != self.pessimistic
    }
}

/// Ranks of consecutive images and their captions, among each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranks {
    /// Rank of the best caption of each image.
    pub i2t: Vec<Rank>,
    /// Rank of the image of each caption, in the order of the columns.
    pub t2i: Vec<Rank>,
}

impl Ranks {
    /// Ranks within the rows `images` and the columns of their captions, computed on the threads of rayon.
    pub(super) fn of(scores: &Scores, captions: &CaptionImages, images: Range<usize>) -> Result<Self, RetrievalError> {
        let fold = FoldCaptions::new(scores, captions, images.clone())?;
        let block_rows = images.len().div_ceil(rayon::current_num_threads()).max(1);
        let starts: Vec<usize> = images.clone().step_by(block_rows).collect();
        let blocks: Vec<Result<RowBlockRanks, RetrievalError>> = starts
            .into_par_iter()
            .map(|start| fold.rank_rows(scores, captions, start..(start + block_rows).min(images.end)))
            .collect();

        let mut i2t = Vec::with_capacity(images.len());
        let mut total = CaptionCounts::new(fold.own_scores.len());
        for block in blocks {
            let block = block?;
            i2t.extend(block.i2t);
            total.add(&block.counts);
        }
        Ok(Self { i2t, t2i: total.ranks() })
    }
}

/// The captions of the ranked images.
struct FoldCaptions {
    /// Column of each caption, ascending.
    columns: Vec<u32>,
    /// Row of the image of each caption.
    rows: Vec<u32>,
    /// Score of each caption with its image.
    own_scores: Vec<f32>,
}

/// Ranks of a block of rows, and what the rows add to the ranks of the captions.
struct RowBlockRanks {
    i2t: Vec<Rank>,
    counts: CaptionCounts,
}

impl FoldCaptions {
    fn new(scores: &Scores, captions: &CaptionImages, images: Range<usize>) -> Result<Self, RetrievalError> {
        let mut columns = captions.of_images(images).to_vec();
        columns.sort_unstable();
        let rows: Vec<u32> = columns.iter().map(|&column| captions.image(column)).collect();
        let pairs = rows.iter().zip(&columns);
        let own_scores: Result<_, _> = pairs.map(|(&row, &column)| scores.get(row as usize, column as usize)).collect();
        let own_scores = own_scores?;
        Ok(Self { columns, rows, own_scores })
    }

    /// The range of the columns, if they are contiguous.
    fn range(&self) -> Option<Range<usize>> {
        let (&first, &last) = (self.columns.first()?, self.columns.last()?);
        let range = first as usize..last as usize + 1;
        (range.len() == self.columns.len()).then_some(range)
    }

    fn rank_rows(
        &self,
        scores: &Scores,
        captions: &CaptionImages,
        rows: Range<usize>,
    ) -> Result<RowBlockRanks, RetrievalError> {
        let range = self.range();
        let (mut decoded, mut gathered) = (Vec::new(), Vec::new());
        let counts = CaptionCounts::new(self.columns.len());
        let mut block = RowBlockRanks { i2t: Vec::with_capacity(rows.len()), counts };
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
            // The compiler vectorises a fold over all values, but not a search that stops early.
            if values.iter().fold(false, |found, value| found | value.is_nan()) {
                let index = values.iter().position(|value| value.is_nan()).unwrap_or_default();
                return Err(RetrievalError::NotANumber { row, column: self.columns[index] as usize });
            }
            let own = captions.of_images(row..row + 1).iter();
            let own = own.map(|column| self.columns.partition_point(|c| c < column));
            block.i2t.push(rank_of_best(values, own));
            block.counts.add_row(row as u32, values, self);
        }
        Ok(block)
    }
}

/// Rank of the best of the positions `own`.
fn rank_of_best(values: &[f32], own: impl Iterator<Item = usize> + Clone) -> Rank {
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

/// For each caption, the number of images that score higher than its own image, and the number that score the same.
struct CaptionCounts {
    greater: Vec<u32>,
    /// Includes the image itself.
    equal: Vec<u32>,
    /// Those of `equal` in later rows than the image.
    equal_later: Vec<u32>,
}

impl CaptionCounts {
    fn new(captions: usize) -> Self {
        Self { greater: vec![0; captions], equal: vec![0; captions], equal_later: vec![0; captions] }
    }

    fn add_row(&mut self, row: u32, values: &[f32], fold: &FoldCaptions) {
        let own = fold.own_scores.iter().zip(&fold.rows).zip(values);
        let counts = self.greater.iter_mut().zip(&mut self.equal).zip(&mut self.equal_later);
        for (((own_score, &own_row), value), ((greater, equal), equal_later)) in own.zip(counts) {
            *greater += u32::from(value > own_score);
            *equal += u32::from(value == own_score);
            *equal_later += u32::from((value == own_score) & (row > own_row));
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
                // `equal` counts the image itself.
                pessimistic: greater + equal - 1,
            })
            .collect()
    }
}
