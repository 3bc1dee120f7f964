//! Fetching, against servers of this machine that behave like the services, well and badly.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at what is not as it should be"
)]

mod data;
mod downloads;
mod drive;
mod faults;
mod hub;
mod properties;
#[allow(dead_code, reason = "the tests of the command use the rest")]
mod server;
mod sources;
mod support;
mod trust;
#[path = "../checkpoint/writer.rs"]
#[allow(dead_code, reason = "the tests of checkpoints use the rest")]
mod writer;
