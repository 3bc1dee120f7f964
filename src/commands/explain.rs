//! `laps-zoo explain`

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use laps::{Backends, ExplainedPair, ExplanationDocument, Image, Workload};
use laps_align::similarity::TokenKind;
use laps_bench::{
    explanation,
    files::{check_writable, write_atomic},
};
use laps_data::image;

use crate::{
    model::{ModelOptions, summary_line},
    ranking::{plain, table},
    report::{CommandStatus, print},
};

/// Show which patches of an image match which words of a caption
#[derive(Args)]
pub(crate) struct ExplainArgs {
    /// Image file
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
    /// Caption
    #[arg(long, value_name = "TEXT")]
    caption: String,
    /// Print JSON with every number
    #[arg(long)]
    json: bool,
    /// Write FILE.html (a page), FILE.png (the image under the map of its patches) or FILE.json; repeatable
    #[arg(long, value_name = "FILE")]
    out: Vec<PathBuf>,
    /// Word piece whose map a PNG shows [default: the whole caption]
    #[arg(long, value_name = "PIECE")]
    word: Option<String>,
    #[command(flatten)]
    model: ModelOptions,
}

enum OutputKind {
    Html,
    Png,
    Json,
}

impl ExplainArgs {
    /// Whether the request can only be met with libtorch.
    pub(crate) fn needs_libtorch(&self) -> bool {
        self.model.needs_libtorch()
    }

    pub(crate) fn run(self, backends: Backends) -> Result<CommandStatus> {
        let Self { image: path, caption, json, out, word, model } = self;
        let outputs = out.iter().map(|path| Ok((path, kind(path)?))).collect::<Result<Vec<_>>>()?;
        outputs.iter().try_for_each(|(path, _)| check_writable(path))?;
        let caption = caption.trim();
        let (model, _) = model.open(backends, Workload::of(1))?;
        let pixels = image::read(&path).map_err(|source| laps::Error::Image { path: path.clone(), source })?.image;
        let pair = model.explain(Image::Pixels(pixels.clone()), caption)?;
        let document =
            ExplanationDocument::new(model.used(), model.engine(), path.display().to_string(), caption, &pair);
        let word = word.map(|word| find(&document, &word)).transpose()?;
        for (path, kind) in outputs {
            match kind {
                OutputKind::Html => write_atomic(path, explanation::page(&document, &pixels)?.as_bytes())?,
                OutputKind::Png => write_atomic(path, &explanation::overlay(&document, &pixels, word)?)?,
                OutputKind::Json => write_atomic(path, explanation::json(&document)?.as_bytes())?,
            }
        }
        match json {
            true => print(&explanation::json(&document)?)?,
            false => print(&format!("{}\n\n{}\n{}", summary_line(&model), plain(caption), render(&pair)))?,
        }
        Ok(CommandStatus::Success)
    }
}

fn kind(path: &Path) -> Result<OutputKind> {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
    Ok(match extension.as_deref() {
        Some("html") => OutputKind::Html,
        Some("png") => OutputKind::Png,
        Some("json") => OutputKind::Json,
        _ => {
            return Err(laps_bench::Error::Argument {
                argument: "--out",
                expected: "a file name that ends in .html, .png or .json".to_owned(),
                found: path.display().to_string(),
            }
            .into());
        }
    })
}

/// Index of the first word piece `text`.
fn find(document: &ExplanationDocument<'_>, text: &str) -> Result<usize> {
    let mut words = document.words.iter().map(|word| word.text);
    let index = words.position(|word| word == text);
    Ok(index.ok_or_else(|| laps_bench::Error::Argument {
        argument: "--word",
        expected: format!(
            "one of the word pieces {}",
            document.words.iter().map(|word| word.text).collect::<Vec<_>>().join(", ")
        ),
        found: text.to_owned(),
    })?)
}

fn render(pair: &ExplainedPair) -> String {
    let ExplainedPair { words, grid, explanation } = pair;
    let first_group =
        usize::from(matches!(explanation.tokens.first().map(|token| &token.kind), Some(TokenKind::Class)));
    let token = |index: usize| match explanation.tokens[index].kind {
        TokenKind::Class => "class token".to_owned(),
        TokenKind::Group(_) => format!("group {}", index + 1 - first_group),
        TokenKind::Fused(_) => "fused patch".to_owned(),
    };
    let place = |patches: &[f64]| {
        let strongest = (0..patches.len()).max_by(|&a, &b| patches[a].total_cmp(&patches[b]));
        strongest.filter(|&patch| patches[patch] > 0.0).map_or_else(
            || "-".to_owned(),
            |patch| format!("row {}, column {}", patch / grid[1] + 1, patch % grid[1] + 1),
        )
    };
    let rows = words.iter().zip(&explanation.words).map(|(text, word)| {
        [
            plain(text),
            format!("{:.4}", word.similarity),
            token(word.token),
            format!("{:.4}", word.spatial_similarity),
            token(word.spatial_token),
            place(&word.patches),
        ]
    });
    let kept = explanation.patches.iter().filter(|patch| patch.kept).count();
    format!(
        "similarity {:.4}, of it {:.4} by the class token; {kept} of {} patches kept ({} x {})\n{}",
        explanation.similarity,
        explanation.class_token,
        explanation.patches.len(),
        grid[0],
        grid[1],
        table(["word", "similarity", "matches", "by patches", "matches", "strongest patch"], rows)
    )
}
