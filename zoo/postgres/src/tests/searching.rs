//! Searches of collections against those of index files.

use std::sync::atomic::AtomicBool;

use super::{PostgresServer, address, captions, engine, images, index};
use crate::{Collection, Metadata, export_index, import_index};
use laps_search::{IndexKind, IndexPrecision, SearchScope, Searcher, Store, evaluate};

static RUN: AtomicBool = AtomicBool::new(false);

#[test]
fn searches_find_the_hits_of_the_index_file() {
    let Some(server) = PostgresServer::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let engine = engine();
    for (collection, kind, precision) in [
        ("half", IndexKind::Images, IndexPrecision::Half),
        ("single", IndexKind::Images, IndexPrecision::Single),
        ("captions", IndexKind::Captions, IndexPrecision::Half),
    ] {
        let (items, queries) = match kind {
            IndexKind::Images => (images(60), captions(4)),
            IndexKind::Captions => (captions(60), images(4)),
        };
        let file = index(&path, kind, precision, &items);
        import_index(&file, address(&server, collection), &Metadata::new(), &|_| ()).unwrap();
        let stored = Collection::open(address(&server, collection)).unwrap();
        assert_eq!((stored.item_count(None).unwrap(), stored.description()), (60, file.description()));
        for (index, expected) in [(&stored as &dyn Store, &file as &dyn Store)] {
            let [found, expected] =
                [index, expected].map(|index| Searcher { index, filter: None, engine: &engine, stop: &RUN });
            for query in &queries {
                for scope in [SearchScope::All, SearchScope::Candidates(60), SearchScope::Candidates(12)] {
                    let [hits, wanted] = [&found, &expected].map(|searcher| {
                        let hits = searcher.search(query, scope, 12).unwrap();
                        let names = searcher.index.names(&hits.iter().map(|hit| hit.item).collect::<Vec<_>>()).unwrap();
                        let values = hits.into_iter().map(|hit| (hit.similarity, hit.pooled));
                        names.into_iter().zip(values).collect::<Vec<_>>()
                    });
                    assert_eq!(hits.len(), 12);
                    for ((name, (similarity, pooled)), (wanted_name, (wanted_similarity, wanted_pooled))) in
                        hits.iter().zip(&wanted)
                    {
                        assert_eq!((name, similarity), (wanted_name, wanted_similarity), "{collection}");
                        match precision {
                            IndexPrecision::Half => assert_eq!(pooled, wanted_pooled),
                            // Pooled vectors have half precision in a database: 16 products of values below 1, each
                            // rounded by 2^-12 at most.
                            IndexPrecision::Single => assert!((pooled - wanted_pooled).abs() < 16.0 / 4096.0),
                        }
                    }
                }
            }
            if precision == IndexPrecision::Half {
                assert_eq!(
                    evaluate(&found, &queries, &|_| ()).unwrap(),
                    evaluate(&expected, &queries, &|_| ()).unwrap()
                );
            }
        }
        // Back into a file: the same items and bytes, but for pooled vectors in half precision.
        let copy = folder.path().join("copy");
        assert_eq!(export_index(&stored, &copy, &|_| ()).unwrap(), 60);
        if precision == IndexPrecision::Half {
            assert!(fs_err::read(&copy).unwrap() == fs_err::read(&path).unwrap());
        }
    }
}

#[test]
fn connection_is_made_again_after_the_server_was_restarted() {
    let Some(mut server) = PostgresServer::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = index(&folder.path().join("index"), IndexKind::Images, IndexPrecision::Half, &images(3));
    let (collection, _) = import_index(&file, address(&server, "a"), &Metadata::new(), &|_| ()).unwrap();
    let names = collection.names(&[1, 2, 3]).unwrap();
    server.kill();
    let error = collection.names(&[1]).unwrap_err();
    assert!(error.to_string().contains("cannot be reached"), "{error}");
    server.restart();
    assert_eq!(collection.names(&[1, 2, 3]).unwrap(), names);
}

#[test]
fn number_without_an_item_is_named() {
    let Some(server) = PostgresServer::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = index(&folder.path().join("index"), IndexKind::Images, IndexPrecision::Half, &images(3));
    let (collection, _) = import_index(&file, address(&server, "a"), &Metadata::new(), &|_| ()).unwrap();
    for error in [collection.names(&[1, usize::MAX]).unwrap_err(), collection.embeddings(&[usize::MAX]).unwrap_err()] {
        assert!(error.to_string().starts_with("there is no item 18446744073709551615"), "{error}");
    }
}
