//! Archives of images: fetched, unpacked beside where they lie, and removed.

use serde::{Deserialize, Serialize};

use super::{FetchError, Fetcher, Watch, space};
use crate::{
    Result,
    store::{Item, StoreError, Unpacked, unpack},
};
use laps_files::{FileLock, beside};

/// The note that an archive leaves when all of it was unpacked.
#[derive(Serialize, Deserialize)]
struct Note {
    sha256: String,
    files: usize,
    bytes: u64,
}

impl Fetcher {
    /// Fetches the archive `item` and unpacks it into the folder that it lies in. Both go on where they were broken off. The
    /// archive is removed afterwards, and a note `<archive>.unpacked` stays in its place, so that it is not fetched again.
    ///
    /// # Errors
    /// As for [`Fetcher::fetch`]; [`StoreError::Archive`] for an archive that is damaged or means harm.
    pub fn images(&self, item: &Item, watch: &dyn Watch) -> Result<Unpacked> {
        let note_path = beside(&item.path, ".unpacked");
        let note = fs_err::read(&note_path).ok().and_then(|text| serde_json::from_slice::<Note>(&text).ok());
        if let Some(Note { files, bytes, .. }) = note {
            watch.end(&item.key, "was unpacked before");
            return Ok(Unpacked { files, kept: files, bytes });
        }
        let fetched = self.fetch(item, |_| Ok(()), watch)?;
        let failed = |action, source| StoreError::io(action, &item.path, source);
        let folder = item.path.parent().unwrap_or(&item.path);
        let _lock = FileLock::acquire(&note_path, || watch.note(&item.key, "another process unpacks it: waiting"))
            .map_err(|source| failed("lock", source))?;
        // Photos hardly shrink in an archive: its contents need about as much room as itself.
        space::check(&item.path, fetched.pin.bytes, self.settings().free_space)?;
        let what = format!("{} unpacked", item.key);
        watch.begin(&what, 0, Some(fetched.pin.bytes));
        let unpacked = unpack(&item.path, folder, |bytes| watch.advance(&what, bytes))?;
        // The files have their names; now they also survive a loss of power.
        let disk = fs_err::File::open(folder).map_err(|source| failed("open the folder of", source))?;
        rustix::fs::syncfs(disk.file()).map_err(|source| failed("write the files of", source.into()))?;
        let Unpacked { files, bytes, .. } = unpacked;
        let note = Note { sha256: fetched.pin.sha256, files, bytes };
        let text = serde_json::to_string(&note).unwrap_or_default();
        fs_err::write(&note_path, text).map_err(|source| FetchError::io("write", &note_path, source))?;
        fs_err::remove_file(&item.path).map_err(|source| failed("remove", source))?;
        watch.end(&what, &format!("{files} files"));
        Ok(unpacked)
    }
}
