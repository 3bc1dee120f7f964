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

/// Contribution of some rows of a matrix to the ranks of its images and their captions among each other, for processes
/// that hold one part of the rows each.
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

/// Rows that are counted together: enough that the counts of the captions, which are read and written once for them, cost
/// little, and few enough for the cache.
const GROUP_ROWS: usize = 8;

/// Captions whose counts stay in the cache while the rows of a group pass.
const CHUNK: usize = 512;

/// Blocks of rows for each thread, so that a thread that has other work to finish delays the others little.
const BLOCKS_PER_THREAD: usize = 4;

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
        let block_rows = images.len().div_ceil(BLOCKS_PER_THREAD * rayon::current_num_threads());
        let block_rows = block_rows.next_multiple_of(GROUP_ROWS).max(1);
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
        let mut buffers: [RowBuffer; GROUP_ROWS] = Default::default();
        let counts = CaptionCounts::new(self.columns.len());
        let mut block = RowBlockRanks { i2t: Vec::with_capacity(rows.len()), counts };
        for start in rows.clone().step_by(GROUP_ROWS) {
            let group = start..(start + GROUP_ROWS).min(rows.end);
            let read = |(row, buffer)| self.read_row(scores, row, range.clone(), buffer);
            let values = group.clone().zip(&mut buffers).map(read).collect::<Result<Vec<&[f32]>, _>>()?;
            for (row, &values) in group.zip(&values) {
                let own = captions.of_images(row..row + 1).iter();
                let own = own.map(|column| self.columns.partition_point(|c| c < column));
                let Some(rank) = rank_of_best(values, own) else {
                    let index = values.iter().position(|value| value.is_nan()).unwrap_or_default();
                    return Err(RetrievalError::NotANumber { row, column: self.columns[index] as usize });
                };
                block.i2t.push(rank);
            }
            block.counts.add_rows(start as u32, &values, self);
        }
        Ok(block)
    }

    /// The values of the captions in a row.
    fn read_row<'b>(
        &self,
        scores: &'b Scores,
        row: usize,
        range: Option<Range<usize>>,
        buffer: &'b mut RowBuffer,
    ) -> Result<&'b [f32], RetrievalError> {
        let RowBuffer { decoded, gathered } = buffer;
        let whole = scores.row(row - self.first_image, decoded)?;
        Ok(match range {
            Some(range) => &whole[range],
            None => {
                gathered.clear();
                gathered.extend(self.columns.iter().map(|&column| whole[column as usize]));
                gathered
            }
        })
    }
}

/// Memory of one row.
#[derive(Default)]
struct RowBuffer {
    decoded: Vec<f32>,
    gathered: Vec<f32>,
}

/// Rank of the best of the positions `own`; `None` if there is a NaN.
fn rank_of_best(values: &[f32], own: impl Iterator<Item = usize> + Clone) -> Option<Rank> {
    let best = own.clone().map(|index| values[index]).fold(f32::NEG_INFINITY, f32::max);
    let ties = own.filter(|&index| values[index] == best);
    let (tied, last) = ties.fold((0, 0), |(tied, _), index| (tied + 1, index));
    // One pass that the compiler vectorises: no search that stops early.
    let (mut greater, mut at_least, mut nan) = (0, 0, 0);
    for &value in values {
        greater += u32::from(value > best);
        at_least += u32::from(value >= best);
        nan += u32::from(value.is_nan());
    }
    if nan > 0 {
        return None;
    }
    // Equal scores of others are rare.
    let later = match at_least - greater > tied {
        true => values[last + 1..].iter().filter(|&&value| value == best).count() as u32,
        false => 0,
    };
    Some(Rank { optimistic: greater, later_first: greater + later, pessimistic: at_least - tied })
}

/// Counts the rows with a greater score than `own` in each column, and returns whether any has the same one. All slices have
/// the same length.
#[inline(always)]
fn count_greater<const ROWS: usize>(rows: [&[f32]; ROWS], own: &[f32], greater: &mut [u32]) -> bool {
    let rows = rows.map(|row| &row[..own.len()]);
    let greater = &mut greater[..own.len()];
    let mut equal = 0;
    for column in 0..own.len() {
        let (mut above, mut at_least) = (0, 0);
        for row in rows {
            above += u32::from(row[column] > own[column]);
            at_least += u32::from(row[column] >= own[column]);
        }
        greater[column] += above;
        equal |= at_least - above;
    }
    equal != 0
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

    /// Adds the rows from `first_row` on, at most [`GROUP_ROWS`].
    fn add_rows(&mut self, first_row: u32, rows: &[&[f32]], fold: &FoldCaptions) {
        for start in (0..fold.own_scores.len()).step_by(CHUNK) {
            let chunk = start..(start + CHUNK).min(fold.own_scores.len());
            let (own, greater) = (&fold.own_scores[chunk.clone()], &mut self.greater[chunk.clone()]);
            let has_equal = match *rows {
                // Whole groups, in which the compiler keeps the sums of a caption in a register.
                [a, b, c, d, e, f, g, h] => {
                    count_greater([a, b, c, d, e, f, g, h].map(|row| &row[chunk.clone()]), own, greater)
                }
                _ => rows.iter().fold(false, |found, row| found | count_greater([&row[chunk.clone()]], own, greater)),
            };
            // Among few rows, only the image itself has the same score, if it is one of them, and rarely another.
            if has_equal {
                for (row, values) in (first_row..).zip(rows) {
                    self.add_equal(row, values, chunk.clone(), fold);
                }
            }
        }
    }

    fn add_equal(&mut self, row: u32, values: &[f32], chunk: Range<usize>, fold: &FoldCaptions) {
        let own = fold.own_scores[chunk.clone()].iter().zip(&fold.rows[chunk.clone()]).zip(&values[chunk.clone()]);
        let counts = self.equal[chunk.clone()].iter_mut().zip(&mut self.equal_later[chunk]);
        for (((own_score, &own_row), value), (equal, equal_later)) in own.zip(counts) {
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
