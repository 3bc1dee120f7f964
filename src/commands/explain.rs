//! `laps-zoo explain`

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use anyhow::Result;
use clap::Args;
use laps::{Backends, ExplainedPair, ExplanationDocument, Image, Model, Workload};
use laps_align::similarity::TokenKind;
use laps_bench::{
    explanation,
    faithfulness::{CaptionedImage, Curve, faithfulness},
    files::{check_writable, write_atomic},
};
use laps_data::{Split, image, scenes};
use laps_files::{Progress, path_to_text};
use laps_hub::registry;

use crate::{
    model::{ModelOptions, summary_line},
    ranking::{plain, table},
    report::{CommandStatus, print, print_summary},
};

/// Show which patches of an image match which words of a caption
#[derive(Args)]
pub(crate) struct ExplainArgs {
    /// Image file
    #[arg(value_name = "IMAGE", required_unless_present_any = ["batch", "faithfulness"], requires = "caption")]
    image: Option<PathBuf>,
    /// Caption
    #[arg(long, value_name = "TEXT", requires = "image")]
    caption: Option<String>,
    /// Explain every image of a split with each of its captions; prints the JSON of each pair as a line
    #[arg(long, conflicts_with_all = ["image", "out", "word", "json"])]
    batch: bool,
    /// Measure on a split whether the patches that an explanation names matter to the similarity
    #[arg(long, conflicts_with_all = ["image", "out", "word", "batch"])]
    faithfulness: bool,
    /// With --batch and --faithfulness: folder of the data set [default: the drawn scenes of the entry]
    #[arg(long, value_name = "DIR", conflicts_with = "image")]
    data: Option<PathBuf>,
    /// With --batch and --faithfulness: split [default: the entry's test split]
    #[arg(long, conflicts_with = "image")]
    split: Option<String>,
    /// With --batch and --faithfulness: only the first N images
    #[arg(long, value_name = "N", conflicts_with = "image")]
    limit: Option<NonZeroUsize>,
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
        let Self { image, caption, batch: _, faithfulness, data, split, limit, json, out, word, model } = self;
        let (Some(path), Some(caption)) = (image, caption) else {
            let entry = model.entry.clone();
            let workload = limit.map_or(Workload::Many, |limit| Workload::of(limit.get()));
            // First: the threads of the model are set before anything else uses threads.
            let (model, progress) = model.open(backends, workload)?;
            let images = captioned_images(entry.as_deref(), data.as_deref(), split.as_deref(), limit)?;
            return match faithfulness {
                true => print_faithfulness(&model, &images, json, progress.as_ref()),
                false => print_batch(&model, &images),
            };
        };
        let outputs = out.iter().map(|path| Ok((path, kind(path)?))).collect::<Result<Vec<_>>>()?;
        outputs.iter().try_for_each(|(path, _)| check_writable(path))?;
        let caption = caption.trim();
        let (model, _) = model.open(backends, Workload::of(1))?;
        let pixels = image::read(&path).map_err(|source| laps::Error::Image { path: path.clone(), source })?.image;
        let pair = model.explain(Image::Pixels(pixels.clone()), caption)?;
        let document = ExplanationDocument::new(model.used(), model.engine(), path_to_text(&path), caption, &pair);
        let word = word.map(|word| find(&document, &word)).transpose()?;
        for (path, kind) in outputs {
            match kind {
                OutputKind::Html => write_atomic(path, explanation::page(&document, &pixels)?.as_bytes())?,
                OutputKind::Png => write_atomic(path, &explanation::overlay(&document, &pixels, word)?)?,
                OutputKind::Json => write_atomic(path, explanation::json(&document)?.as_bytes())?,
            }
        }
        let summary = match json {
            true => explanation::json(&document)?,
            false => format!("{}\n\n{}\n{}", summary_line(&model), plain(caption), render(&pair)),
        };
        print_summary(&out, &summary)?;
        Ok(CommandStatus::Success)
    }
}

/// The images of a split with their captions and, if they are drawn, their objects.
fn captioned_images(
    entry: Option<&str>,
    data: Option<&Path>,
    split: Option<&str>,
    limit: Option<NonZeroUsize>,
) -> Result<Vec<CaptionedImage>> {
    let name = entry.ok_or_else(|| laps_bench::Error::Argument {
        argument: "--entry",
        expected: "the entry whose data is explained".to_owned(),
        found: "none".to_owned(),
    })?;
    let entry = registry::find(name)?;
    let split_name = split.unwrap_or(&entry.data.test);
    let paths = laps::embedded::data_paths(&entry, data, Some(split_name))?;
    let mut split = Split::open(&paths.captions, split_name)?;
    if let Some(limit) = limit {
        split = split.limit(limit);
    }
    let drawn_split = scenes::DrawnSplit::ALL.into_iter().find(|known| known.to_string() == split_name);
    let mut objects = match (data, &entry.data.drawn, drawn_split) {
        (None, Some(drawn), Some(split)) => scenes::objects(drawn, split).map_err(laps::Error::from)?,
        _ => Vec::new(),
    }
    .into_iter();
    let mut captions = vec![Vec::new(); split.images().len()];
    for (caption, &image) in split.captions().iter().zip(split.image_of()) {
        captions[image].push(caption.clone());
    }
    let files = split.image_files(&paths.images).into_iter().zip(captions);
    Ok(files
        .map(|(file, captions)| CaptionedImage {
            path: file.path,
            captions,
            objects: objects.next().unwrap_or_default(),
        })
        .collect())
}

fn print_batch(model: &Model, images: &[CaptionedImage]) -> Result<CommandStatus> {
    for CaptionedImage { path, captions, .. } in images {
        let read = image::read(path).map_err(|source| laps::Error::Image { path: path.clone(), source })?;
        for caption in captions {
            let pair = model.explain(Image::Pixels(read.image.clone()), caption)?;
            let name = path_to_text(path);
            let document = ExplanationDocument::new(model.used(), model.engine(), name, caption, &pair);
            print(&format!("{}\n", serde_json::to_string(&document)?))?;
        }
    }
    Ok(CommandStatus::Success)
}

fn print_faithfulness(
    model: &Model,
    images: &[CaptionedImage],
    json: bool,
    progress: &dyn Progress,
) -> Result<CommandStatus> {
    /// Seed of the random orders.
    const SEED: u64 = 1;
    let measured = faithfulness(model, images, SEED, progress)?;
    if json {
        print(&format!("{}\n", serde_json::to_string_pretty(&measured)?))?;
        return Ok(CommandStatus::Success);
    }
    let curve = |curve: &Curve, label: &str| {
        [format!("{:.4}", curve.explained), format!("{:.4}", curve.random), label.to_owned()]
    };
    let mut rows = vec![
        curve(&measured.deletion, "mean similarity while patches are removed (lower is better)"),
        curve(&measured.insertion, "mean similarity while patches are put in (higher is better)"),
    ];
    if let Some(nouns) = measured.nouns {
        let percent = |value: f64| format!("{value:.1} %");
        let label = format!("share of the maps of {} nouns on their objects", nouns.count);
        rows.push([percent(nouns.on_object), percent(nouns.area), label]);
        let label = "nouns whose strongest patch shows their object".to_owned();
        rows.push([percent(nouns.pointing), percent(nouns.pointing_random), label]);
    }
    let steps = measured.deletion.steps.iter().zip(&measured.insertion.steps).map(|(removed, put_in)| {
        let [a, b, c, d] = [removed.explained, removed.random, put_in.explained, put_in.random]
            .map(|similarity| format!("{similarity:.4}"));
        [a, b, c, d, format!("{} %", removed.percent)]
    });
    let steps = table(["removed: explained", "random", "put in: explained", "random", "share of the patches"], steps);
    let measures = table(["explained", "random", "measure"], rows);
    let note = format!("{} images", measured.images);
    print(&format!("{}\n{note}\n\n{measures}\nsimilarity by step\n{steps}", summary_line(model)))?;
    Ok(CommandStatus::Success)
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
        TokenKind::Patch(patch) => format!("row {}, column {}", patch / grid[1] + 1, patch % grid[1] + 1),
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
