//! How many of the best items a search among candidates finds.

use serde::Serialize;

use super::{SearchError, Searcher, searcher::descending_order};
use crate::Result;
use laps_model::array::Array;

/// Evaluated numbers of candidates. Those above the number of items are left out.
const CANDIDATE_COUNTS: [usize; 9] = [10, 20, 50, 100, 200, 500, 1000, 2000, 5000];

/// Evaluated numbers of best items.
const RECALL_AT: [usize; 3] = [1, 5, 10];

/// Queries whose similarities with all items are in memory at once.
const QUERY_CHUNK: usize = 256;

/// Recalls of the candidate stage, relative to a search of all items.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SearchEvaluation {
    /// Number of queries.
    pub queries: usize,
    /// Number of items in the index.
    pub items: usize,
    /// Recalls by number of candidates, ascending.
    #[serde(rename = "short_cuts")]
    pub by_candidates: Vec<CandidateRecall>,
}

/// Recalls of one number of candidates.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CandidateRecall {
    /// Number of candidates whose exact similarity is computed.
    pub candidates: usize,
    /// Percentage of queries whose best item is found.
    pub r1: f64,
    /// Percentage of the five best items that are found.
    pub r5: f64,
    /// Percentage of the ten best items that are found.
    pub r10: f64,
}

/// Counts how many of the best items of each query are among its candidates; a search ranks these first, in the same order
/// as a search of all items. `queries` are those of [`Searcher::search`]. `progress` receives the number of finished
/// queries of each chunk.
///
/// # Errors
/// Those of [`Searcher::search`].
pub fn evaluate(searcher: &Searcher<'_>, queries: &[Array], progress: &dyn Fn(usize)) -> Result<SearchEvaluation> {
    let items = searcher.index.items().len();
    if queries.is_empty() || items == 0 {
        let [expected, found] = ["queries and items", "none"].map(str::to_owned);
        return Err(SearchError::Empty { path: searcher.index.path().to_owned(), expected, found }.into());
    }
    let all_items: Vec<usize> = (0..items).collect();
    // counts[exact_rank][pooled_rank]: number of queries whose item of that exact rank has that rank by pooled vectors.
    let mut counts = vec![vec![0usize; items]; RECALL_AT[2].min(items)];
    for chunk in queries.chunks(QUERY_CHUNK) {
        let similarities = searcher.exact(chunk, &all_items)?;
        for (query, similarities) in chunk.iter().zip(similarities.chunks_exact(items)) {
            let mut pooled_rank = vec![0; items];
            for (rank, item) in descending_order(&searcher.pooled(query)?).into_iter().enumerate() {
                pooled_rank[item] = rank;
            }
            for (counts, item) in counts.iter_mut().zip(descending_order(similarities)) {
                counts[pooled_rank[item]] += 1;
            }
        }
        progress(chunk.len());
    }
    let found = |rank: usize, candidates: usize| counts[rank][..candidates].iter().sum::<usize>() as f64;
    let recall = |top: usize, candidates: usize| {
        let top = top.min(items);
        let sum: f64 = (0..top).map(|rank| found(rank, candidates)).sum();
        100.0 * sum / (top * queries.len()) as f64
    };
    let candidate_counts = CANDIDATE_COUNTS.into_iter().filter(|&count| count < items).chain([items]);
    let by_candidates = candidate_counts.map(|candidates| {
        let [r1, r5, r10] = RECALL_AT.map(|top| recall(top, candidates));
        CandidateRecall { candidates, r1, r5, r10 }
    });
    Ok(SearchEvaluation { queries: queries.len(), items, by_candidates: by_candidates.collect() })
}
