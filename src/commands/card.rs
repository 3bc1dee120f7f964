//! `laps-zoo card`

use std::path::PathBuf;

use anyhow::Result;
use bench::{
    card,
    files::{check_writable, write_whole},
    results,
};
use clap::Args;

use crate::report::{Finding, print};

/// Write the card of a model in Markdown: what it is, recipe, recalls, licence, known faults
#[derive(Args)]
pub(crate) struct Card {
    /// Name of an entry, or path of an entry file
    entry: String,
    /// Results of `reproduce --json` of this entry
    #[arg(value_name = "RESULT")]
    results: Vec<PathBuf>,
    /// Write the card to a file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Card {
    pub(crate) fn run(self) -> Result<Finding> {
        self.out.as_deref().into_iter().try_for_each(check_writable)?;
        let entry = zoo::registry::find(&self.entry)?;
        let results = self.results.iter().map(|path| results::read(path)).collect::<Result<_, _>>()?;
        let text = card::card(&entry, results)?;
        match &self.out {
            Some(path) => write_whole(path, text.as_bytes())?,
            None => print(&text)?,
        }
        Ok(Finding::Done)
    }
}
