//! `laps-zoo report`

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use laps_bench::{
    files::{check_writable, write_atomic},
    report::{Thumbnails, page},
    reproduce::Reproduction,
    results,
};
use laps_hub::registry;

use crate::report::{CommandStatus, print};

/// Write results of `reproduce --json` and `evaluate --json` as an HTML report with charts and the hardest failures
#[derive(Args)]
pub(crate) struct ReportArgs {
    /// Results of `reproduce --json` and `evaluate --json`, in any order
    #[arg(required = true, value_name = "RESULT")]
    results: Vec<PathBuf>,
    /// Folder of images for the thumbnails of the failures; repeatable [default: the drawn scenes]
    #[arg(long, value_name = "DIR")]
    images: Vec<PathBuf>,
    /// HTML file to write
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    out: PathBuf,
}

impl ReportArgs {
    pub(crate) fn run(self) -> Result<CommandStatus> {
        check_writable(&self.out)?;
        let results = self.results.iter().map(|path| results::read(path)).collect::<Result<Vec<_>, _>>()?;
        let mut folders = self.images;
        for result in &results {
            folders.extend(drawn(result)?);
        }
        let thumbnails = Thumbnails::new(folders);
        write_atomic(&self.out, page(results, &thumbnails)?.as_bytes())?;
        print(&format!("wrote `{}`\n", self.out.display()))?;
        if thumbnails.missing() > 0 {
            print(&format!(
                "{} images were not found and have no thumbnail; pass their folder with `--images DIR`\n",
                thumbnails.missing()
            ))?;
        }
        Ok(CommandStatus::Success)
    }
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
