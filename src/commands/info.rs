//! `laps-zoo info`

use anyhow::Result;
use bench::catalogue;
use clap::Args;
use zoo::store::Store;

use crate::report::{Finding, print};

/// Show one entry: model, parameters, data, checkpoint, published recalls
#[derive(Args)]
pub(crate) struct Info {
    /// Name of an entry, or path of an entry file
    entry: String,
    /// List every parameter with its shape
    #[arg(long)]
    parameters: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Info {
    pub(crate) fn run(self) -> Result<Finding> {
        let info = catalogue::Info::new(&zoo::registry::find(&self.entry)?, Store::from_environment().ok().as_ref())?;
        if self.json {
            print(&format!("{}\n", serde_json::to_string_pretty(&info)?))?;
        } else {
            print(&info.render(self.parameters))?;
        }
        Ok(Finding::Done)
    }
}
