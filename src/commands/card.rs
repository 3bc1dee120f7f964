//! `laps-zoo card`

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use laps_bench::{
    card,
    files::{check_writable, write_atomic},
    publish::HubDataSet,
    results,
};

use crate::report::{CommandStatus, print};

/// Write a model card in Markdown: description, recipe, recalls, licence and known problems
#[derive(Args)]
pub(crate) struct CardArgs {
    /// Entry name, or path to an entry YAML file
    entry: String,
    /// Results of `reproduce --json` for this entry, and of `evaluate --json` to compare with
    #[arg(value_name = "RESULT")]
    results: Vec<PathBuf>,
    /// Data set of the Hugging Face hub that the results are of, for `model-index` [default: the one of a built-in entry]
    #[arg(long, value_name = "OWNER/NAME[@COMMIT]")]
    hub_data: Option<HubDataSet>,
    /// Write the card to FILE instead of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl CardArgs {
    pub(crate) fn run(self) -> Result<CommandStatus> {
        self.out.as_deref().into_iter().try_for_each(check_writable)?;
        let entry = laps_hub::registry::find(&self.entry)?;
        let results = self.results.iter().map(|path| results::read(path)).collect::<Result<_, _>>()?;
        let text = card::card(&entry, results, self.hub_data.as_ref())?;
        match &self.out {
            Some(path) => write_atomic(path, text.as_bytes())?,
            None => print(&text)?,
        }
        Ok(CommandStatus::Success)
    }
}
