//! Files on a local disk as download sources: mirrors and the caches of other programs.

use std::{
    io::{Seek, SeekFrom},
    path::{Path, PathBuf},
};

use fs_err::File;

use super::{
    FetchError,
    source::{ByteSource, OpenedSource, ResumePoint},
};
use laps_files::ExpectedDigest;

/// A file of a mirror or of another program's cache.
pub(super) struct LocalFile {
    pub(super) path: PathBuf,
    /// Commit that the file belongs to, if known.
    pub(super) revision: Option<String>,
}

impl ByteSource for LocalFile {
    fn label(&self) -> String {
        format!("file://{}", self.path.display())
    }

    fn is_local(&self) -> bool {
        true
    }

    fn open(&mut self, resume: Option<&ResumePoint>) -> Result<OpenedSource, FetchError> {
        Ok(OpenedSource { revision: self.revision.clone(), ..open(&self.path, resume)? })
    }
}

/// Opens the file at `path`.
pub(super) fn open(path: &Path, resume: Option<&ResumePoint>) -> Result<OpenedSource, FetchError> {
    let failed = |source| FetchError::io("read", path, source);
    let mut file = File::open(path).map_err(failed)?;
    let total = file.metadata().map_err(failed)?.len();
    let start = resume.map_or(0, |resume| resume.from).min(total);
    file.seek(SeekFrom::Start(start)).map_err(failed)?;
    Ok(OpenedSource {
        start,
        total: Some(total),
        validator: None,
        framed: true,
        stated: ExpectedDigest::default(),
        revision: None,
        body: Box::new(file),
    })
}
