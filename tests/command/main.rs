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
mod catalogue;
mod embed;
#[cfg(feature = "torch")]
mod features;
#[cfg(feature = "fetch")]
mod fetching;
mod files;
#[cfg(feature = "torch")]
mod full_disk;
mod full_size;
mod gate;
mod graphs;
mod harness;
mod interruption;
mod matrix;
mod readme;
mod real;
mod search;
#[cfg(feature = "fetch")]
#[path = "../../zoo/hub/tests/fetch/server.rs"]
#[allow(dead_code, reason = "the tests of fetching use the rest")]
mod server;
mod shapes;
mod support;
#[cfg(feature = "torch")]
mod tensorboard;
mod timing;
#[cfg(feature = "torch")]
mod training;
mod verdict;
#[path = "../../zoo/hub/tests/checkpoint/writer.rs"]
#[allow(dead_code, reason = "the tests of the reader use the rest")]
mod writer;
