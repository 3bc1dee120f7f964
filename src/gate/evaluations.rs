//! Evaluations of the embedded entries, each in a separate process so that peak memory covers only the evaluation.

use std::process::Command;

use anyhow::{Context, Result, bail};
use laps_bench::{gate::GroupMeasures, progress::StageProgress};
use laps_files::Progress;
use laps_hub::registry::{self, Entry};

/// Memory and hits of each embedded entry in `entries`.
pub(crate) fn evaluations(entries: &[Entry], progress: &dyn Progress) -> Result<Vec<GroupMeasures>> {
    let embedded = entries.iter().filter(|entry| registry::embedded_checkpoint(&entry.name).is_some());
    let mut all: Option<[GroupMeasures; 2]> = None;
    for entry in embedded {
        let stage = StageProgress::begin(progress, &entry.name, 1);
        let found = evaluation(&entry.name)?;
        all = Some(match all {
            None => found,
            Some([memory, hits]) => {
                let [more_memory, more_hits] = found;
                [memory.with(more_memory), hits.with(more_hits)]
            }
        });
        stage.end("evaluated");
    }
    Ok(all.into_iter().flatten().collect())
}

fn evaluation(name: &str) -> Result<[GroupMeasures; 2]> {
    let mut evaluation = Command::new(std::env::current_exe()?);
    // With several arenas of glibc, which thread gets which varies, and with it the peak memory: by up to 6 of 20 MB.
    evaluation.args(["bench", "--evaluate", name]).env("MALLOC_ARENA_MAX", "1");
    let output = evaluation.output()?;
    if !output.status.success() {
        bail!("cannot evaluate `{name}`\n{}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("the evaluation of `{name}` did not print its measures"))
}
