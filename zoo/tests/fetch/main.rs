//! Fetching, against servers of this machine that behave like the services, well and badly.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at what is not as it should be"
)]

mod downloads;
mod faults;
mod server;
mod support;
