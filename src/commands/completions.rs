//! `laps-zoo completions`

use anyhow::Result;
use clap::{Args, Command};
use clap_complete::Shell;

use crate::report::{Finding, print};

/// Print what completes the command in a shell
#[derive(Args)]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    /// Of `command`, which is the whole one.
    pub(crate) fn run(self, mut command: Command) -> Result<Finding> {
        let name = command.get_name().to_owned();
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut command, name, &mut text);
        print(&String::from_utf8(text)?)?;
        Ok(Finding::Done)
    }
}
