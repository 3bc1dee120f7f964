//! `laps-zoo completions`

use anyhow::Result;
use clap::{Args, Command};
use clap_complete::Shell;

use crate::report::{CommandStatus, print};

/// Print a shell completion script
#[derive(Args)]
pub(crate) struct CompletionsArgs {
    /// Shell to complete for
    shell: Shell,
}

impl CompletionsArgs {
    /// Prints the completions of `command`, the full command line.
    pub(crate) fn run(self, mut command: Command) -> Result<CommandStatus> {
        let name = command.get_name().to_owned();
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut command, name, &mut text);
        print(&String::from_utf8(text)?)?;
        Ok(CommandStatus::Success)
    }
}
