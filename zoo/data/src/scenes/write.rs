//! Writes a drawn data set.

use std::{collections::BTreeMap, io, path::Path, process};

use laps_files::{DigestWriter, IoError, TemporaryFolder};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{DrawnConfig, DrawnSplit, PIXELS, SceneError, groups, raster, vocabulary};
use crate::{Error, Result, image::png_of_pixels};

/// Increased whenever the same configuration gives other bytes.
const EDITION: u32 = 1;
/// Name of the file that describes the folder.
const STAMP: &str = "drawn.json";

/// Result of [`write()`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrawOutcome {
    /// The folder already had the data set.
    Unchanged,
    /// The data set was drawn.
    Written,
}

/// Contents of [`STAMP`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    edition: u32,
    drawn: DrawnConfig,
    splits: Vec<DrawnSplit>,
    /// SHA-256 of all other files.
    sha256: String,
}

/// Draws the splits `wanted` into `folder`: `captions/{split}_{ids,caps}.txt` with five lines per picture,
/// `captions/id_mapping.json`, `images/*.png` and `vocab.txt`. The files of a split do not depend on the other
/// splits.
///
/// The folder is complete or absent. A folder that already has these splits, unmodified, is kept. A folder with other drawn
/// splits is replaced.
///
/// # Errors
/// [`SceneError::Foreign`] if the folder has other files.
pub fn write(folder: &Path, config: &DrawnConfig, wanted: &[DrawnSplit]) -> Result<DrawOutcome> {
    let found = FolderContents::read(folder)?;
    let mut splits: Vec<DrawnSplit> = DrawnSplit::ALL.into_iter().filter(|split| wanted.contains(split)).collect();
    if let FolderContents::Drawn(stamp) = &found
        && (stamp.edition, &stamp.drawn) == (EDITION, config)
    {
        let intact = digest(folder).is_ok_and(|sha256| sha256 == stamp.sha256);
        if intact && splits.iter().all(|split| stamp.splits.contains(split)) {
            return Ok(DrawOutcome::Unchanged);
        }
        splits = DrawnSplit::ALL
            .into_iter()
            .filter(|split| splits.contains(split) || stamp.splits.contains(split))
            .collect();
    }

    let parent = match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs_err::create_dir_all(parent).map_err(|source| io_error("create", parent, source))?;
    let draft = temporary_folder(folder, "part")?;
    fill(draft.path(), config, &splits)?;
    let stamp = Stamp { edition: EDITION, drawn: *config, splits, sha256: digest(draft.path())? };
    let text = serde_json::to_string_pretty(&stamp).map_err(|error| io_error("write", folder, error.into()))?;
    save(&draft.path().join(STAMP), text.as_bytes())?;

    let old = temporary_folder(folder, "old.part")?;
    if matches!(found, FolderContents::Drawn(_)) {
        rename(folder, old.path())?;
    }
    if let Err(error) = rename(draft.path(), folder) {
        // Another process may have written the same data set first.
        return match FolderContents::read(folder)? {
            FolderContents::Drawn(theirs) if theirs == stamp => Ok(DrawOutcome::Unchanged),
            _ => Err(error),
        };
    }
    Ok(DrawOutcome::Written)
}

/// Content of the target folder.
enum FolderContents {
    Nothing,
    Drawn(Stamp),
}

impl FolderContents {
    fn read(folder: &Path) -> Result<Self> {
        let foreign = |found: String| Error::from(SceneError::Foreign { path: folder.to_owned(), found });
        let entries = match fs_err::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::Nothing),
            Err(error) => return Err(io_error("read", folder, error)),
        };
        let mut empty = true;
        for entry in entries {
            let entry = entry.map_err(|source| io_error("read", folder, source))?;
            empty = false;
            let name = entry.file_name().to_string_lossy().into_owned();
            if ![STAMP, "captions", "images", "vocab.txt"].contains(&name.as_str()) {
                return Err(foreign(name));
            }
        }
        if empty {
            return Ok(Self::Nothing);
        }
        let stamp = fs_err::read(folder.join(STAMP)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        stamp.map(Self::Drawn).ok_or_else(|| foreign(format!("files without `{STAMP}`")))
    }
}

/// A folder next to `folder` that is removed when it is dropped. What a killed process left there is removed now.
fn temporary_folder(folder: &Path, suffix: &str) -> Result<TemporaryFolder> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let path = folder.with_file_name(format!(".{name}.{}.{suffix}", process::id()));
    match fs_err::remove_dir_all(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", &path, error)),
        _ => Ok(TemporaryFolder::claim(path)),
    }
}

fn fill(folder: &Path, config: &DrawnConfig, splits: &[DrawnSplit]) -> Result<()> {
    let (captions, images) = (folder.join("captions"), folder.join("images"));
    for folder in [&captions, &images] {
        fs_err::create_dir_all(folder).map_err(|source| io_error("create", folder, source))?;
    }
    let mut names = BTreeMap::new();
    for &split in splits {
        // Ids count through the splits in their order, drawn or not.
        let before = DrawnSplit::ALL.into_iter().filter(|&other| other < split);
        let first: u128 = before.map(|other| config.count(other) as u128).sum();
        let drawn = groups::draw(config, split)?;
        let name = |index: usize| format!("{split}_{index:05}.png");
        drawn.par_iter().enumerate().try_for_each(|(index, drawn)| -> Result<()> {
            let file = png_of_pixels(&raster::draw(&drawn.scene), PIXELS, PIXELS).map_err(SceneError::Encode)?;
            save(&images.join(name(index)), &file)
        })?;
        let (mut ids, mut texts) = (String::new(), String::new());
        for (index, drawn) in drawn.iter().enumerate() {
            let id = first + index as u128;
            for caption in &drawn.captions {
                ids.push_str(&format!("{id}\n"));
                texts.push_str(caption);
                texts.push('\n');
            }
            names.insert(id, name(index));
        }
        save(&captions.join(format!("{split}_ids.txt")), ids.as_bytes())?;
        save(&captions.join(format!("{split}_caps.txt")), texts.as_bytes())?;
    }
    let lines: Vec<String> = names.iter().map(|(id, name)| format!("\"{id}\": \"{name}\"")).collect();
    save(&captions.join("id_mapping.json"), format!("{{{}}}\n", lines.join(", ")).as_bytes())?;
    save(&folder.join("vocab.txt"), (vocabulary().join("\n") + "\n").as_bytes())
}

/// SHA-256 of the names, sizes and bytes of all files except the stamp, sorted by name.
fn digest(folder: &Path) -> Result<String> {
    let mut files = Vec::new();
    for part in ["captions", "images"] {
        for entry in fs_err::read_dir(folder.join(part)).map_err(|source| io_error("read", folder, source))? {
            let entry = entry.map_err(|source| io_error("read", folder, source))?;
            files.push(format!("{part}/{}", entry.file_name().to_string_lossy()));
        }
    }
    files.push("vocab.txt".to_owned());
    files.sort_unstable();
    let mut sha256 = DigestWriter::sha256();
    for name in files {
        let path = folder.join(&name);
        let bytes = fs_err::read(&path).map_err(|source| io_error("read", &path, source))?;
        sha256.update(format!("{name}\n{}\n", bytes.len()).as_bytes());
        sha256.update(&bytes);
    }
    Ok(sha256.finish().sha256)
}

fn save(path: &Path, bytes: &[u8]) -> Result<()> {
    fs_err::write(path, bytes).map_err(|source| io_error("write", path, source))
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs_err::rename(from, to).map_err(|source| io_error("rename", from, source))
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Io(IoError::new(action, path, source))
}
