//! How many of the best items a search among candidates finds.

use std::collections::HashSet;

use serde::Serialize;

use super::{SearchError, Searcher, searcher::largest};
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
    let items = match queries.first() {
        Some(query) => {
            let mut items: Vec<usize> =
                searcher.candidates(query, usize::MAX)?.iter().map(|found| found.item).collect();
            items.sort_unstable();
            items
        }
        None => Vec::new(),
    };
    if items.is_empty() {
        let [expected, found] = ["queries and items", "none"].map(str::to_owned);
        return Err(SearchError::Empty { path: searcher.index.location().to_owned(), expected, found }.into());
    }
    let candidate_counts: Vec<usize> =
        CANDIDATE_COUNTS.into_iter().filter(|&count| count < items.len()).chain([items.len()]).collect();
    // found[count][rank]: number of queries whose item of that exact rank is among that number of candidates.
    let mut found = vec![vec![0usize; RECALL_AT[2].min(items.len())]; candidate_counts.len()];
    for chunk in queries.chunks(QUERY_CHUNK) {
        let similarities = searcher.exact(chunk, &items)?;
        for (query, similarities) in chunk.iter().zip(similarities.chunks_exact(items.len())) {
            let order = largest(similarities, RECALL_AT[2]);
            for (found, &count) in found.iter_mut().zip(&candidate_counts) {
                let candidates: HashSet<usize> =
                    searcher.candidates(query, count)?.iter().map(|candidate| candidate.item).collect();
                for (found, &position) in found.iter_mut().zip(&order) {
                    *found += usize::from(candidates.contains(&items[position]));
                }
            }
        }
        progress(chunk.len());
    }
    let recall = |found: &[usize], top: usize| {
        let top = top.min(items.len());
        100.0 * found[..top].iter().sum::<usize>() as f64 / (top * queries.len()) as f64
    };
    let by_candidates = candidate_counts.iter().zip(&found).map(|(&candidates, found)| {
        let [r1, r5, r10] = RECALL_AT.map(|top| recall(found, top));
        CandidateRecall { candidates, r1, r5, r10 }
    });
    let by_candidates = by_candidates.collect();
    Ok(SearchEvaluation { queries: queries.len(), items: items.len(), by_candidates })
}
