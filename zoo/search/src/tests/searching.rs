//! Search against the similarities of single pairs, and the evaluation against searches.

use std::sync::atomic::AtomicBool;

use super::{captions, engine, images, samples::score, write};
use crate::{Error, Hit, Index, IndexKind, IndexPrecision, SearchError, SearchScope, Searcher, evaluate};
use laps_align::similarity::Engine;
use laps_model::array::Array;

static RUN: AtomicBool = AtomicBool::new(false);

/// Similarities of single pairs, in descending order.
fn expected(engine: &Engine, kind: IndexKind, items: &[Array], query: &Array) -> Vec<(usize, f32)> {
    let score = |item: &Array| match kind {
        IndexKind::Images => score(engine, item, query).unwrap(),
        IndexKind::Captions => score(engine, query, item).unwrap(),
    };
    let mut scores: Vec<(usize, f32)> = items.iter().map(score).enumerate().collect();
    scores.sort_by(|a, b| b.1.total_cmp(&a.1));
    scores
}

#[test]
fn exact_search_sorts_by_pair_similarity() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let engine = engine();
    for (kind, items, queries) in
        [(IndexKind::Images, images(40), captions(6)), (IndexKind::Captions, captions(40), images(6))]
    {
        write(&path, kind, IndexPrecision::Single, &items);
        let index = Index::open(&path).unwrap();
        let searcher = Searcher { filter: None, index: &index, engine: &engine, stop: &RUN };
        for query in &queries {
            let found = searcher.search(query, SearchScope::All, 40).unwrap();
            let found: Vec<(usize, f32)> = found.iter().map(|hit| (hit.item, hit.similarity)).collect();
            // The engine computes the same bits for a pair in any batch.
            assert_eq!(found, expected(&engine, kind, &items, query), "{kind}");
        }
    }
}

#[test]
fn candidates_are_the_nearest_pooled_vectors_in_exact_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let engine = engine();
    let items = images(50);
    write(&path, IndexKind::Images, IndexPrecision::Half, &items);
    let index = Index::open(&path).unwrap();
    let searcher = Searcher { filter: None, index: &index, engine: &engine, stop: &RUN };
    for query in &captions(5) {
        let pooled = searcher.candidates(query, items.len()).unwrap();
        let all = searcher.search(query, SearchScope::All, 50).unwrap();
        let found = searcher.search(query, SearchScope::Candidates(12), 12).unwrap();
        let lowest = found.iter().map(|hit| hit.pooled).fold(f32::INFINITY, f32::min);
        assert_eq!(found.len(), 12);
        assert_eq!(pooled.iter().filter(|near| near.pooled >= lowest).count(), 12);
        let chosen: Vec<Hit> = all.into_iter().filter(|hit| hit.pooled >= lowest).collect();
        assert_eq!(found, chosen);
        // More candidates than items means all items; fewer candidates than results are raised to the results.
        let best = searcher.search(query, SearchScope::All, 5).unwrap();
        assert_eq!(searcher.search(query, SearchScope::Candidates(99), 5).unwrap(), best);
        assert_eq!(searcher.search(query, SearchScope::Candidates(2), 5).unwrap().len(), 5);
    }
}

#[test]
fn evaluation_matches_searches() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let engine = engine();
    for (kind, items, queries) in
        [(IndexKind::Images, images(60), captions(20)), (IndexKind::Captions, captions(60), images(20))]
    {
        write(&path, kind, IndexPrecision::Single, &items);
        let index = Index::open(&path).unwrap();
        let searcher = Searcher { filter: None, index: &index, engine: &engine, stop: &RUN };
        let evaluation = evaluate(&searcher, &queries, &|_| ()).unwrap();
        let counts: Vec<usize> = evaluation.by_candidates.iter().map(|row| row.candidates).collect();
        assert_eq!((evaluation.queries, evaluation.items, &counts[..]), (20, 60, &[10, 20, 50, 60][..]));
        let last = evaluation.by_candidates[3];
        assert_eq!([last.r1, last.r5, last.r10], [100.0; 3]);
        for row in &evaluation.by_candidates {
            let share = |top: usize| {
                let found = queries.iter().map(|query| {
                    let best = searcher.search(query, SearchScope::All, top).unwrap();
                    let found = searcher.search(query, SearchScope::Candidates(row.candidates), 10).unwrap();
                    best.iter().filter(|hit| found.contains(hit)).count()
                });
                100.0 * found.sum::<usize>() as f64 / (top * 20) as f64
            };
            for (top, percent) in [(1, row.r1), (5, row.r5), (10, row.r10)] {
                // Both are quotients of integers that f64 represents exactly.
                assert!((share(top) - percent).abs() < 1e-9, "{kind}, {row:?}");
            }
        }
        assert!(evaluation.by_candidates[0].r10 < 100.0, "ten candidates miss some items: {evaluation:?}");
    }
}

#[test]
fn search_can_be_stopped_and_rejects_a_query_of_another_dim() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let engine = engine();
    write(&path, IndexKind::Images, IndexPrecision::Half, &images(3));
    let index = Index::open(&path).unwrap();
    let stop = AtomicBool::new(true);
    let searcher = Searcher { filter: None, index: &index, engine: &engine, stop: &stop };
    let error = searcher.search(&captions(1)[0], SearchScope::All, 1).unwrap_err();
    assert!(matches!(error, Error::Search(SearchError::Interrupted { .. })), "{error:?}");
    let other = Array::new(&[2, 8], vec![1.0; 16]).unwrap();
    assert!(matches!(
        searcher.search(&other, SearchScope::All, 1),
        Err(Error::Model(laps_model::Error::Operation { .. }))
    ));
}
