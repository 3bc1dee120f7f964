//! A look at a whole data set: every split and every image file, with all that is wrong instead of the first of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
};

use super::{DataError, Split, captions::image_names, image::ImageError, preflight, splits};
use crate::SplitSize;

/// What was found of a data set.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// Its splits, by name.
    pub splits: Vec<SplitSurvey>,
    /// Splits that should be there and are not.
    pub absent: Vec<String>,
    /// Files of the image folder that no split knows, by their path in it, sorted.
    pub unexpected: Vec<String>,
}

/// What was found of one split.
#[derive(Clone, Debug, Default)]
pub struct SplitSurvey {
    /// Its name.
    pub name: String,
    /// Images that its captions are of.
    pub images: usize,
    /// Its captions.
    pub captions: usize,
    /// What it has elsewhere, where that is known.
    pub known: Option<SplitSize>,
    /// Images that are not there, by name.
    pub missing: Vec<String>,
    /// Images that can not be decoded, with the reason.
    pub unreadable: Vec<(String, String)>,
    /// Images that are decoded in part only, with the decoder's warning.
    pub damaged: Vec<(String, String)>,
    /// The hash that results carry, see [`preflight`]; None where an image can not be used.
    pub sha256: Option<String>,
}

impl SplitSurvey {
    /// Whether it can be evaluated and has the known size.
    pub fn is_good(&self) -> bool {
        let same = |known: SplitSize| (known.images, known.captions) == (self.images, self.captions);
        self.sha256.is_some() && self.known.is_none_or(same)
    }
}

impl Survey {
    /// Whether every split is there, whole and of the known size. Unexpected files do no harm.
    pub fn is_good(&self) -> bool {
        self.absent.is_empty() && self.splits.iter().all(SplitSurvey::is_good)
    }
}

/// Reads and decodes everything in `captions` and `images` on `threads` threads; `known` has the splits that should be
/// there. `progress` is told each image, from any thread.
///
/// # Errors
/// [`DataError`] for caption files that can not be used, and for an image folder that can not be read.
pub fn survey(
    captions: &Path,
    images: &Path,
    known: &BTreeMap<String, SplitSize>,
    threads: usize,
    progress: impl Fn() + Sync,
) -> Result<Survey, DataError> {
    let mut names = splits(captions);
    names.sort();
    let mut survey =
        Survey { absent: known.keys().filter(|name| !names.contains(name)).cloned().collect(), ..Survey::default() };
    for name in names {
        let split = Split::open(captions, &name)?;
        let mut found = SplitSurvey {
            images: split.images().len(),
            captions: split.captions().len(),
            known: known.get(&name).copied(),
            name,
            ..SplitSurvey::default()
        };
        match preflight(&split, images, threads, |_| progress()) {
            Ok(seen) => {
                found.sha256 = Some(seen.sha256);
                found.damaged =
                    seen.damaged.into_iter().map(|damage| (damage.file.image.name, damage.warning)).collect();
            }
            Err(DataError::Images { faults, .. }) => {
                for fault in faults {
                    let name = fault.path.strip_prefix(images).unwrap_or(&fault.path).display().to_string();
                    match fault.cause {
                        ImageError::Read(error) if error.kind() == io::ErrorKind::NotFound => found.missing.push(name),
                        cause => found.unreadable.push((name, cause.to_string())),
                    }
                }
            }
            Err(error) => return Err(error),
        }
        survey.splits.push(found);
    }
    let wanted = image_names(captions)?;
    walk(images, Path::new(""), &wanted, &mut survey.unexpected)?;
    survey.unexpected.sort();
    Ok(survey)
}

/// Endings of what fetching leaves beside images.
const OWN: [&str; 5] = [".zip", ".unpacked", ".part", ".part.json", ".lock"];

fn walk(root: &Path, below: &Path, wanted: &BTreeSet<String>, unexpected: &mut Vec<String>) -> Result<(), DataError> {
    let folder = root.join(below);
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs_err::read_dir(&folder)? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        // A link to a folder is not followed: it may lead round in a circle.
        if entry.file_type()?.is_dir() {
            walk(root, &path, wanted, unexpected)?;
            continue;
        }
        let name = path.to_string_lossy().into_owned();
        if !wanted.contains(&name) && !OWN.iter().any(|ending| name.ends_with(ending)) {
            unexpected.push(name);
        }
    }
    Ok(())
}
