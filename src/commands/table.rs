//! `laps-zoo table`

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use laps_bench::{
    files::{check_writable, write_atomic},
    results,
    tables::{RecallTables, TableFormat},
};

use crate::report::{CommandStatus, print};

/// Print results of `reproduce --json` as the tables of the paper
#[derive(Args)]
pub(crate) struct TableArgs {
    /// Results of `reproduce --json`, in any order
    #[arg(required = true, value_name = "RESULT")]
    results: Vec<PathBuf>,
    /// Output format: terminal, markdown, csv, latex or json
    #[arg(long, default_value = "terminal")]
    format: String,
    /// Write the tables to FILE instead of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl TableArgs {
    pub(crate) fn run(self) -> Result<CommandStatus> {
        let format = self.format.parse::<TableFormat>()?;
        self.out.as_deref().into_iter().try_for_each(check_writable)?;
        let results = self.results.iter().map(|path| results::read(path)).collect::<Result<_, _>>()?;
        let text = RecallTables::new(results)?.render(format)?;
        match &self.out {
            Some(path) => write_atomic(path, text.as_bytes())?,
            None => print(&text)?,
        }
        Ok(CommandStatus::Success)
    }
}
