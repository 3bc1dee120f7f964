//! Search against scores of single pairs, and the evaluation against searches.

use std::sync::atomic::AtomicBool;

use super::{captions, engine, images, write};
use crate::{Error, Hit, Index, Kind, Precision, Reach, SearchError, Searcher, evaluate};
use laps_align::similarity::Engine;
use laps_model::array::Array;

static RUN: AtomicBool = AtomicBool::new(false);

/// Similarities of single pairs, best first.
fn expected(engine: &Engine, kind: Kind, items: &[Array], query: &Array) -> Vec<(usize, f32)> {
    let score = |item: &Array| match kind {
        Kind::Images => engine.score(item, query).unwrap(),
        Kind::Captions => engine.score(query, item).unwrap(),
    };
    let mut scores: Vec<(usize, f32)> = items.iter().map(score).enumerate().collect();
    scores.sort_by(|a, b| b.1.total_cmp(&a.1));
    scores
}

#[test]
fn an_exact_search_orders_by_the_similarity_of_each_pair() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let engine = engine();
    for (kind, items, queries) in [(Kind::Images, images(40), captions(6)), (Kind::Captions, captions(40), images(6))] {
        write(&path, kind, Precision::Single, &items);
        let index = Index::open(&path).unwrap();
        let searcher = Searcher { index: &index, engine: &engine, stop: &RUN };
        for query in &queries {
            let found = searcher.search(query, Reach::All, 40).unwrap();
            let found: Vec<(usize, f32)> = found.iter().map(|hit| (hit.item, hit.similarity)).collect();
            // The engine gives the same bits for a pair wherever it stands.
            assert_eq!(found, expected(&engine, kind, &items, query), "{kind}");
        }
    }
}

#[test]
fn candidates_are_those_of_the_nearest_pooled_vectors_in_exact_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let engine = engine();
    let items = images(50);
    write(&path, Kind::Images, Precision::Half, &items);
    let index = Index::open(&path).unwrap();
    let searcher = Searcher { index: &index, engine: &engine, stop: &RUN };
    for query in &captions(5) {
        let pooled = searcher.pooled(query).unwrap();
        let all = searcher.search(query, Reach::All, 50).unwrap();
        let found = searcher.search(query, Reach::Candidates(12), 12).unwrap();
        let lowest = found.iter().map(|hit| hit.pooled).fold(f32::INFINITY, f32::min);
        assert_eq!(found.len(), 12);
        assert_eq!(pooled.iter().filter(|&&cosine| cosine >= lowest).count(), 12);
        let chosen: Vec<Hit> = all.into_iter().filter(|hit| hit.pooled >= lowest).collect();
        assert_eq!(found, chosen);
        // As many candidates as items are all of them; fewer than results are as many as results.
        let best = searcher.search(query, Reach::All, 5).unwrap();
        assert_eq!(searcher.search(query, Reach::Candidates(99), 5).unwrap(), best);
        assert_eq!(searcher.search(query, Reach::Candidates(2), 5).unwrap().len(), 5);
    }
}

/// The evaluation says what searches among so many candidates find of the best.
#[test]
fn the_evaluation_counts_what_searches_find() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let engine = engine();
    for (kind, items, queries) in [(Kind::Images, images(60), captions(20)), (Kind::Captions, captions(60), images(20))]
    {
        write(&path, kind, Precision::Single, &items);
        let index = Index::open(&path).unwrap();
        let searcher = Searcher { index: &index, engine: &engine, stop: &RUN };
        let evaluation = evaluate(&searcher, &queries, &|_| ()).unwrap();
        let counts: Vec<usize> = evaluation.short_cuts.iter().map(|row| row.candidates).collect();
        assert_eq!((evaluation.queries, evaluation.items, &counts[..]), (20, 60, &[10, 20, 50, 60][..]));
        let last = evaluation.short_cuts[3];
        assert_eq!([last.r1, last.r5, last.r10], [100.0; 3]);
        for row in &evaluation.short_cuts {
            let share = |top: usize| {
                let found = queries.iter().map(|query| {
                    let best = searcher.search(query, Reach::All, top).unwrap();
                    let found = searcher.search(query, Reach::Candidates(row.candidates), 10).unwrap();
                    best.iter().filter(|hit| found.contains(hit)).count()
                });
                100.0 * found.sum::<usize>() as f64 / (top * 20) as f64
            };
            for (top, percent) in [(1, row.r1), (5, row.r5), (10, row.r10)] {
                // Both are quotients of whole numbers that f64 holds.
                assert!((share(top) - percent).abs() < 1e-9, "{kind}, {row:?}");
            }
        }
        assert!(evaluation.short_cuts[0].r10 < 100.0, "the short cut loses something: {evaluation:?}");
    }
}

#[test]
fn a_search_can_be_stopped_and_refuses_a_query_of_another_width() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let engine = engine();
    write(&path, Kind::Images, Precision::Half, &images(3));
    let index = Index::open(&path).unwrap();
    let stop = AtomicBool::new(true);
    let searcher = Searcher { index: &index, engine: &engine, stop: &stop };
    let error = searcher.search(&captions(1)[0], Reach::All, 1).unwrap_err();
    assert!(matches!(error, Error::Search(SearchError::Interrupted { .. })), "{error:?}");
    let other = Array::new(&[2, 8], vec![1.0; 16]).unwrap();
    assert!(matches!(searcher.search(&other, Reach::All, 1), Err(Error::Model(laps_model::Error::Operation { .. }))));
}
