//! Evaluation of what other programs computed: a similarity matrix, or embeddings and a head.
//!
//! [`evaluate`] gives a [`Reproduction`], whose provenance says that the model is foreign and which files it came from.

mod arrays;
mod embeddings;
mod head;
mod judgements;

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use laps_align::{CaptionImages, Evaluation, Protocol, Scores, judged_metrics};
use laps_data::Split;

use crate::{
    Error, Result,
    machine::peak_memory,
    publish::mteb,
    reproduce::{
        EvaluatedModel, ForeignModel, JudgedEvaluation, Provenance, QueryFailures, RankCounts, Reproduction, SCHEMA,
        SourceFile, StageTime, Verdict,
    },
    trec::{self, RunIds, RunMatrix},
};
use arrays::ForeignMatrix;
pub use embeddings::Embeddings;
pub use head::HeadSource;
use judgements::JudgementFile;
pub use judgements::{JudgementRequest, JudgementSet};

/// Captions per image, unless a data set says otherwise.
pub const CAPTIONS_PER_IMAGE: usize = 5;

/// Split of a result without a data set.
const UNKNOWN_SPLIT: &str = "unknown";

/// The options of [`evaluate`].
#[derive(Debug)]
pub struct ForeignRequest {
    /// Name of the model; `None` for the name of the first file without its extension.
    pub name: Option<String>,
    /// The input.
    pub input: ForeignInput,
    /// The data set, which says which captions belong to which image; `None` for five consecutive captions per image.
    pub split: Option<Split>,
    /// The protocols; empty for all that fit the sizes.
    pub protocols: Vec<Protocol>,
    /// Judgements of the COCO test split.
    pub judgements: Option<JudgementRequest>,
    /// File that receives the similarities as safetensors, key `sims`, images x captions.
    pub sims: Option<PathBuf>,
    /// File that receives the best candidates of each query as a run file of TREC.
    pub run: Option<PathBuf>,
    /// Folder that receives the result files of MTEB, see [`mteb`]; needs a data set.
    pub mteb: Option<PathBuf>,
}

/// The files of another program.
#[derive(Clone, Debug)]
pub enum ForeignInput {
    /// A similarity matrix: `.npy`, `.npz` or `.safetensors`, or a run file of TREC: `.run` or `.trec`.
    Similarities {
        /// The file.
        path: PathBuf,
        /// Whether its rows are captions.
        transposed: bool,
    },
    /// Embeddings of images and captions, and the head that compares them.
    Embeddings {
        /// One safetensors file, or two `.npy` files: images and captions.
        paths: Vec<PathBuf>,
        /// The head; None compares pooled vectors by their cosine.
        head: Option<HeadSource>,
    },
}

/// Evaluates the input.
///
/// # Errors
/// [`Error::Foreign`] for a file that cannot be used: another format, another shape, a transposed matrix; values that are
/// not finite; a head that does not fit the embeddings.
pub fn evaluate(request: &ForeignRequest) -> Result<Reproduction> {
    let began = Instant::now();
    let mut notes = Vec::new();
    let pairing = match &request.split {
        Some(split) => Some(CaptionImages::new(split.images().len(), split.image_of())?),
        None => None,
    };
    if request.mteb.is_some() {
        let Some(split) = &request.split else {
            return Err(Error::Mteb {
                expected: "a data set, whose captions can be compared with those of MTEB".to_owned(),
                found: "none".to_owned(),
            });
        };
        let protocols = if request.protocols.is_empty() { &[Protocol::F30k] } else { request.protocols.as_slice() };
        mteb::check(split, protocols)?;
    }
    let (matrix, paths, head) = match &request.input {
        ForeignInput::Similarities { path, .. } if is_run(path) => {
            (read_run_matrix(request, path, &mut notes)?, vec![path.clone()], None)
        }
        ForeignInput::Similarities { path, transposed } => {
            (arrays::read_matrix(path, *transposed, pairing.as_ref())?, vec![path.clone()], None)
        }
        ForeignInput::Embeddings { paths, head } => {
            let embeddings = Embeddings::read(paths)?;
            let (matrix, used) = head::similarities(&embeddings, head.as_ref(), &mut notes)?;
            (matrix, paths.clone(), Some(used))
        }
    };
    let path = paths.first().map_or(Path::new(""), PathBuf::as_path);
    // The files are hashed while the matrix is ranked.
    let (files, ranked) = rayon::join(
        || paths.iter().map(|path| SourceFile::of(path)).collect::<Result<Vec<_>>>(),
        || rank(request, &matrix, path, pairing),
    );
    let name = request.name.clone().unwrap_or_else(|| {
        path.file_stem().map_or_else(|| "foreign".to_owned(), |name| name.to_string_lossy().into_owned())
    });
    let split = request.split.as_ref().map_or(UNKNOWN_SPLIT, Split::name);
    let sizes = [matrix.images(), matrix.captions()];
    let ranked = ranked?;
    notes.extend(ranked.notes);
    let mut result = foreign_result(&name, split, sizes, ForeignModel { files: files?, head });
    result.ranks = ranked.evaluations.iter().map(RankCounts::of).collect();
    result.evaluations = ranked.evaluations;
    result.failures = ranked.failures;
    result.judged = ranked.judged;
    result.notes = notes;
    result.stages = vec![StageTime {
        name: "evaluate".into(),
        items: sizes[0] * sizes[1],
        unit: "pairs".into(),
        seconds: began.elapsed().as_secs_f64(),
    }];
    result.peak_memory_bytes = peak_memory();
    Ok(result)
}

/// A result of a foreign model, without evaluations.
pub(crate) fn foreign_result(
    name: &str,
    split: &str,
    [images, captions]: [usize; 2],
    foreign: ForeignModel,
) -> Reproduction {
    let similarity = match &foreign.head {
        Some(head) => format!("head {} of laps-zoo", head.name),
        None => "read from the file".to_owned(),
    };
    Reproduction {
        schema: SCHEMA,
        entry: name.to_owned(),
        split: split.to_owned(),
        limit: None,
        images,
        captions,
        evaluations: Vec::new(),
        ranks: Vec::new(),
        failures: QueryFailures::default(),
        comparisons: Vec::new(),
        verdict: Verdict::NotCompared { reason: "the model is foreign".to_owned() },
        notes: Vec::new(),
        stages: Vec::new(),
        time: None,
        peak_memory_bytes: None,
        provenance: Provenance::here(EvaluatedModel::Foreign { foreign }, similarity),
        judged: Vec::new(),
        intervals: Vec::new(),
        audit: Vec::new(),
        precisions: Vec::new(),
    }
}

/// Whether a file is a run file by its name.
fn is_run(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "run" || extension == "trec")
}

/// The matrix of a run file. Without a data set, images are numbered and have [`CAPTIONS_PER_IMAGE`] captions.
fn read_run_matrix(request: &ForeignRequest, path: &Path, notes: &mut Vec<String>) -> Result<ForeignMatrix> {
    let ids = match &request.split {
        Some(split) => RunIds::of(split),
        None => RunIds::numbered(&CaptionImages::uniform(trec::count_images(path)?, CAPTIONS_PER_IMAGE)?),
    };
    let RunMatrix { values, note } = trec::read_run(path, &ids)?;
    notes.extend(note);
    let [images, captions] = ids.sizes();
    Ok(ForeignMatrix::Held { images, captions, values })
}

/// The results of ranking a matrix.
#[derive(Default)]
struct RankedMatrix {
    evaluations: Vec<Evaluation>,
    failures: QueryFailures,
    judged: Vec<JudgedEvaluation>,
    notes: Vec<String>,
}

fn rank(
    request: &ForeignRequest,
    matrix: &ForeignMatrix,
    path: &Path,
    pairing: Option<CaptionImages>,
) -> Result<RankedMatrix> {
    let mut ranked = RankedMatrix { notes: matrix.inspect(path)?, ..RankedMatrix::default() };
    if let Some(out) = &request.sims {
        matrix.write(out)?;
    }
    let pairing = match pairing {
        Some(pairing) => pairing,
        None if matrix.captions() == CAPTIONS_PER_IMAGE * matrix.images() => {
            CaptionImages::uniform(matrix.images(), CAPTIONS_PER_IMAGE)?
        }
        None if request.sims.is_some() => {
            ranked.notes.push(format!(
                "no recalls: {} captions are not {CAPTIONS_PER_IMAGE} for each of {} images, and no data set says which \
                 belong together",
                matrix.captions(),
                matrix.images()
            ));
            return Ok(ranked);
        }
        None => {
            return Err(Error::Foreign {
                path: path.to_owned(),
                expected: format!(
                    "{} captions, {CAPTIONS_PER_IMAGE} for each of {} images",
                    CAPTIONS_PER_IMAGE * matrix.images(),
                    matrix.images()
                ),
                found: format!("{} captions", matrix.captions()),
                hint: "name the data set that says which captions belong to which image",
            });
        }
    };
    let scores = matrix.scores()?;
    if let Some(run) = &request.run {
        let ids = request.split.as_ref().map_or_else(|| RunIds::numbered(&pairing), RunIds::of);
        trec::write_run(run, &scores, &ids, request.name.as_deref().unwrap_or("laps-zoo"))?;
    }
    if let Some(folder) = &request.mteb {
        mteb::write(folder, &scores, &pairing, None)?;
    }
    ranked.evaluations = evaluate_all(request, &scores, &pairing)?;
    if let Some(split) = &request.split {
        ranked.failures = QueryFailures::find(&scores, &pairing, split, &ranked.evaluations)?;
    }
    if let Some(judgements) = &request.judgements {
        ranked.judged = judge(&scores, judgements, request.split.as_ref(), path)?;
    }
    Ok(ranked)
}

fn judge(
    scores: &Scores<'_>,
    request: &JudgementRequest,
    split: Option<&Split>,
    path: &Path,
) -> Result<Vec<JudgedEvaluation>> {
    let mut file = JudgementFile::open(&request.package, split)?;
    let [images, captions] = file.sizes();
    if [scores.images(), scores.captions()] != [images, captions] {
        return Err(Error::Foreign {
            path: path.to_owned(),
            expected: format!("the {images} images x {captions} captions of the COCO test split"),
            found: format!("{} x {}", scores.images(), scores.captions()),
            hint: "judgements exist for the COCO test split only",
        });
    }
    let package_sha256 = SourceFile::of(&request.package)?.sha256;
    let judge = |&set: &JudgementSet| {
        let (judgements, sha256) = match (set, &request.plausible_matches) {
            (JudgementSet::Pmrp, Some(folder)) => file.read_plausible_matches(folder)?,
            (JudgementSet::Pmrp, None) => {
                return Err(Error::Foreign {
                    path: request.package.clone(),
                    expected: "a folder of plausible matches, which the package does not have".to_owned(),
                    found: "none".to_owned(),
                    hint: "name the folder of `pm_image_to_caption.json` and `pm_caption_to_image.json`",
                });
            }
            (JudgementSet::Eccv | JudgementSet::Cxc, _) => (file.read(set)?, package_sha256.clone()),
        };
        Ok(JudgedEvaluation { set, sha256, metrics: judged_metrics(scores, &judgements)? })
    };
    request.sets.iter().map(judge).collect()
}

fn evaluate_all(request: &ForeignRequest, scores: &Scores<'_>, pairing: &CaptionImages) -> Result<Vec<Evaluation>> {
    let named = !request.protocols.is_empty();
    let protocols = if named { request.protocols.clone() } else { Protocol::ALL.to_vec() };
    let mut evaluations = Vec::new();
    for protocol in protocols {
        // Without a named protocol, the whole matrix is evaluated once; folds only where the sizes are COCO's.
        let fits = match protocol {
            Protocol::F30k => pairing.images() != 5000,
            Protocol::Coco5k | Protocol::Coco1k => pairing.images() == 5000,
        };
        if named || fits {
            evaluations.push(laps_align::evaluate(scores, pairing, protocol)?);
        }
    }
    Ok(evaluations)
}

/// Groups of equal rows or columns, as a note.
fn describe_duplicates(what: &str, mut groups: Vec<Vec<usize>>) -> Option<String> {
    groups.retain(|rows| rows.len() > 1);
    groups.sort_unstable();
    let first = groups.first()?;
    let listed: Vec<String> = first.iter().take(4).map(ToString::to_string).collect();
    let more = if first.len() > listed.len() { ", ..." } else { "" };
    let count: usize = groups.iter().map(|group| group.len() - 1).sum();
    Some(format!(
        "{what} that repeat an earlier one bit for bit: {count}; the first group, counted from 0, is {}{more}",
        listed.join(", ")
    ))
}
