//! `laps-zoo table`

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use laps_bench::{
    files::{check_writable, write_atomic},
    results, statistics,
    tables::{PrintedTable, RecallTables, TableFormat},
};

use crate::report::{CommandStatus, print};

/// Print results of `reproduce --json` and `evaluate --json` as the tables of the paper, or compare two of them
#[derive(Args)]
pub(crate) struct TableArgs {
    /// Results of `reproduce --json` and `evaluate --json`, in any order
    #[arg(required_unless_present_any = ["compare", "paper"], conflicts_with = "compare", value_name = "RESULT")]
    results: Vec<PathBuf>,
    /// Print a whole published table, with the results beside its rows: 1, 2 or 4 of the paper, d2s for D2S-VSE, or seps
    /// for SEPS
    #[arg(long, value_name = "TABLE", conflicts_with = "compare")]
    paper: Option<String>,
    /// Compare two results on the same data: differences of the recalls, with p-values of a paired test over queries
    #[arg(long, num_args = 2, value_names = ["A", "B"])]
    compare: Vec<PathBuf>,
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
        let paper = self.paper.as_deref().map(str::parse::<PrintedTable>).transpose()?;
        self.out.as_deref().into_iter().try_for_each(check_writable)?;
        let text = match self.compare.as_slice() {
            [first, second] => compare([first, second], format)?,
            _ => {
                let results = self.results.iter().map(|path| results::read(path)).collect::<Result<_, _>>()?;
                let tables = match paper {
                    Some(table) => RecallTables::printed(table, results)?,
                    None => RecallTables::new(results)?,
                };
                tables.render(format)?
            }
        };
        match &self.out {
            Some(path) => write_atomic(path, text.as_bytes())?,
            None => print(&text)?,
        }
        Ok(CommandStatus::Success)
    }
}

/// A paired test of the results of two files.
fn compare(paths: [&Path; 2], format: TableFormat) -> Result<String> {
    let [first, second] = [results::read(paths[0])?, results::read(paths[1])?];
    let comparisons = statistics::compare([&first, &second], paths)?;
    let [first, second] = [first.title(), second.title()];
    Ok(statistics::render([&first, &second], &comparisons, format)?)
}
