//! `laps-zoo bench`

mod alignment;
mod gate;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::report::Finding;

/// Hold deterministic measures against baselines, or measure a part of the work
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, arg_required_else_help = true)]
pub(crate) struct Bench {
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
        match self.part {
            Some(Part::Alignment(alignment)) => alignment.run(),
            None => self.gate.run(self.quiet),
        }
    }
}
