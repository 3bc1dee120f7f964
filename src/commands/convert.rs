//! `laps-zoo convert`

use std::path::PathBuf;

use anyhow::Result;
use bench::files::check_writable;
use clap::Args;
use zoo::{checkpoint::convert, registry};

use crate::report::{Finding, print};

/// Write a checkpoint as safetensors, with its options and the hash of its source
#[derive(Args)]
pub(crate) struct Convert {
    /// The checkpoint: .pth or .safetensors
    input: PathBuf,
    /// The safetensors file to write
    output: PathBuf,
    /// Name of an entry, or path of an entry file: the checkpoint has to be one of its model
    #[arg(long, value_name = "ENTRY")]
    entry: Option<String>,
}

impl Convert {
    pub(crate) fn run(self) -> Result<Finding> {
        let Self { input, output, entry } = self;
        let entry = entry.as_deref().map(registry::find).transpose()?;
        check_writable(&output)?;
        let same = |left: &PathBuf, right: &PathBuf| Some(left.canonicalize().ok()? == right.canonicalize().ok()?);
        if same(&input, &output) == Some(true) {
            let path = output.display();
            anyhow::bail!(
                "`{path}` can not be both\n  expected: another file to write\n  found: the checkpoint itself"
            );
        }
        let converted = convert(&input, &output, entry.as_ref().map(|entry| &entry.model))?;
        print(&format!(
            "{}\n{} tensors, {} bytes\nfrom sha256 {}\n",
            converted.path.display(),
            converted.tensors,
            converted.bytes,
            converted.source_sha256
        ))?;
        Ok(Finding::Done)
    }
}
