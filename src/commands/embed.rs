//! `laps-zoo embed`

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{ArgGroup, Args};
use laps::{Backends, EngineUsed, Workload};
use laps_bench::{files::check_writable, progress::StageProgress};
use laps_data::OnFault;
use laps_files::{OutputFile, path_to_text};
use laps_search::{
    EmbeddingFile, EmbeddingFormat, EmbeddingGranularity, Exclusions, ImageFolder, ImageInput, ModelUsed, SkippedItem,
    embed_captions, embed_images,
};
use serde::Serialize;

use crate::{
    commands::index::{counts, list, list_damaged},
    model::{ModelOptions, summary_line},
    report::{CommandStatus, print},
};

/// Write embeddings of images or captions as safetensors or NumPy files
#[derive(Args)]
#[command(group = ArgGroup::new("input").required(true).args(["images", "captions", "texts"]))]
pub(crate) struct EmbedArgs {
    /// Images, or folders of images, whose unusable files are skipped
    #[arg(value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// File of captions, one per line
    #[arg(long, value_name = "FILE")]
    captions: Option<PathBuf>,
    /// Caption; repeatable
    #[arg(long = "caption", value_name = "TEXT")]
    texts: Vec<String>,
    /// File to write (.safetensors or .npy)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Write one pooled vector per item, as an index uses to select candidates
    #[arg(long)]
    pooled: bool,
    /// Print a summary as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelOptions,
}

/// The output of `--json`.
#[derive(Serialize)]
struct EmbedOutput<'a> {
    schema: u32,
    model: &'a ModelUsed,
    engine: &'a EngineUsed,
    #[serde(flatten)]
    embedded: &'a EmbeddingFile,
}

impl EmbedArgs {
    /// Whether the request can only be met with libtorch.
    pub(crate) fn needs_libtorch(&self) -> bool {
        self.model.needs_libtorch()
    }

    pub(crate) fn run(self, backends: Backends) -> Result<CommandStatus> {
        let ending = self.out.extension().map(|ending| ending.to_string_lossy().into_owned()).unwrap_or_default();
        let format = ending.parse::<EmbeddingFormat>().map_err(laps::Error::from)?;
        check_writable(&self.out)?;
        // Dropped without `persist`, it leaves nothing.
        OutputFile::create_seekable(&self.out)?;
        let (mut images, mut skipped) = (Vec::new(), Vec::new());
        for path in &self.images {
            if !path.is_dir() {
                images.push(ImageInput { path: path.clone(), on_fault: OnFault::Stop });
                continue;
            }
            let folder = ImageFolder::list(path, &Exclusions::default())?;
            images.extend(folder.images.into_iter().map(|(_, path)| ImageInput { path, on_fault: OnFault::Skip }));
            // A command can name several folders.
            skipped.extend(
                folder
                    .skipped
                    .into_iter()
                    .map(|item| SkippedItem { name: format!("{}/{}", path_to_text(path), item.name), ..item }),
            );
        }
        let captions = match &self.captions {
            Some(path) => laps_data::rows(path).map_err(laps::Error::from)?,
            None => self.texts.iter().map(|text| text.trim().to_owned()).collect(),
        };
        let granularity = if self.pooled { EmbeddingGranularity::Pooled } else { EmbeddingGranularity::Tokens };
        let workload = Workload::of(images.len().max(captions.len()));
        let (model, progress_bar) = self.model.open(backends, workload)?;
        let stage = StageProgress::begin(progress_bar.as_ref(), "encode", images.len().max(captions.len()));
        let progress = |count| stage.advance(count);
        let encoding = model.encoding(&progress);
        let mut embedded = match images.is_empty() {
            true => embed_captions(captions, &self.out, format, granularity, model.used(), &encoding)
                .map_err(|error| name_file(error, self.captions.as_deref()))?,
            false => embed_images(&images, &self.out, format, granularity, model.used(), &encoding)?,
        };
        stage.end(&format!("{} items", embedded.items.len()));
        embedded.skipped.extend(skipped);
        embedded.skipped.sort();
        let output = EmbedOutput { schema: 1, model: model.used(), engine: model.engine(), embedded: &embedded };
        if self.json {
            print(&format!("{}\n", serde_json::to_string_pretty(&output)?))?;
        } else {
            let EmbeddingFile { tensor, shape, skipped, damaged, .. } = &embedded;
            print(&format!(
                "{}\n`{tensor}` {shape:?} in `{}`{}\n{}{}",
                summary_line(&model),
                self.out.display(),
                counts(skipped, damaged),
                list(skipped),
                list_damaged(damaged)
            ))?;
        }
        Ok(CommandStatus::Success)
    }
}

/// Names the file whose lines the captions are.
fn name_file(error: laps_search::Error, file: Option<&Path>) -> laps_search::Error {
    match (error, file) {
        (laps_search::Error::Data(laps_data::Error::Data(error)), Some(file)) => error.in_file(file).into(),
        (error, _) => error,
    }
}
