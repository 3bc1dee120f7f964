//! Filters on metadata.

use serde_json::json;

use super::{PostgresServer, address, images, index, metadata, name};
use crate::{Metadata, import_index};
use laps_search::{Filter, IndexKind, IndexPrecision, Store};

#[test]
fn filters_select_by_metadata() {
    let Some(server) = PostgresServer::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = index(&folder.path().join("index"), IndexKind::Images, IndexPrecision::Half, &images(7));
    let values = [
        json!({"year": 2019, "camera": {"maker": "Leica"}}),
        json!({"year": 2020, "camera": {"maker": "Canon"}}),
        json!({"year": 2021.5}),
        json!({"year": "2021"}),
        json!({"year": true}),
        json!({"year": null, "text": "'; DROP SCHEMA laps_zoo CASCADE; --"}),
    ];
    let values = metadata(6, |number| values[number].clone());
    let (collection, _) = import_index(&file, address(&server, "a"), &values, &|_| ()).unwrap();
    for (conditions, expected) in [
        (&["year = 2020"][..], &[1][..]),
        (&["year = 2020.0"], &[1]),
        (&["year != 2020"], &[0, 2, 3, 4, 5, 6]),
        (&["year >= 2020"], &[1, 2]),
        (&["year > 2020"], &[2]),
        (&["year < 2021.5"], &[0, 1]),
        (&["year <= 2021.5"], &[0, 1, 2]),
        (&["year >= \"2\""], &[3]),
        (&["year = true"], &[4]),
        (&["year = null"], &[5]),
        (&["camera.maker = Leica"], &[0]),
        (&["camera.maker != Leica", "year > 0"], &[1, 2]),
        (&["camera.maker > B", "camera.maker < D"], &[1]),
        (&["text = '; DROP SCHEMA laps_zoo CASCADE; --"], &[5]),
        (&["text = ' OR true"], &[]),
        (&["none = 1"], &[]),
    ] {
        let filter = Filter::parse(conditions).unwrap();
        let found = collection.nearest(&[0.25; 16], 100, Some(&filter)).unwrap();
        let mut names = collection.names(&found.iter().map(|near| near.item).collect::<Vec<_>>()).unwrap();
        names.sort();
        assert_eq!(names, expected.iter().map(|&number| name(number)).collect::<Vec<_>>(), "{conditions:?}");
        assert_eq!(collection.item_count(Some(&filter)).unwrap(), expected.len());
        let all = collection.nearest(&[0.25; 16], usize::MAX, Some(&filter)).unwrap();
        assert_eq!(all, found);
    }
    // Metadata can be replaced without the embeddings, and stays without new ones.
    let newer = metadata(1, |_| json!({"year": 3000}));
    import_index(&file, address(&server, "a"), &newer, &|_| ()).unwrap();
    import_index(&file, address(&server, "a"), &Metadata::new(), &|_| ()).unwrap();
    for (condition, count) in [("year = 3000", 1), ("year = 2019", 0), ("year = 2020", 1)] {
        assert_eq!(collection.item_count(Some(&Filter::parse(&[condition]).unwrap())).unwrap(), count, "{condition}");
    }
}

/// The few items that match are far from the query: the index of vectors visits them last.
#[test]
fn rare_items_are_found_through_the_index_of_vectors() {
    const ITEMS: usize = 3000;
    const RARE: usize = 5;
    let Some(server) = PostgresServer::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = index(&folder.path().join("index"), IndexKind::Images, IndexPrecision::Half, &images(ITEMS));
    let (collection, _) = import_index(&file, address(&server, "a"), &Metadata::new(), &|_| ()).unwrap();
    collection.create_index().unwrap();
    // Creating it again changes nothing.
    collection.create_index().unwrap();
    let query = [0.25; 16];
    let all = collection.nearest(&query, usize::MAX, None).unwrap();
    let farthest: Vec<usize> = all[ITEMS - RARE..].iter().map(|near| near.item).collect();
    let names = collection.names(&farthest).unwrap();
    let rare: Metadata =
        names.into_iter().map(|name| (name, json!({"rare": 1}).as_object().unwrap().clone())).collect();
    collection.update_metadata(&rare).unwrap();
    let filter = Filter::parse(&["rare = 1"]).unwrap();
    for count in [2, RARE, 200, 2000] {
        let found = collection.nearest(&query, count, Some(&filter)).unwrap();
        assert_eq!(found, all[ITEMS - RARE..][..count.min(RARE)], "{count}");
    }

    // The planner uses the index, and as many candidates are found as were asked for.
    let table = collection.table();
    let plan = server.psql(
        "postgres",
        &format!("EXPLAIN SELECT id FROM {table} ORDER BY pooled <#> '[{}]' LIMIT 200", ["0.25"; 16].join(",")),
    );
    assert!(plan.contains("items_1_pooled"), "{plan}");
    for count in [1, 200, 1000, 1500] {
        assert_eq!(collection.nearest(&query, count, None).unwrap().len(), count);
    }
}
