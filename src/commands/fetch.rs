//! `laps-zoo fetch`

use anyhow::Result;
use clap::Args;
use laps_hub::{registry, store};

use crate::{
    fetching::{self, Access},
    report::{CommandStatus, print},
};

/// Fetch a published checkpoint or a pretrained encoder: verified, checked and ready
#[derive(Args)]
pub(crate) struct FetchArgs {
    /// Name of an entry with a published checkpoint, or of a pretrained encoder
    name: String,
    #[command(flatten)]
    access: Access,
    /// Fetch only what is pinned in the lock file, or has a hash in the manifest
    #[arg(long)]
    locked: bool,
    /// No progress
    #[arg(long, short)]
    quiet: bool,
}

impl FetchArgs {
    pub(crate) fn run(self) -> Result<CommandStatus> {
        let names = store::names().map_err(anyhow::Error::from)?;
        let fetcher = fetching::fetcher(self.access, self.locked)?;
        let watch = fetching::watch(self.quiet);
        let (path, pin) = if registry::names().contains(&self.name.as_str()) {
            let ready = fetcher.checkpoint(&registry::find(&self.name)?, watch.as_ref())?;
            (ready.path, ready.pin)
        } else if names.contains(&self.name) {
            let fetched = fetcher.backbone(&self.name, watch.as_ref())?;
            (fetched.item.path, fetched.pin)
        } else {
            return Err(laps::Error::from(store::unknown(&self.name, names)).into());
        };
        drop(watch);
        print(&format!(
            "{}\n{} bytes, sha256 {}, verified {}\n",
            path.display(),
            pin.bytes,
            pin.sha256,
            pin.verified.describe()
        ))?;
        Ok(CommandStatus::Success)
    }
}
