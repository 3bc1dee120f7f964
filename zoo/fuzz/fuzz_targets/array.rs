//! Fuzzes the readers of similarity matrices: `.npy`, `.npz` `.safetensors` and run files.
#![no_main]

use laps_bench::foreign::{ForeignInput, ForeignRequest, evaluate};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let folder = tempfile::tempdir_in("/dev/shm").expect("no /dev/shm");
    for name in ["a.npy", "a.npz", "a.safetensors", "a.run"] {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("no room in /dev/shm");
        for transposed in [false, true] {
            let input = ForeignInput::Similarities { path: path.clone(), transposed };
            let request = ForeignRequest {
                name: None,
                input,
                split: None,
                protocols: Vec::new(),
                judgements: None,
                sims: None,
                run: None,
                mteb: None,
            };
            let _ = evaluate(&request);
        }
    }
});
