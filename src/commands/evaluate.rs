//! `laps-zoo evaluate`

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{ArgGroup, Args};
use laps_align::{CaptionImages, Protocol};
use laps_bench::{
    files::check_writable,
    foreign::{ForeignInput, ForeignRequest, HeadSource, evaluate, render},
};
use laps_data::Split;

use crate::report::{CommandStatus, print};

/// Compute recalls of a similarity matrix, or of embeddings and a head, from another program
#[derive(Args)]
#[command(group = ArgGroup::new("input").required(true).multiple(true).args(["embeddings", "sims"]))]
pub(crate) struct EvaluateArgs {
    /// Embeddings: one safetensors file with `images`, `captions` and `lengths`, or two .npy files, images first
    #[arg(value_name = "EMBEDDINGS", num_args = 0..=2)]
    embeddings: Vec<PathBuf>,
    /// Similarity matrix, images x captions (.npy, .npz or .safetensors); with EMBEDDINGS, the file to write it to
    #[arg(long, value_name = "FILE")]
    sims: Option<PathBuf>,
    /// The matrix has captions as rows
    #[arg(long, conflicts_with = "embeddings")]
    transposed: bool,
    /// Head that compares the embeddings: a type such as scan_t2i, a YAML file with the mapping of a head, or an entry
    #[arg(long, requires = "embeddings")]
    head: Option<String>,
    /// Parameters of the head (.safetensors or .pth)
    #[arg(long, value_name = "FILE", requires = "head")]
    checkpoint: Option<PathBuf>,
    /// Whether the first token of an image is a class token [default: if the other tokens are a square grid]
    #[arg(long, value_name = "BOOL", requires = "head")]
    class_token: Option<bool>,
    /// Folder of caption files that say which captions belong to which image [default: five captions an image]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Split of the caption files
    #[arg(long, default_value = "test", requires = "data")]
    split: String,
    /// Comma-separated protocols: f30k, coco_5k, coco_1k [default: those that fit the sizes]
    #[arg(long, value_name = "PROTOCOLS", value_delimiter = ',')]
    protocol: Vec<String>,
    /// Write the result as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Print nothing but errors
    #[arg(long, short)]
    quiet: bool,
}

impl EvaluateArgs {
    pub(crate) fn run(self) -> Result<CommandStatus> {
        let protocols = self.protocol.iter().map(|name| protocol(name)).collect::<Result<Vec<_>>>()?;
        let pairing = self.data.as_deref().map(|data| pairing(data, &self.split)).transpose()?;
        let head = match &self.head {
            Some(name) => Some(HeadSource::find(name, self.checkpoint, self.class_token)?),
            None => None,
        };
        let (input, sims) = match (self.embeddings.is_empty(), self.sims) {
            (true, Some(path)) => (ForeignInput::Similarities { path, transposed: self.transposed }, None),
            (_, sims) => (ForeignInput::Embeddings { paths: self.embeddings, head }, sims),
        };
        [&sims, &self.json].into_iter().flatten().try_for_each(|path| check_writable(path))?;
        let result = evaluate(&ForeignRequest { input, pairing, protocols, sims })?;
        if let Some(path) = &self.json {
            laps_bench::files::write_atomic(path, format!("{}\n", serde_json::to_string_pretty(&result)?).as_bytes())?;
        }
        if !self.quiet {
            print(&render(&result))?;
        }
        Ok(CommandStatus::Success)
    }
}

fn protocol(name: &str) -> Result<Protocol> {
    let found = Protocol::ALL.into_iter().find(|protocol| protocol.name() == name);
    Ok(found.ok_or_else(|| laps_bench::Error::Argument {
        argument: "--protocol",
        expected: Protocol::ALL.map(|protocol| format!("`{}`", protocol.name())).join(", "),
        found: format!("`{name}`"),
    })?)
}

/// Which captions belong to which image, from the caption files in `data` or in its folder `captions`.
fn pairing(data: &Path, split: &str) -> Result<CaptionImages> {
    let nested = data.join("captions");
    let folder = if nested.is_dir() { nested } else { data.to_owned() };
    let split = Split::open(&folder, split).map_err(laps::Error::from)?;
    Ok(CaptionImages::new(split.images().len(), split.image_of()).map_err(laps::Error::from)?)
}
