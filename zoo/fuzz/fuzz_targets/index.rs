//! Fuzzes the reader of index files: headers, segments, names and rows.
#![no_main]

use std::io::Write;

use laps_search::{Index, Store};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut file = tempfile::NamedTempFile::new_in("/dev/shm").expect("no /dev/shm");
    file.write_all(bytes).expect("no room in /dev/shm");
    let Ok(index) = Index::open(file.path()) else { return };
    let numbers: Vec<usize> = index.numbers().take(64).collect();
    for &number in &numbers {
        let _ = index.item(number);
        let _ = index.stored(number);
    }
    let query = vec![0.5; index.description().width.min(bytes.len())];
    if query.len() == index.description().width {
        let found = index.nearest(&query, 8, None).expect("the pooled vectors are in the file");
        assert_eq!(found.len(), index.item_count(None).expect("without a filter").min(8));
    }
});
