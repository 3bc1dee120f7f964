//! `laps-zoo embed`

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use anyhow::Result;
use clap::{ArgGroup, Args};
use laps::{Backends, EngineUsed, ProcessGroup, Workload};
use laps_bench::{files::check_writable, progress::StageProgress, suite::ShardSpec};
use laps_data::OnFault;
use laps_files::{OutputFile, path_to_text, text_to_path};
use laps_search::{
    EmbeddingFile, EmbeddingFormat, EmbeddingGranularity, Exclusions, ImageFolder, ImageInput, ModelUsed, ShardCounts,
    ShardInput, ShardSummary, ShardWriter, SkippedItem, embed_captions, embed_images,
};
use serde::Serialize;

use crate::{
    commands::index::{counts, list, list_damaged},
    distributed,
    model::{ModelOptions, summary_line, truncated},
    report::{CommandStatus, print, rank_prefix},
};

/// Write embeddings of images or captions as safetensors or NumPy files
#[derive(Args)]
#[command(group = ArgGroup::new("input").required(true).args(["images", "captions", "texts"]))]
pub(crate) struct EmbedArgs {
    /// Images, or folders of images, whose unusable files are skipped; with --shard-size also WebDataset tars and Parquet
    #[arg(value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// File of captions, one per line
    #[arg(long, value_name = "FILE")]
    captions: Option<PathBuf>,
    /// Caption; repeatable
    #[arg(long = "caption", value_name = "TEXT")]
    texts: Vec<String>,
    /// File to write (.safetensors or .npy), or with --shard-size a folder; rerun the command to resume
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    /// Write shards of N images, and one per tar or Parquet file, each with a list of the images that were skipped
    #[arg(long, value_name = "N", requires = "images")]
    shard_size: Option<NonZeroUsize>,
    /// Write only every N-th shard from number I, for job arrays [default: the shards of the rank of a distributed run,
    /// otherwise all]
    #[arg(long, value_name = "I/N", requires = "shard_size")]
    shard: Option<ShardSpec>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated_captions: Option<usize>,
    #[serde(flatten)]
    embedded: &'a EmbeddingFile,
}

/// The output of `--json` with shards.
#[derive(Serialize)]
struct ShardsOutput {
    schema: u32,
    shards: usize,
    /// Shards of other jobs that are not finished.
    waiting: usize,
    #[serde(flatten)]
    counts: ShardCounts,
    /// Files in folders that are no images.
    unused: usize,
}

impl EmbedArgs {
    /// Whether the request can only be met with libtorch.
    pub(crate) fn needs_libtorch(&self) -> bool {
        self.model.needs_libtorch()
    }

    pub(crate) fn run(self, backends: Backends) -> Result<CommandStatus> {
        let group = ProcessGroup::from_environment()?.filter(ProcessGroup::is_distributed);
        if let Some(size) = self.shard_size {
            let of_rank = group.map_or(ShardSpec::ALL, |group| ShardSpec::of_rank(group.rank, group.world_size));
            let shard = self.shard.unwrap_or(of_rank);
            return self.shards(size, shard, backends);
        }
        if let Some(group) = group {
            return Err(laps_bench::Error::Argument {
                argument: "--shard-size",
                expected: "a size, so that each process writes files of its own".to_owned(),
                found: format!("none, with WORLD_SIZE={}", group.world_size),
            }
            .into());
        }
        let ending = self.out.extension().map(|ending| ending.to_string_lossy().into_owned()).unwrap_or_default();
        let format = ending.parse::<EmbeddingFormat>().map_err(laps::Error::from)?;
        check_writable(&self.out)?;
        // Dropped without `persist`, it leaves nothing.
        OutputFile::create_seekable(&self.out)?;
        let (images, skipped) = images(&self.images)?;
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
        let output = EmbedOutput {
            schema: 1,
            model: model.used(),
            engine: model.engine(),
            truncated_captions: truncated(&model),
            embedded: &embedded,
        };
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

    /// Writes the shards of `shard`.
    fn shards(self, size: NonZeroUsize, shard: ShardSpec, backends: Backends) -> Result<CommandStatus> {
        let is_archive = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "tar" || ending == "parquet");
        let (archives, others): (Vec<PathBuf>, Vec<PathBuf>) = self.images.iter().cloned().partition(is_archive);
        let (mut images, unused) = images(&others)?;
        images.iter_mut().for_each(|image| image.on_fault = OnFault::Skip);
        let chunks = images.chunks(size.get()).map(|chunk| ShardInput::Images(chunk.to_vec()));
        let inputs: Vec<ShardInput> = archives.into_iter().map(ShardInput::Archive).chain(chunks).collect();
        fs_err::create_dir_all(&self.out)?;
        let granularity = if self.pooled { EmbeddingGranularity::Pooled } else { EmbeddingGranularity::Tokens };
        let (model, progress_bar) = self.model.open(backends, Workload::Many)?;
        let stage = StageProgress::begin(progress_bar.as_ref(), "encode", images.len());
        let progress = |count| stage.advance(count);
        let pipeline = model.encoding(&progress);
        let writer = ShardWriter { folder: &self.out, granularity, model: model.used(), pipeline };
        let mut summaries = Vec::with_capacity(inputs.len());
        for (number, input) in inputs.iter().enumerate() {
            summaries.push(if shard.has(number) { Some(writer.write(number, input)?) } else { None });
        }
        // After its own, so that the process that finishes the last shard sees all of them.
        for (number, input) in inputs.iter().enumerate() {
            if summaries[number].is_none() {
                summaries[number] = writer.finished(number, input)?;
            }
        }
        let summaries: Vec<ShardSummary> = summaries.into_iter().flatten().collect();
        let waiting = inputs.len() - summaries.len();
        if waiting == 0 {
            writer.write_manifest(&summaries)?;
        }
        let counts = ShardCounts::of(&summaries);
        let output = ShardsOutput { schema: 1, shards: inputs.len(), waiting, counts, unused: unused.len() };
        stage.end(&format!("{} images", counts.embedded));
        let incomplete: Vec<&ShardSummary> = summaries.iter().filter(|summary| !summary.is_complete()).collect();
        let status = if incomplete.is_empty() { CommandStatus::Success } else { CommandStatus::CheckFailed };
        let is_missing = |item: &&SkippedItem| !text_to_path(&item.name).exists();
        let gone: Vec<SkippedItem> =
            incomplete.iter().flat_map(|summary| &summary.skipped).filter(is_missing).cloned().collect();
        if !distributed::is_first() {
            if !incomplete.is_empty() {
                let prefix = rank_prefix();
                eprint!("{prefix}error: images that were listed and are gone: {}\n{}", counts.missing, list(&gone));
            }
            return Ok(status);
        }
        if self.json {
            print(&format!("{}\n", serde_json::to_string_pretty(&output)?))?;
        } else {
            let ShardCounts { images, embedded, skipped, missing } = counts;
            let waiting = match waiting {
                0 => String::new(),
                count => format!("; {count} shards of other processes are not finished"),
            };
            print(&format!(
                "{}\n{} of {} shards in `{}`: {images} images, {embedded} embedded, {skipped} skipped, {missing} \
                 missing{waiting}\n{}",
                summary_line(&model),
                summaries.len(),
                inputs.len(),
                self.out.display(),
                list(&gone)
            ))?;
        }
        Ok(status)
    }
}

/// The images at `paths`, which may be folders, and files in folders that are no images.
fn images(paths: &[PathBuf]) -> Result<(Vec<ImageInput>, Vec<SkippedItem>)> {
    let image = |path: PathBuf, on_fault| ImageInput { name: path_to_text(&path), path, on_fault };
    let (mut images, mut skipped) = (Vec::new(), Vec::new());
    for path in paths {
        if !path.is_dir() {
            images.push(image(path.clone(), OnFault::Stop));
            continue;
        }
        let folder = ImageFolder::list(path, &Exclusions::default())?;
        images.extend(folder.images.into_iter().map(|(_, path)| image(path, OnFault::Skip)));
        // A command can name several folders.
        let name = |name: &str| format!("{}/{name}", path_to_text(path));
        skipped.extend(folder.skipped.into_iter().map(|item| SkippedItem { name: name(&item.name), ..item }));
    }
    Ok((images, skipped))
}

/// Names the file whose lines the captions are.
fn name_file(error: laps_search::Error, file: Option<&Path>) -> laps_search::Error {
    match (error, file) {
        (laps_search::Error::Data(laps_data::Error::Data(error)), Some(file)) => error.in_file(file).into(),
        (error, _) => error,
    }
}
