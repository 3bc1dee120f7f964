//! Search against the similarities of single pairs, and the evaluation against searches.

use std::sync::atomic::AtomicBool;

use super::{ENCODED, SIZES, captions, description_of, engine, images, samples::score, write, write_with};
use crate::{Error, Hit, Index, IndexKind, IndexPrecision, SearchError, SearchScope, Searcher, Store as _, evaluate};
use laps_align::similarity::{CaptionMatrix, Engine, EngineOptions, HeadEngine, SimdLevel, SimilarityEngine as _};
use laps_model::{
    array::Array,
    heads::{HeadConfig, HeadSizes, Pooling},
};

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

fn head_engine(head: HeadConfig, sizes: HeadSizes) -> HeadEngine {
    let read = |_: &laps_model::params::Parameter| panic!("the head has no parameters");
    let options = EngineOptions { threads: 2, ..EngineOptions::default() };
    HeadEngine::with_sizes(head, sizes, read, options, SimdLevel::detect()).unwrap()
}

/// The first row of each item, as the vector that a head pools.
fn vectors(items: &[Array]) -> Vec<Array> {
    items.iter().map(|item| item.rows(0..1).unwrap()).collect()
}

#[test]
fn index_of_pooled_vectors_is_searched_exactly_without_stored_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let [path, large] = ["index", "large"].map(|name| folder.path().join(name));
    let head = HeadConfig::Vsepp { pooling: Pooling::Mean };
    let sizes = HeadSizes { tokens: 1, has_class_token: false, ..ENCODED };
    let engine = head_engine(head, sizes);
    for (kind, items, queries) in
        [(IndexKind::Images, images(40), captions(6)), (IndexKind::Captions, captions(40), images(6))]
    {
        let [stored, queries] = [&items, &queries].map(|items| vectors(items));
        let description = description_of(head, &sizes, kind, IndexPrecision::Single);
        write_with(&path, description, &stored);
        write(&large, kind, IndexPrecision::Single, &items);
        let bytes = |path| fs_err::metadata(path).unwrap().len();
        assert!(bytes(&path) + 4 * 40 * SIZES.width as u64 <= bytes(&large), "{kind}");
        let index = Index::open(&path).unwrap();
        assert!(index.description().is_pooled());
        assert_eq!(index.embeddings(&[3]).unwrap()[0].dims(), [1, SIZES.width]);
        let searcher = Searcher { index: &index, filter: None, engine: &engine, stop: &RUN };
        for query in &queries {
            let [rows, columns] = if kind == IndexKind::Images {
                [&stored, std::slice::from_ref(query)]
            } else {
                [std::slice::from_ref(query), &stored]
            };
            let values = rows.iter().flat_map(|row| row.values()).copied().collect();
            let rows = Array::new(&[rows.len(), 1, SIZES.width], values).unwrap();
            let columns = CaptionMatrix::from_arrays(columns, SIZES.width).unwrap();
            let similarities = engine.similarities(&rows, &columns).unwrap();
            let found = searcher.search(query, SearchScope::Candidates(1), 40).unwrap();
            assert_eq!(found, searcher.search(query, SearchScope::All, 40).unwrap());
            assert!(found.windows(2).all(|pair| pair[0].similarity >= pair[1].similarity));
            for hit in &found {
                // Two orders of 16 sums of f32.
                assert!((hit.similarity - similarities.values()[hit.item]).abs() < 1e-6, "{kind}: {hit:?}");
            }
            assert_eq!(searcher.search(query, SearchScope::Candidates(1), 3).unwrap(), found[..3]);
        }
        assert_eq!(searcher.compared(SearchScope::Candidates(1), 3).unwrap(), 40);
        let evaluation = evaluate(&searcher, &queries, &|_| ()).unwrap();
        assert!(evaluation.by_candidates.iter().all(|row| row.candidates < 10 || row.r10 == 100.0), "{evaluation:?}");
    }
}

#[test]
fn index_of_a_head_that_compares_tokens_is_ranked_by_its_engine() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let engine = head_engine(HeadConfig::ScanT2i, ENCODED);
    let items = images(30);
    write_with(&path, description_of(HeadConfig::ScanT2i, &ENCODED, IndexKind::Images, IndexPrecision::Single), &items);
    let index = Index::open(&path).unwrap();
    let searcher = Searcher { index: &index, filter: None, engine: &engine, stop: &RUN };
    let values = items.iter().flat_map(|item| item.values()).copied().collect();
    let all = Array::new(&[30, ENCODED.tokens, SIZES.width], values).unwrap();
    for query in &captions(3) {
        let words = CaptionMatrix::from_arrays(std::slice::from_ref(query), SIZES.width).unwrap();
        let expected = engine.similarities(&all, &words).unwrap();
        let found = searcher.search(query, SearchScope::All, 30).unwrap();
        // The engine computes the same bits for a pair in any batch.
        assert!(found.iter().all(|hit| hit.similarity == expected.values()[hit.item]));
        assert!(found.windows(2).all(|pair| pair[0].similarity >= pair[1].similarity));
    }
}

#[test]
fn index_of_another_head_is_refused_by_name() {
    let description = |head| description_of(head, &ENCODED, IndexKind::Images, IndexPrecision::Half);
    let index = description(HeadConfig::Laps);
    let model = description(HeadConfig::Vsepp { pooling: Pooling::Gpo }).model;
    let error = index.check_model("photos.index".as_ref(), &model).unwrap_err();
    insta::assert_snapshot!(error, @r"
    the index `photos.index` was written by another head
      expected: `small`, head `vsepp, pooling gpo`
      found: `small`, head `laps`
    ");
    assert!(error.hint().is_some());
}
