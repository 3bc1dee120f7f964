//! The gate: deterministic measures against committed baselines. No clock is looked at.
//!
//! [`Gathered`] is what was measured of one [`Group`], or why it was not; [`Baselines`] is a folder with a file for each
//! group; [`judge`] compares the two, and [`render`] says what moved. Graphs are measured by whoever knows them and handed
//! in as measures like any other.

mod baselines;
mod counts;
mod evaluation;
mod group;
mod judge;
mod measure;
mod parameters;
mod render;

pub use baselines::{Baseline, Baselines, MeasuredOn};
pub use counts::{KernelCounts, kernels};
pub use evaluation::{ROUNDING, evaluation, recalls};
pub use group::{Group, Rule};
pub use judge::{Finding, GroupReport, State, judge};
pub use measure::{Gathered, Measure};
pub use parameters::parameters;
pub use render::{render, render_blessed};
