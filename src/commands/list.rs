//! `laps-zoo list`

use anyhow::Result;
use clap::Args;
use laps_bench::catalogue;
use laps_hub::store::FileStore;

use crate::report::{CommandStatus, print};

/// List the entries of the zoo
#[derive(Args)]
pub(crate) struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl ListArgs {
    pub(crate) fn run(self) -> Result<CommandStatus> {
        let entries = catalogue::list(FileStore::from_environment().ok().as_ref())?;
        if self.json {
            print(&format!("{}\n", serde_json::to_string_pretty(&entries)?))?;
        } else {
            print(&format!("{}\n", catalogue::table(&entries)))?;
        }
        Ok(CommandStatus::Success)
    }
}
