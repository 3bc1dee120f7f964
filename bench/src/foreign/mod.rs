//! Evaluation of what other programs computed: a similarity matrix, or embeddings and a head.
//!
//! [`evaluate`] gives a [`ForeignEvaluation`], which says that the model is foreign and which file it came from.

mod arrays;
mod embeddings;
mod head;
mod render;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use laps_align::{CaptionImages, Evaluation, Protocol, Scores};
use serde::{Deserialize, Serialize};

use crate::{Error, Result, machine::Machine};
use arrays::Matrix;
pub use embeddings::Embeddings;
pub use head::HeadSource;
pub use render::render;

/// Version of the JSON of a [`ForeignEvaluation`].
pub const SCHEMA: u32 = 1;

/// Captions an image, unless something else says how they belong together.
pub const CAPTIONS_PER_IMAGE: usize = 5;

/// What to evaluate.
#[derive(Clone, Debug)]
pub struct ForeignRequest {
    /// The input.
    pub input: ForeignInput,
    /// Captions of each image: from a data set, or None for five consecutive captions an image.
    pub pairing: Option<CaptionImages>,
    /// The protocols; none for all that fit the sizes.
    pub protocols: Vec<Protocol>,
    /// File that receives the similarities as safetensors, key `sims`, images x captions.
    pub sims: Option<PathBuf>,
}

/// What other programs made.
#[derive(Clone, Debug)]
pub enum ForeignInput {
    /// A similarity matrix: `.npy`, `.npz` or `.safetensors`.
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

/// An evaluation of a foreign model.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ForeignEvaluation {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Always `foreign`: the embeddings or similarities come from another program.
    pub model: String,
    /// The files, with their hashes.
    pub sources: Vec<SourceFile>,
    /// The head that compared the embeddings. None for a matrix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<String>,
    /// Rows of the matrix.
    pub images: usize,
    /// Columns of the matrix.
    pub captions: usize,
    /// Recalls by protocol. Empty if it is not known which captions belong to which image.
    pub evaluations: Vec<Evaluation>,
    /// Remarks for the reader.
    pub notes: Vec<String>,
    /// Version of laps-zoo.
    pub version: String,
    /// Commit of laps-zoo, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The machine.
    pub machine: Machine,
}

/// A file that was read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SourceFile {
    /// Its path.
    pub file: String,
    /// SHA-256 of its content, in hexadecimal digits.
    pub sha256: String,
}

/// Evaluates the input.
///
/// # Errors
/// [`Error::Foreign`] for a file that cannot be used: another format, another shape, a transposed matrix; values that are
/// not finite; a head that does not fit the embeddings.
pub fn evaluate(request: &ForeignRequest) -> Result<ForeignEvaluation> {
    let mut notes = Vec::new();
    let (matrix, paths, head) = match &request.input {
        ForeignInput::Similarities { path, transposed } => {
            (arrays::read_matrix(path, *transposed, request.pairing.as_ref())?, vec![path.clone()], None)
        }
        ForeignInput::Embeddings { paths, head } => {
            let embeddings = Embeddings::read(paths)?;
            let (matrix, name) = head::similarities(&embeddings, head.as_ref(), &mut notes)?;
            (matrix, paths.clone(), Some(name))
        }
    };
    let path = paths.first().map_or(Path::new(""), PathBuf::as_path);
    notes.extend(matrix.inspect(path)?);
    if let Some(out) = &request.sims {
        matrix.write(out)?;
    }
    let pairing = match &request.pairing {
        Some(pairing) => Some(pairing.clone()),
        None if matrix.captions() == CAPTIONS_PER_IMAGE * matrix.images() => {
            Some(CaptionImages::uniform(matrix.images(), CAPTIONS_PER_IMAGE)?)
        }
        None if request.sims.is_some() => {
            notes.push(format!(
                "no recalls: {} captions are not {CAPTIONS_PER_IMAGE} for each of {} images, and no data set says which \
                 belong together",
                matrix.captions(),
                matrix.images()
            ));
            None
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
    let evaluations = pairing.map_or(Ok(Vec::new()), |pairing| evaluate_all(request, &matrix, &pairing))?;
    Ok(ForeignEvaluation {
        schema: SCHEMA,
        model: "foreign".to_owned(),
        sources: paths.iter().map(|path| source_file(path)).collect::<Result<_>>()?,
        head,
        images: matrix.images(),
        captions: matrix.captions(),
        evaluations,
        notes,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: crate::commit().map(str::to_owned),
        machine: Machine::here(),
    })
}

fn evaluate_all(request: &ForeignRequest, matrix: &Matrix, pairing: &CaptionImages) -> Result<Vec<Evaluation>> {
    let scores: Scores<'_> = matrix.scores()?;
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
            evaluations.push(laps_align::evaluate(&scores, pairing, protocol)?);
        }
    }
    Ok(evaluations)
}

fn source_file(path: &Path) -> Result<SourceFile> {
    let digest = laps_files::digest_file(path, &laps_files::ExpectedDigest::default());
    let sha256 = digest.map_err(|source| Error::Read { path: path.to_owned(), source })?.sha256;
    Ok(SourceFile { file: laps_files::path_to_text(path), sha256 })
}

/// Groups of equal rows, as a note.
fn describe_duplicates(what: &str, rows: HashMap<[u8; 32], Vec<usize>>) -> Option<String> {
    let mut groups: Vec<Vec<usize>> = rows.into_values().filter(|rows| rows.len() > 1).collect();
    groups.sort_unstable();
    let first = groups.first()?;
    let listed: Vec<String> = first.iter().take(4).map(ToString::to_string).collect();
    let more = if first.len() > listed.len() { ", ..." } else { "" };
    let count: usize = groups.iter().map(|group| group.len() - 1).sum();
    Some(format!(
        "{count} {what} are duplicates of others, counted from 0: the first group is {}{more}",
        listed.join(", ")
    ))
}
