//! The hash of a run's configuration.

use crate::Result;
use laps_hub::registry::{Entry, sha256};

/// Hash of the effective entry and the initial weights, and those of the same run with fewer epochs, which it can resume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ConfigHash {
    /// The hash at index `i` is that of `i + 1` epochs; the last is that of the configuration.
    by_epochs: Vec<String>,
}

impl ConfigHash {
    /// The hash of an entry with initial weights of the hashes `sources`.
    pub(super) fn new(entry: &Entry, sources: &[String]) -> Result<Self> {
        let sources = sources.join(" ");
        let mut entry = entry.clone();
        let mut by_epochs = Vec::with_capacity(entry.train.epochs);
        for epochs in 1..=entry.train.epochs {
            entry.train.epochs = epochs;
            by_epochs.push(sha256(format!("{} {sources}", entry.run_canonical()?).as_bytes()));
        }
        Ok(Self { by_epochs })
    }

    /// The hash.
    pub(super) fn value(&self) -> &str {
        self.by_epochs.last().map_or("", String::as_str)
    }

    /// Epochs of the saved run with the hash `saved`, if this run can resume it.
    pub(super) fn saved_epochs(&self, saved: &str) -> Option<usize> {
        self.by_epochs.iter().position(|hash| hash == saved).map(|index| index + 1)
    }

    #[cfg(test)]
    pub(super) fn of_texts(by_epochs: &[&str]) -> Self {
        Self { by_epochs: by_epochs.iter().map(|&hash| hash.to_owned()).collect() }
    }
}
