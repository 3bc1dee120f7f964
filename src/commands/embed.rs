//! `laps-zoo embed`

use std::path::PathBuf;

use anyhow::Result;
use bench::{engine::EngineUsed, files::check_writable};
use clap::{ArgGroup, Args};
use serde::Serialize;
use zoo::search::{Content, Embedded, Format, ModelUsed, embed_captions, embed_images, images_in};

use crate::{
    model::Choice,
    report::{Finding, print},
};

/// Write the embeddings of images or captions as safetensors or for NumPy
#[derive(Args)]
#[command(group = ArgGroup::new("input").required(true).args(["images", "captions", "texts"]))]
pub(crate) struct Embed {
    /// Images, and folders of images
    #[arg(value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// Captions, one a line
    #[arg(long, value_name = "FILE")]
    captions: Option<PathBuf>,
    /// A caption; may be given several times
    #[arg(long = "caption", value_name = "TEXT")]
    texts: Vec<String>,
    /// The file to write: .safetensors or .npy
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// One vector for each, by which an index chooses candidates
    #[arg(long)]
    pooled: bool,
    /// Print what was written as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: Choice,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Written<'a> {
    schema: u32,
    model: &'a ModelUsed,
    engine: &'a EngineUsed,
    #[serde(flatten)]
    embedded: &'a Embedded,
}

impl Embed {
    pub(crate) fn run(self) -> Result<Finding> {
        let ending = self.out.extension().map(|ending| ending.to_string_lossy().into_owned()).unwrap_or_default();
        let format = ending.parse::<Format>().map_err(zoo::Error::from)?;
        check_writable(&self.out)?;
        let mut images = Vec::new();
        for path in &self.images {
            match path.is_dir() {
                true => images.extend(images_in(path)?.into_iter().map(|(_, path)| path)),
                false => images.push(path.clone()),
            }
        }
        let captions = match &self.captions {
            Some(path) => zoo::data::rows(path).map_err(zoo::Error::from)?,
            None => self.texts.iter().map(|text| text.trim().to_owned()).collect(),
        };
        let content = if self.pooled { Content::Pooled } else { Content::Rows };
        let model = self.model.open()?;
        let progress = |count| model.progress.advance(count);
        let encoding = model.encoding(&progress);
        model.progress.begin("encode", images.len().max(captions.len()));
        let embedded = match images.is_empty() {
            true => embed_captions(captions, &self.out, (format, content), &model.used, &encoding)?,
            false => embed_images(images, &self.out, (format, content), &model.used, &encoding)?,
        };
        model.progress.end(&format!("{} of them", embedded.items.len()));
        let written = Written { schema: 1, model: &model.used, engine: &model.engine, embedded: &embedded };
        if self.json {
            print(&format!("{}\n", serde_json::to_string_pretty(&written)?))?;
        } else {
            let Embedded { tensor, shape, .. } = &embedded;
            print(&format!("{}\n`{tensor}` {shape:?} in `{}`\n", model.line(), self.out.display()))?;
        }
        Ok(Finding::Done)
    }
}
