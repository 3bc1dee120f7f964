//! `laps-zoo bench`: how long the parts of the work take, on what.
//!
//! [`measure`] gives a [`Timing`], one documented structure whose rows say what ran them; [`render`], [`csv`],
//! [`markdown`] and serde write it, and [`Against`] compares two of them.

mod against;
mod case;
mod inputs;
mod measure;
mod part;
mod request;
mod result;
mod steps;
mod write;

pub use against::Against;
pub use case::{CaseOptions, EncoderCase, count_multiply_adds};
pub use inputs::random_checkpoint;
pub use measure::measure;
pub use part::{Part, Scenario};
pub use request::Request;
pub use result::{Row, SCHEMA, Timing, Versions};
pub use steps::Steps;
pub use write::{csv, markdown, render};
