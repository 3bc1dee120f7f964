//! `laps-zoo info`

use anyhow::Result;
use clap::Args;
use laps_bench::catalogue;
use laps_hub::store::Store;

use crate::report::{CommandStatus, print};

/// Show an entry: model, parameters, data, checkpoint and published recalls
#[derive(Args)]
pub(crate) struct InfoArgs {
    /// Entry name, or path to an entry YAML file
    entry: String,
    /// List every parameter and its shape
    #[arg(long)]
    parameters: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl InfoArgs {
    pub(crate) fn run(self) -> Result<CommandStatus> {
        let info = catalogue::EntryInfo::new(
            &laps_hub::registry::find(&self.entry)?,
            Store::from_environment().ok().as_ref(),
        )?;
        if self.json {
            print(&format!("{}\n", serde_json::to_string_pretty(&info)?))?;
        } else {
            print(&info.render(self.parameters))?;
        }
        Ok(CommandStatus::Success)
    }
}
