//! `laps-zoo cache`

use anyhow::Result;
use clap::{Args, Subcommand};
use laps_files::safe_relative_path;
use laps_hub::store::{Pins, Store, prune};

use crate::report::{CommandStatus, print};

/// Inspect or clean the cache of downloaded files
#[derive(Args)]
pub(crate) struct CacheArgs {
    #[command(subcommand)]
    action: CacheAction,
}

#[derive(Subcommand)]
enum CacheAction {
    /// Print the path of the cache folder
    Path,
    /// List pinned files with size and hash, and whether they are in the cache
    List,
    /// Delete interrupted and rejected downloads, and original checkpoints that were converted
    Prune,
}

impl CacheArgs {
    pub(crate) fn run(self) -> Result<CommandStatus> {
        let store = Store::from_environment()?;
        match self.action {
            CacheAction::Path => print(&format!("{}\n", store.root.display()))?,
            CacheAction::List => {
                let mut text = String::new();
                for (key, pin) in Pins::open(&store.pins)?.iter() {
                    let is_cached = safe_relative_path(key).is_some_and(|relative| store.root.join(relative).is_file());
                    let (bytes, sha256) = (pin.bytes, &pin.sha256[..12]);
                    let state = if is_cached { "in the cache" } else { "not in the cache" };
                    let verified = pin.verified.describe();
                    text += &format!("{key}: {bytes} bytes, sha256 {sha256}, verified {verified}, {state}\n");
                }
                if text.is_empty() {
                    text = "the cache is empty\n".to_owned();
                }
                print(&text)?;
            }
            CacheAction::Prune => {
                let pruned = prune(&store)?;
                let lines = pruned.iter().map(|file| {
                    let path = file.path.strip_prefix(&store.root).unwrap_or(&file.path);
                    format!("deleted {} ({} bytes): {}\n", path.display(), file.bytes, file.reason)
                });
                let text: String = lines.collect();
                print(if text.is_empty() { "nothing to delete\n" } else { &text })?;
            }
        }
        Ok(CommandStatus::Success)
    }
}
