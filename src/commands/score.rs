//! `laps-zoo score`

use std::path::PathBuf;

use anyhow::Result;
use bench::engine::EngineUsed;
use clap::Args;
use serde::Serialize;
use zoo::{
    array::Array,
    retrieval::similarity::{AlignmentConfig, CaptionMatrix},
    search::ModelUsed,
};

use crate::{
    model::{Choice, Model},
    ranking::{plain, table},
    report::{Finding, print},
};

/// Compare images with captions, exactly
#[derive(Args)]
pub(crate) struct Score {
    /// Images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// A caption; may be given several times
    #[arg(long = "caption", required = true, value_name = "TEXT")]
    captions: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: Choice,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Scores<'a> {
    schema: u32,
    model: &'a ModelUsed,
    engine: &'a EngineUsed,
    images: Vec<String>,
    captions: &'a [String],
    /// Images by captions.
    similarities: Vec<&'a [f32]>,
}

impl Score {
    pub(crate) fn run(self) -> Result<Finding> {
        let Self { images, captions, json, model } = self;
        let captions: Vec<String> = captions.iter().map(|caption| caption.trim().to_owned()).collect();
        let model = model.open()?;
        let matrix = similarities(&model, &images, &captions)?;
        let names: Vec<String> = images.iter().map(|path| path.display().to_string()).collect();
        let rows: Vec<&[f32]> = matrix.values().chunks_exact(captions.len()).collect();
        if json {
            let scores = Scores {
                schema: 1,
                model: &model.used,
                engine: &model.engine,
                images: names,
                captions: &captions,
                similarities: rows,
            };
            print(&format!("{}\n", serde_json::to_string_pretty(&scores)?))?;
        } else {
            print(&format!("{}\n{}", model.line(), render(&names, &captions, &rows)))?;
        }
        Ok(Finding::Done)
    }
}

/// `(images, captions)`.
fn similarities(model: &Model, images: &[PathBuf], captions: &[String]) -> Result<Array> {
    model.progress.begin("encode", images.len() + captions.len());
    let progress = |count| model.progress.advance(count);
    let encoding = model.encoding(&progress);
    let AlignmentConfig { width, .. } = encoding.sizes;
    let words = CaptionMatrix::from_arrays(&encoding.captions_held(captions)?, width)?;
    let patches = encoding.images_held(images)?;
    let patches = patches.iter().flat_map(|image| image.values()).copied().collect();
    model.progress.end(&format!("{} images and {} captions", images.len(), captions.len()));
    Ok(model.similarity.similarities(&Array::new(&[images.len(), encoding.sizes.tokens(), width], patches)?, &words)?)
}

/// For each caption the images, best first; for one image the captions.
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
