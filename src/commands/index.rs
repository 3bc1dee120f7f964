//! `laps-zoo index`

use std::path::{Path, PathBuf};

use anyhow::Result;
use bench::{engine::EngineUsed, files::check_writable};
use clap::{ArgGroup, Args};
use serde::Serialize;
use zoo::{
    array::Array,
    search::{
        Description, Evaluation, Kind, ModelUsed, Precision, SearchError, Searcher, Summary, captions_beside, evaluate,
        images_in, index_captions, index_images,
    },
};

use crate::{
    model::{Choice, Model},
    ranking::{plain, table},
    report::{Finding, print},
};

/// Images that can not be used which the text lists; the rest is a number, and JSON has them all.
const LISTED: usize = 10;

/// Make an index of images or captions to search in, or bring one up to date
#[derive(Args)]
#[command(group = ArgGroup::new("input").required(true).args(["folder", "captions"]))]
pub(crate) struct Index {
    /// Folder of images, with the folders in it
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Captions instead, one a line, to be found by images
    #[arg(long, value_name = "FILE")]
    captions: Option<PathBuf>,
    /// The index; in one that is there, images that did not change are not encoded again [default: NAME.index]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Numbers to store embeddings in: fp16, fp32
    #[arg(long, default_value = "fp16")]
    precision: String,
    /// Say how many of the best results a search finds, by its number of candidates
    #[arg(long)]
    evaluate: bool,
    /// What to evaluate with: captions, one a line, or for an index of captions a folder of images [default: the text files
    /// beside the images, `a.txt` beside `a.jpg`]
    #[arg(long, value_name = "PATH", requires = "evaluate")]
    queries: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: Choice,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Made<'a> {
    schema: u32,
    index: String,
    kind: Kind,
    model: &'a ModelUsed,
    engine: &'a EngineUsed,
    precision: Precision,
    #[serde(flatten)]
    summary: &'a Summary,
    #[serde(skip_serializing_if = "Option::is_none")]
    evaluation: &'a Option<Evaluation>,
}

impl Index {
    pub(crate) fn run(self) -> Result<Finding> {
        let precision = self.precision.parse::<Precision>().map_err(zoo::Error::from)?;
        let (kind, source) = match (&self.folder, &self.captions) {
            (Some(folder), _) => (Kind::Images, folder),
            (None, Some(file)) => (Kind::Captions, file),
            // One of them is required.
            (None, None) => return Ok(Finding::Done),
        };
        let out = self.out.clone().unwrap_or_else(|| default_name(source));
        check_writable(&out)?;
        let texts = match kind {
            Kind::Images => images_in(source).map(|_| Vec::new())?,
            Kind::Captions => lines(source)?,
        };
        let queries = self.evaluate.then(|| queries(kind, source, self.queries.as_deref())).transpose()?;

        let model = self.model.open()?;
        let progress = |count| model.progress.advance(count);
        let encoding = model.encoding(&progress);
        let description = Description::new(kind, model.used.clone(), (model.preprocessing, &encoding.sizes), precision);
        let begin = |count| model.progress.begin(&format!("encode {kind}"), count);
        let summary = match kind {
            Kind::Images => index_images(source, &out, description, &encoding, &begin)?,
            Kind::Captions => index_captions(&texts, source, &out, description, &encoding, &begin)?,
        };
        if summary.encoded + summary.skipped.len() > 0 {
            model.progress.end(&format!("{} {kind}", summary.encoded));
        }
        let evaluation = queries.map(|queries| measure(&model, &out, queries)).transpose()?;
        if self.json {
            let made = Made {
                schema: 1,
                index: out.display().to_string(),
                kind,
                model: &model.used,
                engine: &model.engine,
                precision,
                summary: &summary,
                evaluation: &evaluation,
            };
            print(&format!("{}\n", serde_json::to_string_pretty(&made)?))?;
        } else {
            let text = render(&summary, kind, &out);
            print(&format!("{}\n{text}{}", model.line(), evaluation.as_ref().map_or_else(String::new, recalls)))?;
        }
        Ok(Finding::Done)
    }
}

/// `photos.index` for `some/photos` and for `some/photos.txt`.
fn default_name(source: &Path) -> PathBuf {
    let full = fs_err::canonicalize(source).unwrap_or_else(|_| source.to_owned());
    let name = if full.is_dir() { full.file_name() } else { full.file_stem() };
    let mut name = name.unwrap_or("images".as_ref()).to_owned();
    name.push(".index");
    name.into()
}

/// The captions of a file; empty lines are left out.
fn lines(path: &Path) -> Result<Vec<String>> {
    let rows = zoo::data::rows(path).map_err(zoo::Error::from)?;
    Ok(rows.into_iter().filter(|caption| !caption.is_empty()).collect())
}

/// What an index is evaluated with.
enum Queries {
    Captions(Vec<String>),
    Images(Vec<PathBuf>),
}

fn queries(kind: Kind, source: &Path, given: Option<&Path>) -> Result<Queries> {
    let none = |path: &Path, expected: &str| SearchError::Empty {
        path: path.to_owned(),
        expected: expected.to_owned(),
        found: "none".to_owned(),
    };
    let queries = match (kind, given) {
        (Kind::Images, Some(path)) => Queries::Captions(lines(path)?),
        (Kind::Images, None) => Queries::Captions(captions_beside(&images_in(source)?)?),
        (Kind::Captions, Some(path)) => Queries::Images(images_in(path)?.into_iter().map(|(_, path)| path).collect()),
        (Kind::Captions, None) => {
            return Err(zoo::Error::from(none(source, "a folder of images given as --queries")).into());
        }
    };
    if matches!(&queries, Queries::Captions(captions) if captions.is_empty()) {
        let expected = "text files beside the images, or captions given as --queries";
        return Err(zoo::Error::from(none(source, expected)).into());
    }
    Ok(queries)
}

fn measure(model: &Model, path: &Path, queries: Queries) -> Result<Evaluation> {
    let progress = |count| model.progress.advance(count);
    let encoding = model.encoding(&progress);
    let count = match &queries {
        Queries::Captions(captions) => captions.len(),
        Queries::Images(images) => images.len(),
    };
    model.progress.begin("encode queries", count);
    let embedded: Vec<Array> = match queries {
        Queries::Captions(captions) => encoding.captions_held(&captions)?,
        Queries::Images(images) => encoding.images_held(&images)?,
    };
    model.progress.end(&format!("{count} queries"));
    let index = zoo::search::Index::open(path)?;
    let searcher = Searcher { index: &index, engine: &model.similarity, stop: &model.stop };
    model.progress.begin("compare with all", count);
    let evaluation = evaluate(&searcher, &embedded, &progress)?;
    model.progress.end(&format!("{count} queries"));
    Ok(evaluation)
}

fn render(summary: &Summary, kind: Kind, out: &Path) -> String {
    let Summary { items, encoded, kept, skipped } = summary;
    let mut text = format!("{items} {kind} in `{}`: {encoded} encoded, {kept} kept", out.display());
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

fn recalls(evaluation: &Evaluation) -> String {
    let Evaluation { queries, items, short_cuts } = evaluation;
    let rows = short_cuts.iter().map(|row| {
        let [r1, r5, r10] = [row.r1, row.r5, row.r10].map(|percent| format!("{percent:.1}"));
        [row.candidates.to_string(), r1, r5, r10]
    });
    let title =
        format!("\nof the best 1, 5 and 10 of {items} by exact similarity, found among the candidates, in percent");
    format!("{title}, {queries} queries\n{}", table(["candidates", "best 1", "best 5", "best 10"], rows))
}
