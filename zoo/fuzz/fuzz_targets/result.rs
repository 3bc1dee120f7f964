//! Fuzzes the reader of results.
#![no_main]

use std::io::Write;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut file = tempfile::NamedTempFile::new_in("/dev/shm").expect("no /dev/shm");
    file.write_all(bytes).expect("no room in /dev/shm");
    let _ = laps_bench::results::read(file.path());
});
