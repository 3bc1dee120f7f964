//! Fuzzes the reader of index files.
#![no_main]

use std::io::Write;

use laps_search::Index;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut file = tempfile::NamedTempFile::new_in("/dev/shm").expect("no /dev/shm");
    file.write_all(bytes).expect("no room in /dev/shm");
    if let Ok(index) = Index::open(file.path()) {
        assert!(index.items().len() <= bytes.len());
    }
});
