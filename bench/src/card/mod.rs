//! Model cards: Markdown with a `model-index` block in its front matter, as the Hugging Face Hub expects.

mod index;
mod known_issues;
#[cfg(test)]
mod tests;

use askama::Template;
use laps_hub::registry::{Entry, Manifest, embedded_checkpoint};
use laps_model::models::config::ImageConfig;
use serde::Serialize;

use crate::{
    Error, Result,
    catalogue::EntryInfo,
    publish::HubDataSet,
    reproduce::Reproduction,
    tables::{RecallTable, RecallTables, markdown_table},
};

/// The page of the documentation that explains how recalls are computed.
const EVALUATION_PAGE: &str = "docs/src/concepts/evaluation.md";

#[derive(Template)]
#[template(path = "card.md", escape = "none")]
struct Card<'a> {
    front_matter: String,
    entry: &'a Entry,
    info: &'a EntryInfo,
    image: String,
    parameters: String,
    size: usize,
    recipe: String,
    checkpoint: Vec<String>,
    is_embedded: bool,
    tables: Vec<(&'static str, String)>,
    notes: Vec<String>,
    has_measured: bool,
    known_issues: Vec<String>,
    evaluation_page: &'static str,
}

/// The model card of `entry`, with the recalls that `results` measured. Foreign models are in its tables for comparison,
/// and not in its index. `hub_data` is the data set of the hub that the results are of; without it, the one of a built-in
/// entry.
///
/// # Errors
/// A result of a different entry or configuration.
pub fn card(entry: &Entry, results: Vec<Reproduction>, hub_data: Option<&HubDataSet>) -> Result<String> {
    for result in &results {
        let Some(used) = result.provenance.entry() else { continue };
        if (&result.entry, &used.config_sha256) != (&entry.name, &entry.config_sha256) {
            return Err(Error::Argument {
                argument: "results",
                expected: format!("results of `{}` with the configuration {}", entry.name, entry.config_sha256),
                found: format!("a result of `{}` with {}", result.entry, used.config_sha256),
            });
        }
    }
    let info = EntryInfo::new(entry, None)?;
    let has_measured = !results.is_empty();
    let recalls = if has_measured { RecallTables::new(results.clone())? } else { RecallTables::published(entry)? };
    let table = |table: &RecallTable| {
        let name = table.protocol.name();
        (name, markdown_table(name, &table.groups, recalls.style()))
    };
    let front_matter =
        serde_yaml::to_string(&index::FrontMatter::new(entry, &results, hub_data)).map_err(template_error)?;
    let recipe = serde_yaml::to_string(&Recipe { train: &entry.train }).map_err(template_error)?;
    let card = Card {
        front_matter,
        entry,
        image: image(&entry.model.image),
        parameters: parameters(&info),
        size: entry.model.image.image_size(),
        recipe,
        checkpoint: checkpoint(entry)?,
        is_embedded: embedded_checkpoint(&entry.name).is_some(),
        tables: recalls.tables.iter().map(table).collect(),
        notes: recalls.markdown_notes(),
        has_measured,
        known_issues: known_issues::known_issues(entry),
        evaluation_page: EVALUATION_PAGE,
        info: &info,
    };
    card.render().map_err(template_error)
}

#[derive(Serialize)]
struct Recipe<'a> {
    train: &'a laps_hub::registry::TrainConfig,
}

fn template_error(source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Template { source: source.into() }
}

fn image(config: &ImageConfig) -> String {
    let vit = |name, size: usize, patch: usize, layers: usize, width: usize| {
        format!("{name}, {size} x {size} pixels, patch size {patch}, {layers} blocks, hidden size {width}")
    };
    match config {
        ImageConfig::Vit(config) => {
            vit("ViT", config.image_size, config.patch_size, config.num_hidden_layers, config.hidden_size)
        }
        ImageConfig::ClipVisionModel(config) => {
            vit("CLIP ViT", config.image_size, config.patch_size, config.num_hidden_layers, config.hidden_size)
        }
        ImageConfig::Swin(swin) => format!(
            "Swin, {size} x {size} pixels, patch size {patch}, window size {window}, stages of {depths:?} blocks, embedding size {width}",
            size = swin.image_size,
            patch = swin.patch_size,
            window = swin.window_size,
            depths = swin.depths,
            width = swin.embed_dim
        ),
    }
}

/// Number of parameters of each part.
fn parameters(info: &EntryInfo) -> String {
    let [image, text, alignment] = info.sizes;
    format!("{image} in the image encoder, {text} in the text encoder, {alignment} in the alignment")
}

/// Source and licence of the weights, one sentence each.
fn checkpoint(entry: &Entry) -> Result<Vec<String>> {
    if let Some(embedded) = embedded_checkpoint(&entry.name) {
        return Ok(vec![
            format!("Included in laps-zoo, sha256 `{}`: {}.", embedded.sha256(), embedded.note),
            "Licence: MIT or Apache-2.0, as laps-zoo, which also generates the training data.".to_owned(),
        ]);
    }
    let Some(name) = &entry.checkpoint else {
        return Ok(vec!["No checkpoint is published for this entry: train one, or use your own.".to_owned()]);
    };
    let Some(source) = Manifest::embedded()?.checkpoints.remove(name) else { return Ok(Vec::new()) };
    let hash = source.sha256.as_ref().map_or_else(
        || "The authors publish no hash: the first download pins the file.".to_owned(),
        |hash| format!("sha256 `{hash}`."),
    );
    let url = source.url().map_or_else(String::new, |url| format!(", published by the authors at <{url}>"));
    let licence = source.licence.as_ref().map_or_else(
        || {
            "Licence: none stated, for the weights or for the authors' code; ask the authors before you use them."
                .to_owned()
        },
        |licence| format!("Licence: {licence}."),
    );
    Ok(vec![format!("`{}`{url}.", source.file), hash, licence])
}
