//! The gate: deterministic measures, without a clock, compared with committed baselines.
//!
//! [`GroupMeasures`] has the measures of one [`GateGroup`], or the reason for skipping it. [`Baselines`] is a folder
//! with one file per group. [`judge`] compares the two, and [`render`] prints what changed. Measures of graphs come
//! from the caller.

mod baselines;
mod counts;
mod evaluation;
mod group;
mod judge;
mod measure;
mod parameters;
mod render;
mod results;

pub use baselines::{Baseline, Baselines, MeasuredOn};
pub use counts::{KernelCounts, kernels};
pub use evaluation::evaluation;
pub use group::{AllowedChange, GateGroup};
pub use judge::{GroupReport, MeasureReport, MeasureState, judge};
pub use measure::{GroupMeasures, Measure};
pub use parameters::parameters;
pub use render::{render, render_blessed};
pub use results::result_hits;
