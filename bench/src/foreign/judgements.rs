//! Judgements of the COCO test split: ECCV Caption, CxC, and the plausible matches of PMRP.
//!
//! The first two are read from the Python package `eccv-caption`, which is downloaded and not part of laps-zoo. It has ids
//! only: `<set>_image_to_caption.json` and `<set>_caption_to_image.json` map each judged id to the ids that are right, and
//! `coco_test_ids.npy` has the caption ids in the order of the published split. The authors of the package publish the
//! plausible matches in a Drive folder, as two files of the same format.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    io::Read,
    path::{Path, PathBuf},
};

use fs_err::File;
use laps_align::{JudgedQuery, Judgements};
use laps_data::Split;
use laps_files::DigestWriter;
use serde::{Deserialize, Serialize};
use zip::ZipArchive;

use super::{CAPTIONS_PER_IMAGE, arrays::npy_header};
use crate::{Error, Result};

/// Maximum size of a member in bytes; the largest has 514 kB.
const MAX_MEMBER_BYTES: u64 = 16 << 20;

/// Maximum size of a file of plausible matches in bytes; both together have more than 140 MB.
const MAX_MATCHES_BYTES: u64 = 1 << 28;

/// Plausible captions of each image, in the Drive folder of `eccv-caption`.
const PLAUSIBLE_CAPTIONS: &str = "pm_image_to_caption.json";

/// Plausible images of each caption, in the same folder.
const PLAUSIBLE_IMAGES: &str = "pm_caption_to_image.json";

/// A set of judgements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JudgementSet {
    /// ECCV Caption (Chun et al., ECCV 2022): judgements of 1,261 images and 1,332 captions.
    Eccv,
    /// Crisscrossed Captions (Parekh et al., EACL 2021): judgements of 5,000 images and 24,972 captions.
    Cxc,
    /// Plausible matches (Chun et al., CVPR 2021): images whose objects are of nearly the same classes, with their captions.
    /// The R-Precision by them is PMRP.
    Pmrp,
}

impl JudgementSet {
    /// The name in arguments, results and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Eccv => "eccv",
            Self::Cxc => "cxc",
            Self::Pmrp => "pmrp",
        }
    }
}

impl fmt::Display for JudgementSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The judgements to evaluate by, and the files that have them.
#[derive(Clone, Debug)]
pub struct JudgementRequest {
    /// The sets.
    pub sets: Vec<JudgementSet>,
    /// The wheel of the Python package `eccv-caption`, which has the ids of the split and all sets but
    /// [`JudgementSet::Pmrp`].
    pub package: PathBuf,
    /// The folder of `pm_image_to_caption.json` and `pm_caption_to_image.json`; needed for [`JudgementSet::Pmrp`] only.
    pub plausible_matches: Option<PathBuf>,
}

/// Right answers by id.
type Answers = BTreeMap<u64, Vec<u64>>;

/// The package, and where each id is in a matrix.
pub(super) struct JudgementFile<'a> {
    path: &'a Path,
    archive: ZipArchive<File>,
    rows: HashMap<u64, usize>,
    columns: HashMap<u64, usize>,
}

impl<'a> JudgementFile<'a> {
    /// Opens the package for a matrix of 5,000 x 25,000. The images are those of `split`, whose file names end in COCO ids,
    /// or else in the order of the published split. The captions of an image are in the order of their ids.
    ///
    /// # Errors
    /// [`Error::Foreign`] for a file that is not the package, and for images of another split.
    pub(super) fn open(path: &'a Path, split: Option<&Split>) -> Result<Self> {
        let file = File::open(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let archive = ZipArchive::new(file).map_err(|error| damaged(path, error.to_string()))?;
        let mut opened = Self { path, archive, rows: HashMap::new(), columns: HashMap::new() };
        let order = opened.caption_ids()?;
        let image_of = opened.answers("original_caption_to_image.json")?;
        let mut images = Vec::new();
        let mut captions: HashMap<u64, Vec<u64>> = HashMap::new();
        for caption in order {
            let Some([image]) = image_of.get(&caption).map(Vec::as_slice) else {
                return Err(damaged(path, format!("caption {caption} without its image")));
            };
            if !captions.contains_key(image) {
                images.push(*image);
            }
            captions.entry(*image).or_default().push(caption);
        }
        let names: Vec<&str> = split.iter().flat_map(|split| split.images()).map(|image| image.name.as_str()).collect();
        if !names.is_empty() {
            images = names.iter().map(|name| image_id(name).unwrap_or_default()).collect();
        }
        // Columns of the captions of each image.
        let mut columns_of: Vec<Vec<usize>> = vec![Vec::new(); images.len()];
        match split {
            Some(split) => {
                split.image_of().iter().enumerate().for_each(|(column, &row)| columns_of[row].push(column));
            }
            None => {
                for (row, columns) in columns_of.iter_mut().enumerate() {
                    columns.extend(CAPTIONS_PER_IMAGE * row..CAPTIONS_PER_IMAGE * (row + 1));
                }
            }
        }
        for (row, (image, columns)) in images.iter().zip(columns_of).enumerate() {
            let ids = captions.remove(image).filter(|ids| ids.len() == columns.len());
            let Some(mut ids) = ids else {
                return Err(Error::Foreign {
                    path: path.to_owned(),
                    expected: "the 5,000 images of the COCO test split, five captions each".to_owned(),
                    found: format!("`{}` in row {row}, {} captions", names.get(row).unwrap_or(&""), columns.len()),
                    hint: "judgements exist for the COCO test split only",
                });
            };
            ids.sort_unstable();
            opened.rows.insert(*image, row);
            opened.columns.extend(ids.into_iter().zip(columns));
        }
        Ok(opened)
    }

    /// Sizes of the matrix: images and captions.
    pub(super) fn sizes(&self) -> [usize; 2] {
        [self.rows.len(), self.columns.len()]
    }

    /// The judgements of a set of the package.
    ///
    /// # Errors
    /// [`Error::Foreign`] for a file that is not the package.
    pub(super) fn read(&mut self, set: JudgementSet) -> Result<Judgements> {
        let i2t = self.answers(&format!("{set}_image_to_caption.json"))?;
        let t2i = self.answers(&format!("{set}_caption_to_image.json"))?;
        let failed = |found| damaged(self.path, found);
        Ok(Judgements {
            i2t: judged(i2t, &self.rows, &self.columns).map_err(failed)?,
            t2i: judged(t2i, &self.columns, &self.rows).map_err(failed)?,
        })
    }

    /// The plausible matches in `folder`, and the SHA-256 of its two files, first the one with captions, one after the other.
    /// Queries without a match are left out, because their R-Precision is not defined.
    ///
    /// # Errors
    /// [`Error::Read`] and [`Error::Foreign`] for a file that is missing or cannot be used.
    pub(super) fn read_plausible_matches(&self, folder: &Path) -> Result<(Judgements, String)> {
        let mut digest = DigestWriter::sha256();
        let i2t = plausible_matches(&folder.join(PLAUSIBLE_CAPTIONS), &self.rows, &self.columns, &mut digest)?;
        let t2i = plausible_matches(&folder.join(PLAUSIBLE_IMAGES), &self.columns, &self.rows, &mut digest)?;
        Ok((Judgements { i2t, t2i }, digest.finish().sha256))
    }

    fn member(&mut self, name: &str) -> Result<Vec<u8>> {
        let member = self.archive.by_name(&format!("eccv_caption/data/{name}"));
        let member = member.map_err(|error| damaged(self.path, format!("`{name}`: {error}")))?;
        let mut bytes = Vec::new();
        let read = member.take(MAX_MEMBER_BYTES).read_to_end(&mut bytes);
        read.map_err(|error| damaged(self.path, format!("`{name}`: {error}")))?;
        Ok(bytes)
    }

    fn answers(&mut self, name: &str) -> Result<Answers> {
        let bytes = self.member(name)?;
        serde_json::from_slice(&bytes).map_err(|error| damaged(self.path, format!("`{name}`: {error}")))
    }

    /// The caption ids in the order of the published split.
    fn caption_ids(&mut self) -> Result<Vec<u64>> {
        let bytes = self.member("coco_test_ids.npy")?;
        npy_header(self.path, bytes.as_slice())?;
        let ids = npyz::NpyFile::new(bytes.as_slice()).and_then(|file| file.into_vec::<i64>());
        let ids = ids.map_err(|error| damaged(self.path, format!("`coco_test_ids.npy`: {error}")))?;
        Ok(ids.into_iter().map(i64::unsigned_abs).collect())
    }
}

/// Reads one file of plausible matches, and adds its bytes to `digest`.
fn plausible_matches(
    path: &Path,
    queries: &HashMap<u64, usize>,
    candidates: &HashMap<u64, usize>,
    digest: &mut DigestWriter,
) -> Result<Vec<JudgedQuery>> {
    let refuse = |found: String| Error::Foreign {
        path: path.to_owned(),
        expected: "plausible matches of the COCO test split: lists of ids by id, as JSON".to_owned(),
        found,
        hint: "download the file again (`laps-zoo data fetch pmrp` on the command line)",
    };
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(MAX_MATCHES_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_MATCHES_BYTES {
        return Err(refuse(format!("more than {MAX_MATCHES_BYTES} bytes")));
    }
    digest.update(&bytes);
    let mut answers: Answers = serde_json::from_slice(&bytes).map_err(|error| refuse(error.to_string()))?;
    drop(bytes);
    answers.retain(|_, right| !right.is_empty());
    judged(answers, queries, candidates).map_err(refuse)
}

/// The judged queries, in the order of the matrix. An answer outside the matrix is counted as missing. The error is a query
/// outside the matrix.
fn judged(
    answers: Answers,
    queries: &HashMap<u64, usize>,
    candidates: &HashMap<u64, usize>,
) -> Result<Vec<JudgedQuery>, String> {
    let mut judged = Vec::with_capacity(answers.len());
    for (id, mut right) in answers {
        let Some(&query) = queries.get(&id) else { return Err(format!("the unknown id {id}")) };
        right.sort_unstable();
        right.dedup();
        let positives: Vec<usize> = right.iter().filter_map(|id| candidates.get(id).copied()).collect();
        judged.push(JudgedQuery { query, missing: right.len() - positives.len(), positives });
    }
    judged.sort_by_key(|judged| judged.query);
    Ok(judged)
}

/// The id at the end of a file name such as `COCO_val2014_000000391895.jpg`.
fn image_id(name: &str) -> Option<u64> {
    let stem = Path::new(name).file_stem()?.to_str()?;
    stem.rsplit(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

fn damaged(path: &Path, found: String) -> Error {
    Error::Foreign {
        path: path.to_owned(),
        expected: "the wheel of the Python package `eccv-caption` 0.1.0".to_owned(),
        found,
        hint: "download the judgements again (`laps-zoo data fetch eccv` on the command line)",
    }
}

#[cfg(test)]
mod tests {
    use super::image_id;

    #[test]
    fn image_ids_are_the_last_digits_of_a_name() {
        assert_eq!(image_id("val2014/COCO_val2014_000000391895.jpg"), Some(391_895));
        assert_eq!(image_id("391895.jpg"), Some(391_895));
        assert_eq!(image_id("image.jpg"), None);
    }
}
