//! `laps-zoo man`

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Command};
use clap_mangen::Man;

use crate::report::{CommandStatus, print};

/// Print the manual page, or write one per command
#[derive(Args)]
pub(crate) struct ManArgs {
    /// Folder for the pages of all commands (laps-zoo.1, laps-zoo-reproduce.1, ...)
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl ManArgs {
    /// Prints or writes the pages of `command`, the full command line.
    pub(crate) fn run(self, command: Command) -> Result<CommandStatus> {
        match &self.out {
            None => {
                let mut text = Vec::new();
                Man::new(command).render(&mut text)?;
                print(&String::from_utf8(text)?)?;
            }
            Some(folder) => {
                fs_err::create_dir_all(folder)?;
                clap_mangen::generate_to(command, folder)
                    .with_context(|| format!("cannot write the manual pages to `{}`", folder.display()))?;
            }
        }
        Ok(CommandStatus::Success)
    }
}
