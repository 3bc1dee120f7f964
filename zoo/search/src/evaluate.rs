//! What the short cut loses.

use serde::Serialize;

use super::{SearchError, Searcher, searcher::best_first};
use crate::Result;
use laps_model::array::Array;

/// Numbers of candidates that are looked at, as far as an index has as many items.
const COUNTS: [usize; 9] = [10, 20, 50, 100, 200, 500, 1000, 2000, 5000];

/// Places at the top that are compared.
const PLACES: [usize; 3] = [1, 5, 10];

/// Queries whose similarities with all items are held at one time.
const TOGETHER: usize = 256;

/// How many of the best items a search among candidates finds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// Queries.
    pub queries: usize,
    /// Items of the index.
    pub items: usize,
    /// By number of candidates, ascending.
    pub short_cuts: Vec<ShortCut>,
}

/// A number of candidates and what it finds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ShortCut {
    /// Candidates whose similarity is computed.
    pub candidates: usize,
    /// Percentage of queries whose best item is found.
    pub r1: f64,
    /// Percentage of the five best items that are found.
    pub r5: f64,
    /// Percentage of the ten best items that are found.
    pub r10: f64,
}

/// Searches for each query among candidates and among all items, and counts how many of the best of all are candidates:
/// these then come at the top in their order. `queries` are as [`Searcher::search`] takes them; `progress` is told of
/// those that are done.
///
/// # Errors
/// As [`Searcher::search`].
pub fn evaluate(searcher: &Searcher<'_>, queries: &[Array], progress: &dyn Fn(usize)) -> Result<Evaluation> {
    let items = searcher.index.items().len();
    if queries.is_empty() || items == 0 {
        let [expected, found] = ["queries and items", "none"].map(str::to_owned);
        return Err(SearchError::Empty { path: searcher.index.path().to_owned(), expected, found }.into());
    }
    let everything: Vec<usize> = (0..items).collect();
    // For each place at the top, in how many queries its item is at which place by pooled vectors.
    let mut places = vec![vec![0usize; items]; PLACES[2].min(items)];
    for part in queries.chunks(TOGETHER) {
        let exact = searcher.exact(part, &everything)?;
        for (query, similarities) in part.iter().zip(exact.chunks_exact(items)) {
            let mut rank = vec![0; items];
            for (place, item) in best_first(&searcher.pooled(query)?).into_iter().enumerate() {
                rank[item] = place;
            }
            for (counts, item) in places.iter_mut().zip(best_first(similarities)) {
                counts[rank[item]] += 1;
            }
        }
        progress(part.len());
    }
    let found = |place: usize, candidates: usize| places[place][..candidates].iter().sum::<usize>() as f64;
    let recall = |top: usize, candidates: usize| {
        let top = top.min(items);
        let sum: f64 = (0..top).map(|place| found(place, candidates)).sum();
        100.0 * sum / (top * queries.len()) as f64
    };
    let counts = COUNTS.into_iter().filter(|&count| count < items).chain([items]);
    let short_cuts = counts.map(|candidates| {
        let [r1, r5, r10] = PLACES.map(|top| recall(top, candidates));
        ShortCut { candidates, r1, r5, r10 }
    });
    Ok(Evaluation { queries: queries.len(), items, short_cuts: short_cuts.collect() })
}
