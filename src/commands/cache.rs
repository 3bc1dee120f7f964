//! `laps-zoo cache`

use anyhow::Result;
use clap::{Args, Subcommand};
use laps_files::inside;
use laps_hub::store::{Pins, Store, prune};

use crate::report::{CommandStatus, print};

/// Look at the folder of fetched files, or remove what it does not need
#[derive(Args)]
pub(crate) struct CacheArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Print its path
    Path,
    /// List what is pinned, with sizes, and whether it is here
    List,
    /// Remove downloads that were broken off or refused, and originals that were converted
    Prune,
}

impl CacheArgs {
    pub(crate) fn run(self) -> Result<CommandStatus> {
        let store = Store::from_environment().map_err(laps::Error::from)?;
        match self.action {
            Action::Path => print(&format!("{}\n", store.root.display()))?,
            Action::List => {
                let mut text = String::new();
                for (key, pin) in Pins::open(&store.pins).map_err(laps::Error::from)?.iter() {
                    let is_here = inside(key).is_some_and(|inner| store.root.join(inner).is_file());
                    let (bytes, sha256) = (pin.bytes, &pin.sha256[..12]);
                    let here = if is_here { "here" } else { "not in the cache" };
                    text += &format!("{key}: {bytes} bytes, sha256 {sha256}, {}, {here}\n", pin.verified.describe());
                }
                if text.is_empty() {
                    text = "nothing was fetched\n".to_owned();
                }
                print(&text)?;
            }
            Action::Prune => {
                let pruned = prune(&store).map_err(laps::Error::from)?;
                let lines = pruned.iter().map(|file| {
                    let path = file.path.strip_prefix(&store.root).unwrap_or(&file.path);
                    format!("removed {} ({} bytes): {}\n", path.display(), file.bytes, file.reason)
                });
                let text: String = lines.collect();
                print(if text.is_empty() { "nothing to remove\n" } else { &text })?;
            }
        }
        Ok(CommandStatus::Success)
    }
}
