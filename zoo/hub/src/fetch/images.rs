//! Image archives: fetched, unpacked into their folder, and deleted.

use serde::{Deserialize, Serialize};

use super::{FetchError, Fetcher, space};
use crate::store::{FileStoreError, RemoteFile, UnpackSummary, unpack};
use laps_files::{FileLock, Progress, ProgressUnit, replace, with_suffix};

/// The file `<archive>.unpacked`, written when the whole archive was unpacked.
#[derive(Serialize, Deserialize)]
struct UnpackRecord {
    sha256: String,
    files: usize,
    bytes: u64,
}

impl Fetcher {
    /// Fetches `archive` and unpacks it into the folder it is stored in. An interrupted call is resumed by the next
    /// one. The archive is deleted afterwards; a file `<archive>.unpacked` records that it need not be fetched again.
    ///
    /// # Errors
    /// As for [`Fetcher::fetch`]; [`FileStoreError::Archive`] for a damaged or malicious archive.
    pub fn images(&self, archive: &RemoteFile, progress: &dyn Progress) -> Result<UnpackSummary, FetchError> {
        let record_path = with_suffix(&archive.path, ".unpacked");
        let record = fs_err::read(&record_path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        if let Some(UnpackRecord { files, bytes, .. }) = record {
            progress.end(&archive.key, "already unpacked");
            return Ok(UnpackSummary { files, existing: files, bytes });
        }
        let fetched = self.fetch(archive, |_| Ok(()), progress)?;
        let failed = |action, source| FileStoreError::io(action, &archive.path, source);
        let folder = archive.path.parent().unwrap_or(&archive.path);
        let waiting = || progress.message(&archive.key, "waiting for another process that unpacks it");
        let _lock = FileLock::acquire(&record_path, waiting).map_err(|source| failed("lock", source))?;
        // Photos barely compress: the contents need about as much space as the archive.
        space::check(&archive.path, fetched.pin.bytes, self.settings().free_space)?;
        let task = format!("{} unpacked", archive.key);
        progress.begin(&task, 0, Some(fetched.pin.bytes), ProgressUnit::Bytes);
        let unpacked = unpack(&archive.path, folder, |bytes| progress.advance(&task, bytes))?;
        // All files must survive a power loss before the archive is deleted.
        let disk = fs_err::File::open(folder).map_err(|source| failed("open the folder of", source))?;
        rustix::fs::syncfs(disk.file()).map_err(|source| failed("write the files of", source.into()))?;
        let UnpackSummary { files, bytes, .. } = unpacked;
        let record = UnpackRecord { sha256: fetched.pin.sha256, files, bytes };
        let text = serde_json::to_string(&record).unwrap_or_default();
        replace(&record_path, text.as_bytes()).map_err(|source| FetchError::io("write", &record_path, source))?;
        fs_err::remove_file(&archive.path).map_err(|source| failed("remove", source))?;
        progress.end(&task, &format!("{files} files"));
        Ok(unpacked)
    }
}
