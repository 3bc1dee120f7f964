//! The card of a model: a Markdown file with a `model-index` block, as the Hugging Face hub reads it.

mod faults;
mod index;
#[cfg(test)]
mod tests;

use askama::Template;
use laps_hub::registry::{Entry, Manifest, embedded_checkpoint};
use laps_model::models::config::ImageConfig;
use serde::Serialize;

use crate::{
    Error, Result,
    catalogue::Info,
    reproduce::Reproduction,
    tables::{RecallTable, Tables, markdown_table},
};

/// The page of the documentation that explains how results are computed.
const NUMBERS: &str = "docs/src/concepts/evaluation.md";

#[derive(Template)]
#[template(path = "card.md", escape = "none")]
struct Card<'a> {
    front: String,
    entry: &'a Entry,
    info: &'a Info,
    image: String,
    parameters: String,
    size: usize,
    recipe: String,
    checkpoint: Vec<String>,
    is_embedded: bool,
    tables: Vec<(&'static str, String)>,
    notes: Vec<String>,
    has_measured: bool,
    faults: Vec<String>,
    numbers: &'static str,
}

/// The card of `entry` with what `results` measured of it.
///
/// # Errors
/// If a result is not of this entry, or the files that are part of the program can not be read.
pub fn card(entry: &Entry, results: Vec<Reproduction>) -> Result<String> {
    for result in &results {
        let of_this = result.entry == entry.name && result.provenance.config_sha256 == entry.config_sha256;
        if !of_this {
            return Err(Error::Option {
                option: "RESULT",
                expected: format!("results of `{}` with the configuration {}", entry.name, entry.config_sha256),
                found: format!("one of `{}` with {}", result.entry, result.provenance.config_sha256),
            });
        }
    }
    let info = Info::new(entry, None)?;
    let has_measured = !results.is_empty();
    let folded = if has_measured { Tables::new(results.clone())? } else { Tables::published(entry)? };
    let table = |table: &RecallTable| {
        let name = table.protocol.name();
        (name, markdown_table(name, &table.groups))
    };
    let front = serde_yaml::to_string(&index::FrontMatter::new(entry, &results)).map_err(page_error)?;
    let recipe = serde_yaml::to_string(&Recipe { train: &entry.train }).map_err(page_error)?;
    let card = Card {
        front,
        entry,
        image: image(&entry.model.image),
        parameters: parameters(&info),
        size: entry.model.image.image_size(),
        recipe,
        checkpoint: checkpoint(entry)?,
        is_embedded: embedded_checkpoint(&entry.name).is_some(),
        tables: folded.tables.iter().map(table).collect(),
        notes: folded.markdown_notes(),
        has_measured,
        faults: faults::of(entry),
        numbers: NUMBERS,
        info: &info,
    };
    card.render().map_err(page_error)
}

#[derive(Serialize)]
struct Recipe<'a> {
    train: &'a laps_hub::registry::TrainConfig,
}

fn page_error(source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Page { source: source.into() }
}

fn image(config: &ImageConfig) -> String {
    match config {
        ImageConfig::Vit(vit) => format!(
            "ViT, {size} x {size} pixels in patches of {patch}, {layers} blocks of width {width}",
            size = vit.image_size,
            patch = vit.patch_size,
            layers = vit.num_hidden_layers,
            width = vit.hidden_size
        ),
        ImageConfig::Swin(swin) => format!(
            "Swin, {size} x {size} pixels in patches of {patch}, windows of {window}, stages of {depths:?} blocks from width {width}",
            size = swin.image_size,
            patch = swin.patch_size,
            window = swin.window_size,
            depths = swin.depths,
            width = swin.embed_dim
        ),
    }
}

/// Numbers in the parameters of each part.
fn parameters(info: &Info) -> String {
    let [image, text, alignment] = info.sizes;
    format!("{image} in the image encoder, {text} in the text encoder, {alignment} in the alignment")
}

/// Where the weights come from, and what may be done with them, a sentence each.
fn checkpoint(entry: &Entry) -> Result<Vec<String>> {
    if let Some(embedded) = embedded_checkpoint(&entry.name) {
        return Ok(vec![
            format!("Part of the program, sha256 `{}`: {}.", embedded.sha256(), embedded.note),
            "Licence: MIT or Apache-2.0, as the project; its data is drawn by the project too.".to_owned(),
        ]);
    }
    let Some(name) = &entry.checkpoint else {
        return Ok(vec!["None is published for this entry: weights are yours to train or to bring.".to_owned()]);
    };
    let Some(source) = Manifest::embedded()?.checkpoints.remove(name) else { return Ok(Vec::new()) };
    let hash = source.sha256.as_ref().map_or_else(
        || "Its authors publish no hash: the first fetch pins what came.".to_owned(),
        |hash| format!("Its sha256 is `{hash}`."),
    );
    let place = source.url().map_or_else(String::new, |url| format!(", published by the authors at <{url}>"));
    let licence = source.licence.as_ref().map_or_else(
        || "Licence: none is stated, for the weights or for the authors' code; what you may do with them is between you and the authors.".to_owned(),
        |licence| format!("Licence: {licence}."),
    );
    Ok(vec![format!("`{}`{place}.", source.file), hash, licence])
}
