//! `laps-zoo verify`

use anyhow::Result;
use clap::Args;
use laps_hub::store::{self, FileCheckOutcome, FileStore, FileStoreError, verify};

use crate::report::{CommandStatus, print};

/// Hash the files in the cache again, and check checkpoints against their entries, offline
#[derive(Args)]
pub(crate) struct VerifyArgs {
    /// Name of an entry or of a pretrained encoder
    #[arg(required_unless_present = "all")]
    name: Option<String>,
    /// Verify all files in the cache
    #[arg(long, conflicts_with = "name")]
    all: bool,
}

impl VerifyArgs {
    pub(crate) fn run(self) -> Result<CommandStatus> {
        let store = FileStore::from_environment()?;
        let prefixes = match &self.name {
            None => None,
            Some(name) => {
                let known = store::fetchable_names()?;
                if !known.contains(name) {
                    return Err(FileStoreError::unknown_name(name, known).into());
                }
                Some(["checkpoints", "backbones"].map(|kind| format!("{kind}/{name}/")).to_vec())
            }
        };
        let checks = verify(&store, prefixes.as_deref())?;
        let mut text = String::new();
        let mut all_good = true;
        let mut found = 0;
        for check in &checks {
            let outcome = match &check.outcome {
                FileCheckOutcome::Good { sha256, checked: true } => format!("good, sha256 {sha256}, fits its entry"),
                FileCheckOutcome::Good { sha256, checked: false } => format!("good, sha256 {sha256}"),
                FileCheckOutcome::Absent => "not in the cache".to_owned(),
                FileCheckOutcome::Bad(error) => {
                    all_good = false;
                    format!("bad: {}", error.to_string().replace("\n  ", "; "))
                }
            };
            found += usize::from(!matches!(check.outcome, FileCheckOutcome::Absent));
            text += &format!("{}: {outcome}\n", check.key);
        }
        if found == 0 && self.name.is_some() {
            all_good = false;
        }
        if checks.is_empty() {
            text += "the cache is empty\n";
        }
        print(&text)?;
        Ok(if all_good { CommandStatus::Success } else { CommandStatus::CheckFailed })
    }
}
