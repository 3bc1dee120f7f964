//! `laps-zoo completions`

use anyhow::Result;
use clap::{Args, Command};
use clap_complete::Shell;

use crate::report::{Finding, print};

/// Print a shell completion script
#[derive(Args)]
pub(crate) struct Completions {
    /// Shell to complete for
    shell: Shell,
}

impl Completions {
    /// Prints the completions of `command`, the full command line.
    pub(crate) fn run(self, mut command: Command) -> Result<Finding> {
        let name = command.get_name().to_owned();
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut command, name, &mut text);
        print(&String::from_utf8(text)?)?;
        Ok(Finding::Done)
    }
}
