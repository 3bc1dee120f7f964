//! `laps-zoo report`

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use laps::{Backends, Model, Workload};
use laps_bench::{
    files::{check_writable, write_atomic},
    report::{Explainer, Thumbnails, page},
    reproduce::Reproduction,
    results,
};
use laps_hub::registry;

use crate::report::{CommandStatus, print_summary};

/// Write results of `reproduce --json` and `evaluate --json` as an HTML report with charts and the hardest failures
#[derive(Args)]
pub(crate) struct ReportArgs {
    /// Results of `reproduce --json` and `evaluate --json`, in any order
    #[arg(required = true, value_name = "RESULT")]
    results: Vec<PathBuf>,
    /// Folder of images for the thumbnails of the failures; repeatable [default: the drawn scenes]
    #[arg(long, value_name = "DIR")]
    images: Vec<PathBuf>,
    /// Show for each of the hardest failures why its first answer won: the maps and matched words of the first and of the
    /// correct answer side by side; needs the entry, its checkpoint and the images
    #[arg(long)]
    explain: bool,
    /// Checkpoint of the results for --explain; repeatable [default: the embedded one, or the one in the cache]
    #[arg(long, value_name = "FILE", requires = "explain")]
    checkpoint: Vec<PathBuf>,
    /// HTML file to write
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    out: PathBuf,
}

impl ReportArgs {
    pub(crate) fn run(self, backends: Backends) -> Result<CommandStatus> {
        check_writable(&self.out)?;
        let results = self.results.iter().map(|path| results::read(path)).collect::<Result<Vec<_>, _>>()?;
        let mut folders = self.images;
        for result in &results {
            folders.extend(drawn(result)?);
        }
        let thumbnails = Thumbnails::new(folders);
        let explainer = match self.explain {
            true => explainer(&results, &self.checkpoint, backends)?,
            false => Explainer::default(),
        };
        write_atomic(&self.out, page(results, &thumbnails, &explainer)?.as_bytes())?;
        let mut summary = format!("wrote `{}`\n", self.out.display());
        if thumbnails.missing() > 0 {
            summary += &format!(
                "{} images were not found and have no thumbnail; pass their folder with `--images DIR`\n",
                thumbnails.missing()
            );
        }
        print_summary([&self.out], &summary)?;
        Ok(CommandStatus::Success)
    }
}

/// Opens the models of the results. Results of other programs have none.
fn explainer(results: &[Reproduction], checkpoints: &[PathBuf], backends: Backends) -> Result<Explainer> {
    let mut explainer = Explainer::default();
    for result in results.iter().filter(|result| result.provenance.entry().is_some()) {
        let mut tried = vec![None];
        tried.extend(checkpoints.iter().map(Some));
        // The last one that was given first.
        while !explainer.knows(result)
            && let Some(checkpoint) = tried.pop()
        {
            let builder = Model::builder(&result.entry).backends(backends).workload(Workload::Few);
            let model = match checkpoint {
                Some(path) => builder.checkpoint(path).open(),
                None => builder.open(),
            };
            // A checkpoint of another result may not fit the entry.
            match model {
                Ok(model) => explainer.add(model),
                Err(error) if tried.is_empty() => return Err(error.into()),
                Err(_) => {}
            }
        }
        if !explainer.knows(result) {
            let (expected, found) = match result.provenance.entry() {
                Some(used) => (used.checkpoint.sha256.as_str(), "other ones"),
                None => ("", ""),
            };
            return Err(laps_bench::Error::Argument {
                argument: "--checkpoint",
                expected: format!("the checkpoint with sha256 {expected} of `{}`", result.entry),
                found: found.to_owned(),
            }
            .into());
        }
    }
    Ok(explainer)
}

/// The folder of the drawn scenes of a result, if its entry draws its data.
fn drawn(result: &Reproduction) -> Result<Option<PathBuf>> {
    if !registry::names().contains(&result.entry.as_str()) {
        return Ok(None);
    }
    let entry = registry::find(&result.entry)?;
    let is_same = result.provenance.entry().is_some_and(|used| used.config_sha256 == entry.config_sha256);
    if entry.data.drawn.is_none() || !is_same {
        return Ok(None);
    }
    Ok(Some(laps::embedded::data_paths(&entry, None, Some(&result.split))?.images))
}
