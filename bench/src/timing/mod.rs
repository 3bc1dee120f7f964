//! Throughput and latency of encoders, similarities, training steps and image loading (`laps-zoo bench`).
//!
//! [`measure`] returns a [`TimingResult`], whose rows say what was measured and on what. [`render`], [`csv`], [`markdown`]
//! and serde write it, and [`TimingComparison`] compares two of them.

mod case;
mod comparison;
mod inputs;
mod measure;
mod part;
mod render;
mod request;
mod result;
mod steps;

pub use case::{CaseOptions, EncoderCase, count_multiply_adds};
pub use comparison::TimingComparison;
pub use inputs::random_checkpoint;
pub use measure::measure;
pub use part::{BenchPart, Scenario};
pub use render::{csv, markdown, render};
pub use request::TimingRequest;
pub use result::{SCHEMA, TimingResult, TimingRow, Versions};
