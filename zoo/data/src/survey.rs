//! Checks a whole data set and reports every fault, not only the first.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};

use super::{
    CaptionFault, DataError, FileLine, Split, Tokenizer, captions::image_paths, check_images, hash_data,
    image::ImageError, splits,
};
use crate::SplitSize;
use laps_files::path_to_text;

/// State of a data set.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// Its splits, by name.
    pub splits: Vec<SplitSurvey>,
    /// Known splits that are missing.
    pub absent: Vec<String>,
    /// Files of the image folder that the mapping does not name, sorted.
    pub unexpected: Vec<String>,
    /// Folders below the image folder that cannot be read, with the reason. Images in them are faults of their split.
    pub unreadable_folders: Vec<(String, String)>,
}

/// State of one split.
#[derive(Clone, Debug, Default)]
pub struct SplitSurvey {
    /// Name of the split.
    pub name: String,
    /// Number of images.
    pub images: usize,
    /// Number of captions.
    pub captions: usize,
    /// The published size, if known.
    pub known: Option<SplitSize>,
    /// Captions that cannot be used.
    pub unusable_captions: Vec<CaptionFault>,
    /// Images that are missing.
    pub missing: Vec<SurveyedImage>,
    /// Images that cannot be decoded, with the reason.
    pub unreadable: Vec<SurveyedImage>,
    /// Images that are decoded in part, with the decoder's warning.
    pub damaged: Vec<SurveyedImage>,
    /// Why its caption files cannot be used.
    pub fault: Option<String>,
    /// Hash of the data as in results, see [`hash_data`]. `None` if an image or the captions cannot be used.
    pub sha256: Option<String>,
}

/// An image with a fault.
#[derive(Clone, Debug)]
pub struct SurveyedImage {
    /// Its path relative to the image folder, as [`path_to_text`] writes it.
    pub name: String,
    /// The first line of the file of image ids with it.
    pub line: FileLine,
    /// The fault.
    pub reason: String,
}

impl SplitSurvey {
    /// Whether the split can be evaluated and has the published size.
    pub fn is_good(&self) -> bool {
        let same = |known: SplitSize| (known.images, known.captions) == (self.images, self.captions);
        self.sha256.is_some() && self.known.is_none_or(same)
    }
}

impl Survey {
    /// Whether every known split exists and is good. Unexpected files are harmless.
    pub fn is_good(&self) -> bool {
        self.absent.is_empty() && self.splits.iter().all(SplitSurvey::is_good)
    }
}

/// The tokenizer and size of a model that captions have to fit.
#[derive(Clone, Copy)]
pub struct CaptionLimit<'a> {
    /// The tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Maximum number of tokens of a caption.
    pub max_tokens: usize,
}

/// Reads and decodes everything in `captions` and `images` on `threads` threads. `known` are the published sizes by split.
/// Without `limit`, captions of any length can be used. `progress` is called for each image, from any thread.
///
/// # Errors
/// [`DataError::Threads`], and [`DataError`] if the mapping cannot be read but no split uses it.
pub fn survey(
    captions: &Path,
    images: &Path,
    known: &BTreeMap<String, SplitSize>,
    limit: Option<CaptionLimit<'_>>,
    threads: usize,
    progress: impl Fn() + Sync,
) -> Result<Survey, DataError> {
    let mut names = splits(captions);
    names.sort();
    let mut survey =
        Survey { absent: known.keys().filter(|name| !names.contains(name)).cloned().collect(), ..Survey::default() };
    for name in names {
        let split = match Split::open(captions, &name) {
            Ok(split) => split,
            Err(error) => {
                survey.splits.push(SplitSurvey { name, fault: Some(error.to_string()), ..SplitSurvey::default() });
                continue;
            }
        };
        let mut found = SplitSurvey {
            images: split.images().len(),
            captions: split.captions().len(),
            known: known.get(&name).copied(),
            name,
            ..SplitSurvey::default()
        };
        let checked = match limit {
            Some(CaptionLimit { tokenizer, max_tokens }) => split.tokenize(tokenizer, max_tokens).map(|_| ()),
            None => split.check_captions(),
        };
        match checked {
            Ok(()) => {}
            Err(DataError::Unusable(data)) => found.unusable_captions = data.caption_faults,
            Err(error) => return Err(error),
        }
        let surveyed = |path: &Path, line: FileLine, reason: String| {
            let name = path_to_text(path.strip_prefix(images).unwrap_or(path));
            SurveyedImage { name, line, reason }
        };
        match check_images(&split.image_files(images), threads, &progress) {
            Ok(damaged) => {
                let damaged = damaged.into_iter();
                found.damaged =
                    damaged.map(|damage| surveyed(&damage.file.path, damage.file.image.line, damage.warning)).collect();
                if found.unusable_captions.is_empty() {
                    found.sha256 = Some(hash_data(&split, images, threads, || ())?.sha256);
                }
            }
            Err(DataError::Unusable(data)) => {
                for fault in data.image_faults {
                    let image = surveyed(&fault.path, fault.line, fault.cause.to_string());
                    match fault.cause {
                        ImageError::Read(error) if error.kind() == io::ErrorKind::NotFound => found.missing.push(image),
                        _ => found.unreadable.push(image),
                    }
                }
            }
            Err(error) => return Err(error),
        }
        survey.splits.push(found);
    }
    match image_paths(captions) {
        Ok(wanted) => walk(images, Path::new(""), &wanted, &mut survey),
        // The splits have this fault already.
        Err(_) if survey.splits.iter().any(|split| split.fault.is_some()) => {}
        Err(error) => return Err(error),
    }
    survey.unexpected.sort();
    survey.unreadable_folders.sort();
    Ok(survey)
}

/// Suffixes of files that downloads leave in the image folder.
const DOWNLOAD_SUFFIXES: [&str; 5] = [".zip", ".unpacked", ".part", ".part.json", ".lock"];

fn walk(root: &Path, below: &Path, wanted: &BTreeSet<PathBuf>, survey: &mut Survey) {
    let folder = root.join(below);
    if !folder.is_dir() {
        return;
    }
    // Without `fs_err`, because the list names the folder already.
    let entries = std::fs::read_dir(&folder).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
    let entries = match entries {
        Ok(entries) => entries,
        Err(error) => return survey.unreadable_folders.push((path_to_text(below), error.to_string())),
    };
    for entry in entries {
        let path = below.join(entry.file_name());
        // Links to folders are not followed, because they may form a cycle.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(root, &path, wanted, survey);
            continue;
        }
        let name = path_to_text(&path);
        if !wanted.contains(&path) && !DOWNLOAD_SUFFIXES.iter().any(|ending| name.ends_with(ending)) {
            survey.unexpected.push(name);
        }
    }
}
