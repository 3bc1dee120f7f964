//! `laps-zoo bench`

mod alignment;
mod gate;
mod timing;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::report::Finding;

/// Measure parts of the work, or hold what can be counted against baselines
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, arg_required_else_help = true)]
pub(crate) struct Bench {
    #[command(flatten)]
    timing: timing::Timing,
    #[command(flatten)]
    gate: gate::Gate,
    /// No progress
    #[arg(long, short)]
    quiet: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Subcommand)]
enum Part {
    Alignment(alignment::Alignment),
}

impl Bench {
    pub(crate) fn run(self) -> Result<Finding> {
        match (self.part, self.timing.entry.is_some()) {
            (Some(Part::Alignment(alignment)), _) => alignment.run(),
            (None, true) => self.timing.run(self.quiet),
            (None, false) => self.gate.run(self.quiet),
        }
    }
}
