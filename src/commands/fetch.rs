//! `laps-zoo fetch`

use anyhow::Result;
use clap::Args;
use laps_hub::{
    registry,
    store::{self, FileStoreError},
};

use crate::{
    fetching::{self, NetworkArgs},
    progress,
    report::{CommandStatus, print},
};

/// Download a published checkpoint or a pretrained encoder, verify it, and convert checkpoints to safetensors
#[derive(Args)]
pub(crate) struct FetchArgs {
    /// Name of an entry with a published checkpoint, or of a pretrained encoder
    name: String,
    #[command(flatten)]
    access: NetworkArgs,
    /// Download only files that are pinned in the lock file or have a hash in the manifest
    #[arg(long)]
    locked: bool,
    /// Hide progress output
    #[arg(long, short)]
    quiet: bool,
}

impl FetchArgs {
    pub(crate) fn run(self) -> Result<CommandStatus> {
        let names = store::fetchable_names()?;
        let fetcher = fetching::fetcher(self.access, self.locked)?;
        let progress = progress::choose(self.quiet);
        let (path, pin) = if registry::names().contains(&self.name.as_str()) {
            let ready = fetcher.checkpoint(&registry::find(&self.name)?, progress.as_ref())?;
            (ready.path, ready.pin)
        } else if names.contains(&self.name) {
            let fetched = fetcher.backbone(&self.name, progress.as_ref())?;
            (fetched.file.path, fetched.pin)
        } else {
            return Err(FileStoreError::unknown_name(&self.name, names).into());
        };
        drop(progress);
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
