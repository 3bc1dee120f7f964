//! Files of this machine, read as if they came from a server.

use std::{
    io::{Seek, SeekFrom},
    path::{Path, PathBuf},
};

use fs_err::File;

use super::{
    FetchError,
    body::{Opened, Resume, Source},
};
use laps_files::Expected;

/// A file of a mirror or of another program's cache.
pub(super) struct FolderFile {
    pub(super) path: PathBuf,
    /// The commit that it is of, where that is known.
    pub(super) revision: Option<String>,
}

impl Source for FolderFile {
    fn label(&self) -> String {
        format!("file://{}", self.path.display())
    }

    fn is_local(&self) -> bool {
        true
    }

    fn open(&mut self, resume: Option<&Resume>) -> Result<Opened, FetchError> {
        Ok(Opened { revision: self.revision.clone(), ..open(&self.path, resume)? })
    }
}

/// Opens the file at `path`.
pub(super) fn open(path: &Path, resume: Option<&Resume>) -> Result<Opened, FetchError> {
    let failed = |source| FetchError::io("read", path, source);
    let mut file = File::open(path).map_err(failed)?;
    let total = file.metadata().map_err(failed)?.len();
    let start = resume.map_or(0, |resume| resume.from).min(total);
    file.seek(SeekFrom::Start(start)).map_err(failed)?;
    Ok(Opened {
        start,
        total: Some(total),
        validator: None,
        framed: true,
        stated: Expected::default(),
        revision: None,
        body: Box::new(file),
    })
}
