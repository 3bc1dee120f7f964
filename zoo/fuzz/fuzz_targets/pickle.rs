//! Fuzzes the pickle reader: zip and legacy containers of PyTorch, and bare pickles.
#![no_main]

use std::io::Write;

use libfuzzer_sys::fuzz_target;
use laps_hub::checkpoint::Checkpoint;

/// The start of the legacy container: magic number, version and byte order.
const LEGACY: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}X\x0d\0\0\0little_endian\x88s.";

fuzz_target!(|bytes: &[u8]| {
    for head in [&b""[..], LEGACY] {
        // An in-memory file, because the reader takes a path.
        let mut file = tempfile::NamedTempFile::new_in("/dev/shm").expect("no /dev/shm");
        file.write_all(head).and_then(|()| file.write_all(bytes)).expect("no room in /dev/shm");
        if let Ok(checkpoint) = Checkpoint::open(file.path()) {
            for (name, ..) in checkpoint.tensors() {
                let _ = checkpoint.read(name);
            }
        }
    }
});
