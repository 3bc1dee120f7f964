//! Data in the layouts of other projects, imported into the cache.

use std::path::{Path, PathBuf};

use laps_data::{
    DataError,
    sources::{ImageTransfer, Imported, Source, SourceKind, import},
};
use laps_files::{IoError, TemporaryFolder, cache};

use crate::Result;

/// File name of the description of an imported folder; written last.
const DESCRIPTION: &str = "source.json";

/// Caption files and images of a source, in the layout of LAPS.
#[derive(Clone, Debug)]
pub struct SourceFolders {
    /// Folder of the caption files.
    pub captions: PathBuf,
    /// Folder of the images: the one of the source, or one in the cache for images inside of Parquet and tar files.
    pub images: PathBuf,
    /// The imported contents; `None` for the layouts that are used as they are.
    pub imported: Option<Imported>,
}

/// The folders of `source`. It is imported into the cache unless that was done before and no file has changed.
///
/// # Errors
/// Errors of the source, and of the cache folder and the [`cache::private_places`] that take its place.
pub fn cached(source: &Source) -> Result<SourceFolders> {
    let name = format!("source-{}", &source.identity().map_err(laps_data::Error::from)?[..16]);
    let place =
        cache::folder().and_then(|folder| Ok((TemporaryFolder::create_in(&folder).map_err(cannot_create)?, folder)));
    let place = place.or_else(|error| {
        let private = |folder: laps_files::Result<PathBuf>| {
            let folder = folder.ok()?;
            Some((TemporaryFolder::create_in(&folder).ok()?, folder))
        };
        cache::private_places().find_map(private).ok_or(error)
    });
    let (draft, folder) = place?;
    let folder = folder.join(name);
    if let Some(found) = read(&folder) {
        return Ok(folders(source, &folder, found));
    }
    let imported = import(source, draft.path(), ImageTransfer::Keep).map_err(laps_data::Error::from)?;
    let text = serde_json::to_string_pretty(&imported).map_err(|error| DataError::Read(error.into()))?;
    fs_err::write(draft.path().join(DESCRIPTION), text).map_err(DataError::Read)?;
    match fs_err::rename(draft.path(), &folder) {
        Ok(()) => draft.keep(),
        // Another process imported the same files first.
        Err(_) if read(&folder).is_some() => {}
        Err(error) => return Err(DataError::Read(error).into()),
    }
    Ok(folders(source, &folder, imported))
}

/// The folders of the data `root` in the layout `kind`, with the usual names of files. Its test split is `test`.
pub fn folders_of(root: &Path, kind: SourceKind) -> Result<SourceFolders> {
    if kind.is_native() {
        let nested = root.join("captions");
        let captions = if nested.is_dir() { nested } else { root.to_owned() };
        let images = match kind {
            SourceKind::Authors => Source::authors_images(&captions),
            _ => root.join("images"),
        };
        return Ok(SourceFolders { captions, images, imported: None });
    }
    cached(&Source::below(kind, root, &[], None, None).map_err(laps_data::Error::from)?)
}

fn read(folder: &Path) -> Option<Imported> {
    serde_json::from_slice(&fs_err::read(folder.join(DESCRIPTION)).ok()?).ok()
}

fn folders(source: &Source, folder: &Path, imported: Imported) -> SourceFolders {
    let images = if imported.has_images { folder.join("images") } else { source.images.clone() };
    SourceFolders { captions: folder.join("captions"), images, imported: Some(imported) }
}

fn cannot_create(source: std::io::Error) -> laps_files::Error {
    laps_files::Error::Io(IoError::new("create", "a folder in the cache", source))
}
