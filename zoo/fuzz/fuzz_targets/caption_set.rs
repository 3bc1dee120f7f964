//! Fuzzes the readers of caption sets and vocabularies: ids, captions and mapping, separated by NUL bytes.
#![no_main]

use laps_data::{Split, Tokenizer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let folder = tempfile::tempdir_in("/dev/shm").expect("no /dev/shm");
    let mut parts = bytes.split(|&byte| byte == 0);
    for name in ["test_ids.txt", "test_caps.txt", "id_mapping.json", "vocab.txt"] {
        let content = parts.next().unwrap_or_default();
        std::fs::write(folder.path().join(name), content).expect("no room in /dev/shm");
    }
    let tokenizer = Tokenizer::open(&folder.path().join("vocab.txt"));
    if let Ok(split) = Split::open(folder.path(), "test")
        && let Ok(tokenizer) = tokenizer
    {
        let _ = tokenizer.encode_all(split.captions(), 64);
    }
});
