//! End-to-end tests of the program `laps-zoo-torch`: what needs libtorch, and the evaluations of `laps-zoo` on it.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests, which use parts of the helpers of the other program's tests"
)]

mod distributed;
#[path = "../../../../tests/command/documents.rs"]
mod documents;
mod features;
#[path = "../../../../tests/command/files.rs"]
mod files;
mod full_disk;
#[path = "../../../../tests/command/matrix.rs"]
mod matrix;
#[path = "../../../../tests/command/readme.rs"]
mod readme;
#[path = "../../../../tests/command/real.rs"]
mod real;
mod requests;
#[path = "../../../../tests/command/running_server.rs"]
mod running_server;
#[path = "../../../../tests/command/shapes.rs"]
mod shapes;
#[path = "../../../../tests/command/support.rs"]
mod support;
mod tensorboard;
mod torchrun;
mod training;
#[path = "../../../hub/tests/checkpoint/writer.rs"]
mod writer;

/// The program under test, and the root of the repository.
const PROGRAM: &str = env!("CARGO_BIN_EXE_laps-zoo-torch");
const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// The option for the program's engine that needs no graphs.
const NATIVE_ENGINE: [&str; 2] = ["--engine", "torch"];

/// Helpers of the shared tests. The tests of graphs themselves run with `laps-zoo` alone.
mod graphs {
    /// Whether ONNX Runtime is available; prints a note if not.
    pub(crate) fn runtime() -> bool {
        let found = laps_onnx::runtime::library::find();
        if let Err(error) = &found {
            println!("skipped: {error}");
        }
        found.is_ok()
    }
}
