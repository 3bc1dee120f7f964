//! `laps-zoo index`

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{ArgGroup, Args};
use laps::{Backends, EngineUsed, Model, Workload};
use laps_bench::{files::check_writable, progress::StageProgress};
use laps_files::{Progress, ProgressUnit};
use laps_model::array::Array;
use laps_search::{
    IndexDescription, IndexKind, IndexPrecision, IndexSummary, ModelUsed, SearchError, SearchEvaluation, Searcher,
    evaluate, index_captions, index_images, list_images, sidecar_captions,
};
use serde::Serialize;

use crate::{
    model::{ModelOptions, summary_line},
    ranking::{plain, table},
    report::{CommandStatus, print},
};

/// Maximum number of skipped images listed as text; the rest is counted. JSON lists all of them.
const LISTED: usize = 10;

/// Create or update a search index of images or captions
#[derive(Args)]
#[command(group = ArgGroup::new("input").required(true).args(["folder", "captions"]))]
pub(crate) struct IndexArgs {
    /// Folder of images, searched recursively
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Index the captions of this file, one per line, instead of images
    #[arg(long, value_name = "FILE")]
    captions: Option<PathBuf>,
    /// Index file; if it exists, unchanged images are not encoded again [default: NAME.index]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Precision of the stored embeddings: fp16 or fp32
    #[arg(long, default_value = "fp16")]
    precision: String,
    /// Measure how many of the best results a search finds, by number of candidates
    #[arg(long)]
    evaluate: bool,
    /// Queries for --evaluate: a file of captions, one per line, or for an index of captions a folder of images [default:
    /// the text file next to each image, `a.txt` for `a.jpg`]
    #[arg(long, value_name = "PATH", requires = "evaluate")]
    queries: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelOptions,
}

/// The output of `--json`.
#[derive(Serialize)]
struct IndexOutput<'a> {
    schema: u32,
    index: String,
    kind: IndexKind,
    model: &'a ModelUsed,
    engine: &'a EngineUsed,
    precision: IndexPrecision,
    #[serde(flatten)]
    summary: &'a IndexSummary,
    #[serde(skip_serializing_if = "Option::is_none")]
    evaluation: &'a Option<SearchEvaluation>,
}

impl IndexArgs {
    /// Whether the request can only be met with libtorch.
    pub(crate) fn needs_libtorch(&self) -> bool {
        self.model.needs_libtorch()
    }

    pub(crate) fn run(self, backends: Backends) -> Result<CommandStatus> {
        let precision = self.precision.parse::<IndexPrecision>().map_err(laps::Error::from)?;
        let (kind, source) = match (&self.folder, &self.captions) {
            (Some(folder), _) => (IndexKind::Images, folder),
            (None, Some(file)) => (IndexKind::Captions, file),
            // clap requires one of them.
            (None, None) => return Ok(CommandStatus::Success),
        };
        let out = self.out.clone().unwrap_or_else(|| default_name(source));
        check_writable(&out)?;
        let workload = match kind {
            IndexKind::Images => Workload::of(list_images(source)?.len()),
            IndexKind::Captions => Workload::of(lines(source)?.len()),
        };
        let texts = match kind {
            IndexKind::Images => Vec::new(),
            IndexKind::Captions => lines(source)?,
        };
        let queries = self.evaluate.then(|| queries(kind, source, self.queries.as_deref())).transpose()?;

        let (model, progress_bar) = self.model.open(backends, workload)?;
        let task = format!("encode {kind}");
        let progress = |count: usize| progress_bar.advance(&task, count as u64);
        let encoding = model.encoding(&progress);
        let description =
            IndexDescription::new(kind, model.used().clone(), *model.preprocessing(), &encoding.sizes, precision);
        let begin = |count: usize| progress_bar.begin(&task, 0, Some(count as u64), ProgressUnit::Items);
        let summary = match kind {
            IndexKind::Images => index_images(source, &out, description, &encoding, &begin)?,
            IndexKind::Captions => index_captions(&texts, source, &out, description, &encoding, &begin)?,
        };
        if summary.encoded + summary.skipped.len() > 0 {
            progress_bar.end(&task, &format!("{} {kind}", summary.encoded));
        }
        let evaluation = queries.map(|queries| measure(&model, progress_bar.as_ref(), &out, queries)).transpose()?;
        if self.json {
            let output = IndexOutput {
                schema: 1,
                index: out.display().to_string(),
                kind,
                model: model.used(),
                engine: model.engine(),
                precision,
                summary: &summary,
                evaluation: &evaluation,
            };
            print(&format!("{}\n", serde_json::to_string_pretty(&output)?))?;
        } else {
            let text = render(&summary, kind, &out);
            print(&format!(
                "{}\n{text}{}",
                summary_line(&model),
                evaluation.as_ref().map_or_else(String::new, recalls)
            ))?;
        }
        Ok(CommandStatus::Success)
    }
}

/// The default index name: `photos.index` for `some/photos` and for `some/photos.txt`.
fn default_name(source: &Path) -> PathBuf {
    let full = fs_err::canonicalize(source).unwrap_or_else(|_| source.to_owned());
    let name = if full.is_dir() { full.file_name() } else { full.file_stem() };
    let mut name = name.unwrap_or("images".as_ref()).to_owned();
    name.push(".index");
    name.into()
}

/// The captions of a file, without empty lines.
fn lines(path: &Path) -> Result<Vec<String>> {
    let rows = laps_data::rows(path).map_err(laps::Error::from)?;
    Ok(rows.into_iter().filter(|caption| !caption.is_empty()).collect())
}

/// Queries that an index is evaluated with.
enum IndexQueries {
    Captions(Vec<String>),
    Images(Vec<PathBuf>),
}

fn queries(kind: IndexKind, source: &Path, given: Option<&Path>) -> Result<IndexQueries> {
    let none = |path: &Path, expected: &str| SearchError::Empty {
        path: path.to_owned(),
        expected: expected.to_owned(),
        found: "none".to_owned(),
    };
    let queries = match (kind, given) {
        (IndexKind::Images, Some(path)) => IndexQueries::Captions(lines(path)?),
        (IndexKind::Images, None) => IndexQueries::Captions(sidecar_captions(&list_images(source)?)?),
        (IndexKind::Captions, Some(path)) => {
            IndexQueries::Images(list_images(path)?.into_iter().map(|(_, path)| path).collect())
        }
        (IndexKind::Captions, None) => {
            return Err(laps::Error::from(none(source, "a folder of images given as --queries")).into());
        }
    };
    if matches!(&queries, IndexQueries::Captions(captions) if captions.is_empty()) {
        let expected = "text files next to the images, or captions given as --queries";
        return Err(laps::Error::from(none(source, expected)).into());
    }
    Ok(queries)
}

fn measure(model: &Model, progress_bar: &dyn Progress, path: &Path, queries: IndexQueries) -> Result<SearchEvaluation> {
    let count = match &queries {
        IndexQueries::Captions(captions) => captions.len(),
        IndexQueries::Images(images) => images.len(),
    };
    let stage = StageProgress::begin(progress_bar, "encode queries", count);
    let progress = |count| stage.advance(count);
    let encoding = model.encoding(&progress);
    let embedded: Vec<Array> = match queries {
        IndexQueries::Captions(captions) => encoding.encode_captions(&captions)?,
        IndexQueries::Images(images) => encoding.encode_images(&images)?,
    };
    stage.end(&format!("{count} queries"));
    let index = laps_search::Index::open(path)?;
    let searcher = Searcher { index: &index, engine: model.similarity(), stop: model.stop() };
    let stage = StageProgress::begin(progress_bar, "compare all items", count);
    let evaluation = evaluate(&searcher, &embedded, &|count| stage.advance(count))?;
    stage.end(&format!("{count} queries"));
    Ok(evaluation)
}

fn render(summary: &IndexSummary, kind: IndexKind, out: &Path) -> String {
    let IndexSummary { items, encoded, kept, skipped } = summary;
    let mut text = format!("{items} {kind} in `{}`: {encoded} encoded, {kept} unchanged", out.display());
    text += &match skipped.len() {
        0 => "\n".to_owned(),
        count => format!(", {count} skipped\n"),
    };
    for skipped in skipped.iter().take(LISTED) {
        text += &format!("  skipped `{}`: {}\n", plain(&skipped.name), skipped.reason);
    }
    if skipped.len() > LISTED {
        text += &format!("  and {} more\n", skipped.len() - LISTED);
    }
    text
}

fn recalls(evaluation: &SearchEvaluation) -> String {
    let SearchEvaluation { queries, items, by_candidates } = evaluation;
    let rows = by_candidates.iter().map(|row| {
        let [r1, r5, r10] = [row.r1, row.r5, row.r10].map(|percent| format!("{percent:.1}"));
        [row.candidates.to_string(), r1, r5, r10]
    });
    let title =
        format!("\npercentage of the best 1, 5 and 10 of {items} by exact similarity that are among the candidates");
    format!("{title}, {queries} queries\n{}", table(["candidates", "best 1", "best 5", "best 10"], rows))
}
