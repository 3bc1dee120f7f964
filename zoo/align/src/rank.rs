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
        let fold = FoldCaptions::new(captions, images.clone(), 0, own_scores(scores, captions, images.clone())?);
        let RowBlockRanks { i2t, counts } = fold.rank(scores, captions, images)?;
        Ok(Self { i2t, t2i: counts.ranks() })
    }
}

/// What some rows of a matrix add to the ranks of its images and their captions among each other, for processes that hold
/// one part of the rows each.
///
/// ```
/// use laps_align::{CaptionImages, PartialRanks, Scores};
///
/// let captions = CaptionImages::new(2, &[0, 1, 1])?;
/// let rows = [[0.9, 0.2, 0.3], [0.5, 0.1, 0.8]];
/// let parts = [Scores::new(&rows[0], 1, 3)?, Scores::new(&rows[1], 1, 3)?];
/// // Every process needs the score of each caption with its own image.
/// let mut own_scores = Vec::new();
/// for (row, part) in parts.iter().enumerate() {
///     own_scores.extend(PartialRanks::own_scores(part, &captions, row, 0..2)?);
/// }
/// let mut counts = vec![0; 9];
/// let mut i2t = Vec::new();
/// for (row, part) in parts.iter().enumerate() {
///     let part = PartialRanks::new(part, &captions, row, 0..2, own_scores.clone())?;
///     counts.iter_mut().zip(part.counts()).for_each(|(sum, count)| *sum += count);
///     i2t.extend(part.i2t);
/// }
/// assert_eq!(PartialRanks::t2i(&counts).iter().map(|rank| rank.later_first).collect::<Vec<_>>(), [0, 1, 0]);
/// # Ok::<(), laps_align::RetrievalError>(())
/// ```
pub struct PartialRanks {
    /// Rank of the best caption of each image of the part.
    pub i2t: Vec<Rank>,
    counts: CaptionCounts,
}

impl PartialRanks {
    /// Scores of the captions of those of `images` that the part has, each with its own image, in the order of the images.
    /// `scores` has the rows from `first_image` on.
    ///
    /// # Errors
    /// A matrix that cannot be read.
    pub fn own_scores(
        scores: &Scores,
        captions: &CaptionImages,
        first_image: usize,
        images: Range<usize>,
    ) -> Result<Vec<f32>, RetrievalError> {
        let pairs = rows(scores, first_image, &images)
            .flat_map(|image| captions.of_images(image..image + 1).iter().map(move |caption| (image, caption)));
        pairs.map(|(image, &caption)| scores.get(image - first_image, caption as usize)).collect()
    }

    /// Ranks `images` and their captions among each other, as far as the rows of the part decide it: those from
    /// `first_image` on. `own_scores` are the [`own_scores`](Self::own_scores) of all parts in the order of the images.
    ///
    /// # Errors
    /// A NaN, and a matrix that cannot be read.
    pub fn new(
        scores: &Scores,
        captions: &CaptionImages,
        first_image: usize,
        images: Range<usize>,
        own_scores: Vec<f32>,
    ) -> Result<Self, RetrievalError> {
        let rows = rows(scores, first_image, &images);
        let mut by_column: Vec<(u32, f32)> =
            captions.of_images(images.clone()).iter().copied().zip(own_scores).collect();
        by_column.sort_unstable_by_key(|&(column, _)| column);
        let own_scores = by_column.into_iter().map(|(_, score)| score).collect();
        let fold = FoldCaptions::new(captions, images, first_image, own_scores);
        let RowBlockRanks { i2t, counts } = fold.rank(scores, captions, rows)?;
        Ok(Self { i2t, counts })
    }

    /// Numbers to add up over all parts, three a caption.
    pub fn counts(&self) -> impl Iterator<Item = u32> + '_ {
        let CaptionCounts { greater, equal, equal_later } = &self.counts;
        [greater, equal, equal_later].into_iter().flatten().copied()
    }

    /// Rank of the image of each caption, in the order of the columns, from the sums of [`counts`](Self::counts).
    pub fn t2i(sums: &[u32]) -> Vec<Rank> {
        let mut parts = sums.chunks_exact((sums.len() / 3).max(1)).map(<[u32]>::to_vec);
        let mut next = || parts.next().unwrap_or_default();
        CaptionCounts { greater: next(), equal: next(), equal_later: next() }.ranks()
    }
}

/// Those of `images` whose rows `scores` has.
fn rows(scores: &Scores, first_image: usize, images: &Range<usize>) -> Range<usize> {
    let start = images.start.max(first_image);
    start..images.end.min(first_image + scores.images()).max(start)
}

/// Score of each caption of `images` with its image, by column.
fn own_scores(scores: &Scores, captions: &CaptionImages, images: Range<usize>) -> Result<Vec<f32>, RetrievalError> {
    let mut columns = captions.of_images(images).to_vec();
    columns.sort_unstable();
    columns.iter().map(|&column| scores.get(captions.image(column) as usize, column as usize)).collect()
}

/// The captions of the ranked images.
struct FoldCaptions {
    /// Column of each caption, ascending.
    columns: Vec<u32>,
    /// Row of the image of each caption.
    rows: Vec<u32>,
    /// Score of each caption with its image.
    own_scores: Vec<f32>,
    /// Image of the first row of the scores.
    first_image: usize,
}

/// Ranks of a block of rows, and what the rows add to the ranks of the captions.
struct RowBlockRanks {
    i2t: Vec<Rank>,
    counts: CaptionCounts,
}

impl FoldCaptions {
    fn new(captions: &CaptionImages, images: Range<usize>, first_image: usize, own_scores: Vec<f32>) -> Self {
        let mut columns = captions.of_images(images).to_vec();
        columns.sort_unstable();
        let rows = columns.iter().map(|&column| captions.image(column)).collect();
        Self { columns, rows, own_scores, first_image }
    }

    /// Ranks the rows of `images` on the threads of rayon.
    fn rank(
        &self,
        scores: &Scores,
        captions: &CaptionImages,
        images: Range<usize>,
    ) -> Result<RowBlockRanks, RetrievalError> {
        let block_rows = images.len().div_ceil(rayon::current_num_threads()).max(1);
        let starts: Vec<usize> = images.clone().step_by(block_rows).collect();
        let blocks: Vec<Result<RowBlockRanks, RetrievalError>> = starts
            .into_par_iter()
            .map(|start| self.rank_rows(scores, captions, start..(start + block_rows).min(images.end)))
            .collect();
        let counts = CaptionCounts::new(self.own_scores.len());
        let mut all = RowBlockRanks { i2t: Vec::with_capacity(images.len()), counts };
        for block in blocks {
            let block = block?;
            all.i2t.extend(block.i2t);
            all.counts.add(&block.counts);
        }
        Ok(all)
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
            let whole = scores.row(row - self.first_image, &mut decoded)?;
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
