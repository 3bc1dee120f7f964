//! Fuzzes the reader of safetensors headers, with the right and the given length prefix.
#![no_main]

use std::io::Write;

use libfuzzer_sys::fuzz_target;
use laps_hub::checkpoint::Checkpoint;

fuzz_target!(|bytes: &[u8]| {
    let end = bytes.iter().rposition(|&byte| byte == b'}').map_or(bytes.len(), |place| place + 1);
    let length = (end as u64).to_le_bytes();
    for head in [&b""[..], &length] {
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
