//! End-to-end tests of the command `laps-zoo`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at what is not as it should be"
)]

mod bad_checkpoint;
mod bad_data;
mod bad_request;
mod cased;
mod catalogue;
#[path = "../../bench/src/report/tests/chromium.rs"]
mod chromium;
mod clip;
mod determinism;
mod documents;
mod embed;
mod embed_shards;
mod evaluate;
mod explain;
mod fetching;
mod files;
mod folders;
mod full_size;
mod gate;
mod graphs;
mod harness;
mod heads;
mod homeless;
mod interruption;
mod matrix;
mod outputs;
mod page;
mod postgres;
#[path = "../../zoo/postgres/src/tests/server.rs"]
mod postgres_server;
mod push;
mod readme;
mod real;
mod running_server;
mod search;
mod serve;
#[path = "../../zoo/hub/tests/fetch/server.rs"]
#[allow(dead_code, reason = "the tests of fetching use the rest")]
mod server;
mod shapes;
mod sources;
mod suite;
mod support;
mod timing;
mod verdict;
#[path = "../../zoo/hub/tests/checkpoint/writer.rs"]
#[allow(dead_code, reason = "the tests of the reader use the rest")]
mod writer;

/// The program under test, and the root of the repository.
const PROGRAM: &str = env!("CARGO_BIN_EXE_laps-zoo");
const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");

/// The option for the program's engine that needs no graphs.
const NATIVE_ENGINE: [&str; 2] = ["--engine", "rust"];
