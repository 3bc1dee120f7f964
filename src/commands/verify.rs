//! `laps-zoo verify`

use anyhow::Result;
use clap::Args;
use laps_hub::store::{self, Outcome, Store, verify};

use crate::report::{CommandStatus, print};

/// Hash what was fetched again, and check checkpoints against their entries, offline
#[derive(Args)]
pub(crate) struct VerifyArgs {
    /// Name of an entry or of a pretrained encoder
    #[arg(required_unless_present = "all")]
    name: Option<String>,
    /// Everything in the cache
    #[arg(long, conflicts_with = "name")]
    all: bool,
}

impl VerifyArgs {
    pub(crate) fn run(self) -> Result<CommandStatus> {
        let store = Store::from_environment().map_err(laps::Error::from)?;
        let prefixes = match &self.name {
            None => None,
            Some(name) => {
                let known = store::names()?;
                if !known.contains(name) {
                    return Err(laps::Error::from(store::unknown(name, known)).into());
                }
                Some(["checkpoints", "backbones"].map(|kind| format!("{kind}/{name}/")).to_vec())
            }
        };
        let verdicts = verify(&store, prefixes.as_deref())?;
        let mut text = String::new();
        let mut good = true;
        let mut found = 0;
        for verdict in &verdicts {
            let said = match &verdict.outcome {
                Outcome::Good { sha256, checked: true } => format!("good, sha256 {sha256}, fits its entry"),
                Outcome::Good { sha256, checked: false } => format!("good, sha256 {sha256}"),
                Outcome::Absent => "not here".to_owned(),
                Outcome::Bad(error) => {
                    good = false;
                    format!("bad: {}", error.to_string().replace("\n  ", "; "))
                }
            };
            found += usize::from(!matches!(verdict.outcome, Outcome::Absent));
            text += &format!("{}: {said}\n", verdict.key);
        }
        if found == 0 && self.name.is_some() {
            good = false;
        }
        if verdicts.is_empty() {
            text += "nothing was fetched\n";
        }
        print(&text)?;
        Ok(if good { CommandStatus::Success } else { CommandStatus::CheckFailed })
    }
}
