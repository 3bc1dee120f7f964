//! Downloads from local servers that behave like the services, with and without faults.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests panic on failure")]

mod contents;
mod data;
mod downloads;
mod drive;
mod faults;
mod hub;
mod properties;
mod push;
#[allow(dead_code, reason = "shared with the tests of the command")]
mod server;
mod sources;
mod support;
mod trust;
#[path = "../checkpoint/writer.rs"]
#[allow(dead_code, reason = "shared with the tests of checkpoints")]
mod writer;
