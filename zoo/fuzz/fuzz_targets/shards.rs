//! Fuzzes the reader of the summaries of shards.
#![no_main]

use std::io::Write;

use laps_search::ShardSummary;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut file = tempfile::NamedTempFile::new_in("/dev/shm").expect("no /dev/shm");
    file.write_all(bytes).expect("no room in /dev/shm");
    if let Some(summary) = ShardSummary::read(file.path()) {
        let counted = summary.embedded as u128 + summary.skipped.len() as u128;
        assert_eq!(summary.is_complete(), summary.missing == 0 && counted == summary.images as u128);
    }
});
