//! `laps-zoo bench`

mod alignment;
mod gate;
mod timing;

use anyhow::Result;
use clap::{Args, Subcommand};
use laps::Backends;

use crate::report::CommandStatus;

/// Benchmark an entry, or compare deterministic measures with the baselines
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, arg_required_else_help = true)]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    timing: timing::TimingArgs,
    #[command(flatten)]
    gate: gate::GateArgs,
    /// Hide progress output
    // The heading of the options before would apply to this one too.
    #[arg(long, short, help_heading = "Output")]
    quiet: bool,
    #[command(subcommand)]
    command: Option<BenchCommand>,
}

#[derive(Subcommand)]
enum BenchCommand {
    Alignment(alignment::AlignmentArgs),
}

impl BenchArgs {
    /// Whether the request can only be met with libtorch.
    pub(crate) fn needs_libtorch(&self) -> bool {
        match &self.command {
            Some(BenchCommand::Alignment(alignment)) => alignment.needs_libtorch(),
            None => self.timing.needs_libtorch(),
        }
    }

    pub(crate) fn run(self, backends: Backends) -> Result<CommandStatus> {
        match (self.command, self.timing.entry.is_some()) {
            (Some(BenchCommand::Alignment(alignment)), _) => alignment.run(backends),
            (None, true) => self.timing.run(self.quiet, backends),
            (None, false) => self.gate.run(self.quiet, backends),
        }
    }
}
