//! `laps-zoo score`

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use laps::EngineUsed;
use laps::{Backends, Model, Workload};
use laps_align::similarity::CaptionMatrix;
use laps_bench::progress::StageProgress;
use laps_data::ExifOrientation;
use laps_files::{Progress, path_to_text};
use laps_model::array::Array;
use laps_search::ModelUsed;
use serde::Serialize;

use crate::{
    model::{ModelOptions, summary_line, truncated},
    ranking::{plain, table},
    report::{CommandStatus, print},
};

/// Compute the exact similarities of images and captions
#[derive(Args)]
pub(crate) struct ScoreArgs {
    /// Image files
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// Caption; repeatable
    #[arg(long = "caption", required = true, value_name = "TEXT")]
    captions: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelOptions,
}

/// The output of `--json`.
#[derive(Serialize)]
struct ScoreOutput<'a> {
    schema: u32,
    model: &'a ModelUsed,
    engine: &'a EngineUsed,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated_captions: Option<usize>,
    images: Vec<String>,
    captions: &'a [String],
    /// Shape `(images, captions)`.
    similarities: Vec<&'a [f32]>,
}

impl ScoreArgs {
    /// Whether the request can only be met with libtorch.
    pub(crate) fn needs_libtorch(&self) -> bool {
        self.model.needs_libtorch()
    }

    pub(crate) fn run(self, backends: Backends) -> Result<CommandStatus> {
        let Self { images, captions, json, model } = self;
        let captions: Vec<String> = captions.iter().map(|caption| caption.trim().to_owned()).collect();
        let (model, progress_bar) = model.open(backends, Workload::of(images.len().max(captions.len())))?;
        let matrix = similarities(&model, progress_bar.as_ref(), &images, &captions)?;
        let names: Vec<String> = images.iter().map(|path| path_to_text(path)).collect();
        let rows: Vec<&[f32]> = matrix.values().chunks_exact(captions.len()).collect();
        if json {
            let output = ScoreOutput {
                schema: 1,
                model: model.used(),
                engine: model.engine(),
                truncated_captions: truncated(&model),
                images: names,
                captions: &captions,
                similarities: rows,
            };
            print(&format!("{}\n", serde_json::to_string_pretty(&output)?))?;
        } else {
            print(&format!("{}\n{}", summary_line(&model), render(&names, &captions, &rows)))?;
        }
        Ok(CommandStatus::Success)
    }
}

/// Similarities of shape `(images, captions)`.
fn similarities(model: &Model, progress_bar: &dyn Progress, images: &[PathBuf], captions: &[String]) -> Result<Array> {
    let stage = StageProgress::begin(progress_bar, "encode", images.len() + captions.len());
    let progress = |count| stage.advance(count);
    let encoding = model.encoding(&progress);
    let width = encoding.sizes.width;
    let words = CaptionMatrix::from_arrays(&encoding.encode_captions(captions)?, width)?;
    let patches = encoding.encode_images(images, ExifOrientation::Ignore)?;
    let patches = patches.iter().flat_map(|image| image.values()).copied().collect();
    stage.end(&format!("{} images and {} captions", images.len(), captions.len()));
    Ok(model.similarity().similarities(&Array::new(&[images.len(), encoding.sizes.tokens, width], patches)?, &words)?)
}

/// One table per caption with its images, best first; for a single image, one table of its captions.
fn render(images: &[String], captions: &[String], similarities: &[&[f32]]) -> String {
    if let ([image], [row]) = (images, similarities) {
        return format!("\n{}\n{}", plain(image), ranked("caption", captions, row));
    }
    let block = |(index, caption): (usize, &String)| {
        let column: Vec<f32> = similarities.iter().map(|row| row[index]).collect();
        format!("\n{}\n{}", plain(caption), ranked("image", images, &column))
    };
    captions.iter().enumerate().map(block).collect()
}

fn ranked(what: &str, names: &[String], values: &[f32]) -> String {
    let mut rows: Vec<(f32, &String)> = values.iter().copied().zip(names).collect();
    rows.sort_by(|a, b| b.0.total_cmp(&a.0));
    let row =
        |(place, (value, name)): (usize, (f32, &String))| [(place + 1).to_string(), format!("{value:.4}"), plain(name)];
    table(["", "similarity", what], rows.into_iter().enumerate().map(row))
}
