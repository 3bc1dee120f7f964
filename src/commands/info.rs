//! `laps-zoo info`

use anyhow::Result;
use clap::Args;
use laps_bench::catalogue;
use laps_hub::store::FileStore;

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
    /// Print the entry file: flat and complete, also if the entry is a row of a file of several
    #[arg(long, conflicts_with_all = ["json", "parameters"])]
    yaml: bool,
}

impl InfoArgs {
    pub(crate) fn run(self) -> Result<CommandStatus> {
        if self.yaml {
            let (_, text) = laps_hub::registry::text(&self.entry)?;
            print(&text)?;
            return Ok(CommandStatus::Success);
        }
        let info = catalogue::EntryInfo::new(
            &laps_hub::registry::find(&self.entry)?,
            FileStore::from_environment().ok().as_ref(),
        )?;
        if self.json {
            print(&format!("{}\n", serde_json::to_string_pretty(&info)?))?;
        } else {
            print(&info.render(self.parameters))?;
        }
        Ok(CommandStatus::Success)
    }
}
