//! `laps-zoo report`

use std::path::PathBuf;

use anyhow::Result;
use bench::{
    embedded,
    files::{check_writable, write_whole},
    report::{Thumbnails, page},
    reproduce::Reproduction,
    results,
};
use clap::Args;
use zoo::registry;

use crate::report::{Finding, print};

/// Write results of `reproduce --json` as one HTML page with charts and the hardest failures
#[derive(Args)]
pub(crate) struct Report {
    /// Results, in any order
    #[arg(required = true, value_name = "RESULT")]
    results: Vec<PathBuf>,
    /// Folder of the images, for small copies of those in the failures; can be given again [default: drawn scenes]
    #[arg(long, value_name = "DIR")]
    images: Vec<PathBuf>,
    /// The page
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    out: PathBuf,
}

impl Report {
    pub(crate) fn run(self) -> Result<Finding> {
        check_writable(&self.out)?;
        let results = self.results.iter().map(|path| results::read(path)).collect::<Result<Vec<_>, _>>()?;
        let mut folders = self.images;
        for result in &results {
            folders.extend(drawn(result)?);
        }
        let thumbnails = Thumbnails::new(folders);
        write_whole(&self.out, page(results, &thumbnails)?.as_bytes())?;
        print(&format!("wrote `{}`\n", self.out.display()))?;
        if thumbnails.missing() > 0 {
            print(&format!(
                "{} images were not found and are named only; `--images DIR` says where they are\n",
                thumbnails.missing()
            ))?;
        }
        Ok(Finding::Done)
    }
}

/// The folder of the scenes that a result is of, where its entry draws them.
fn drawn(result: &Reproduction) -> Result<Option<PathBuf>> {
    if !registry::names().contains(&result.entry.as_str()) {
        return Ok(None);
    }
    let entry = registry::find(&result.entry)?;
    if entry.data.drawn.is_none() || entry.config_sha256 != result.provenance.config_sha256 {
        return Ok(None);
    }
    Ok(Some(embedded::data_paths(&entry, None, Some(&result.split))?.images))
}
