//! `laps-zoo convert`

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use laps_bench::files::check_writable;
use laps_hub::{checkpoint::convert, registry};

use crate::report::{CommandStatus, print_summary};

/// Convert a checkpoint to safetensors, with its options and the hash of its source
#[derive(Args)]
pub(crate) struct ConvertArgs {
    /// Checkpoint to read (.pth, .safetensors, or a folder with one, such as a Hugging Face model)
    input: PathBuf,
    /// Safetensors file to write (`-` for standard output)
    output: PathBuf,
    /// Check the checkpoint against the model of this entry (entry name, or path to an entry YAML file)
    #[arg(long, value_name = "ENTRY")]
    entry: Option<String>,
}

impl ConvertArgs {
    pub(crate) fn run(self) -> Result<CommandStatus> {
        let Self { input, output, entry } = self;
        let entry = entry.as_deref().map(registry::find).transpose()?;
        check_writable(&output)?;
        let converted = convert(&input, &output, entry.as_ref().map(|entry| &entry.model))?;
        let mut text = format!(
            "{}\n{} tensors, {} bytes\nfrom sha256 {}\n",
            converted.path.display(),
            converted.tensors,
            converted.bytes,
            converted.source_sha256
        );
        if !converted.removed_prefixes.is_empty() {
            let prefixes: Vec<_> = converted.removed_prefixes.iter().map(|prefix| format!("`{prefix}`")).collect();
            text += &format!("removed from the names: {}\n", prefixes.join(", "));
        }
        if !converted.skipped.is_empty() {
            let entries: Vec<_> = converted.skipped.iter().map(|skipped| format!("\n  {skipped}")).collect();
            text += &format!("skipped in the state dict: {}{}\n", entries.len(), entries.concat());
        }
        if converted.tensors_outside > 0 {
            text += &format!("skipped outside the state dict: {} tensors\n", converted.tensors_outside);
        }
        print_summary([&output], &text)?;
        Ok(CommandStatus::Success)
    }
}
