//! Fuzzes the reader of entry files.
#![no_main]

use libfuzzer_sys::fuzz_target;
use laps_hub::registry::{Entry, Origin};

fuzz_target!(|text: &str| {
    // Larger files are rejected before parsing.
    if text.len() <= 1 << 16
        && let Ok(entry) = Entry::from_yaml(Origin::File("fuzz.yaml".into()), text)
    {
        entry.canonical().expect("an entry that was read has a canonical form");
    }
});
