//! Evaluations of the embedded entries, each in a process of its own, so that its memory is that of nothing else.

use std::process::Command;

use anyhow::{Context, Result, bail};
use bench::{gate::Gathered, progress::Progress};
use zoo::registry::{self, Entry};

/// Memory and hits of each of `entries` that is embedded.
pub(crate) fn evaluations(entries: &[Entry], progress: &dyn Progress) -> Result<Vec<Gathered>> {
    let embedded = entries.iter().filter(|entry| registry::embedded_checkpoint(&entry.name).is_some());
    let mut all: Option<[Gathered; 2]> = None;
    for entry in embedded {
        progress.begin(&entry.name, 1);
        let found = evaluation(&entry.name)?;
        all = Some(match all {
            None => found,
            Some([memory, hits]) => {
                let [more_memory, more_hits] = found;
                [memory.with(more_memory), hits.with(more_hits)]
            }
        });
        progress.end("evaluated");
    }
    Ok(all.into_iter().flatten().collect())
}

fn evaluation(name: &str) -> Result<[Gathered; 2]> {
    let output = Command::new(std::env::current_exe()?).args(["bench", "--evaluate", name]).output()?;
    if !output.status.success() {
        bail!("`{name}` can not be evaluated\n{}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    serde_json::from_slice(&output.stdout).with_context(|| format!("the evaluation of `{name}` gave no measures"))
}
