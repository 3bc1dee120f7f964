//! The log of a run in JSON lines.

use std::io::{Read, Seek, SeekFrom, Write};

use laps_files::IoError;

use serde::Serialize;

use super::{RunFiles, RunFolder, state::RunPosition};
use crate::{Error, Result};

/// `log.jsonl`: one JSON object for each step and each epoch.
pub(super) struct RunLog {
    folder: RunFolder,
    file: fs_err::File,
}

impl RunLog {
    /// Opens the log and truncates it to the lines that are not after `position`: a resumed run writes the rest again.
    pub(super) fn open(folder: &RunFolder, position: &RunPosition) -> Result<Self> {
        let path = folder.file(RunFiles::LOG);
        let open = || -> std::io::Result<fs_err::File> {
            let mut options = fs_err::OpenOptions::new();
            let mut file = options.create(true).truncate(false).read(true).write(true).open(&path)?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            let lines = bytes.split_inclusive(|&byte| byte == b'\n').take_while(|line| is_done(line, position));
            file.set_len(lines.map(<[u8]>::len).sum::<usize>() as u64)?;
            file.seek(SeekFrom::End(0))?;
            Ok(file)
        };
        let file = open().map_err(|source| Error::Io(IoError::new("write", &path, source)))?;
        Ok(Self { folder: folder.clone(), file })
    }

    /// Appends a line.
    pub(super) fn write(&mut self, line: &impl Serialize) -> Result<()> {
        let failed = |source| Error::Io(IoError::new("write", self.folder.file(RunFiles::LOG), source));
        let mut text = serde_json::to_string(line).map_err(|error| failed(error.into()))?;
        text.push('\n');
        self.file
            .write_all(text.as_bytes())
            .map_err(|source| Error::Io(IoError::new("write", self.folder.file(RunFiles::LOG), source)))
    }
}

/// Whether a line is complete and not after `position`.
fn is_done(line: &[u8], position: &RunPosition) -> bool {
    let Ok(fields) = serde_json::from_slice::<serde_json::Value>(line) else { return false };
    let number = |key: &str| fields.get(key).and_then(serde_json::Value::as_u64);
    // Only the line of an epoch, which is written after its last step, has recalls.
    let epoch_done = fields.get("recalls").is_none() || number("epoch") < Some(position.epoch as u64);
    line.ends_with(b"\n") && number("step") <= Some(position.step) && epoch_done
}

#[cfg(test)]
mod tests {
    use super::{RunPosition, is_done};

    #[test]
    fn lines_after_the_saved_position_are_not_kept() {
        let position = RunPosition { step: 10, epoch: 1, within: 5, ..RunPosition::default() };
        let done = |line: &str| is_done(line.as_bytes(), &position);
        assert!(done("{\"step\":10,\"epoch\":1}\n"));
        assert!(done("{\"step\":5,\"epoch\":0,\"recalls\":{}}\n"));
        assert!(!done("{\"step\":11,\"epoch\":1}\n"));
        // The state was saved after the last step of the epoch and before its validation.
        assert!(!done("{\"step\":10,\"epoch\":1,\"recalls\":{}}\n"));
        assert!(!done("{\"step\":10,\"epoch\":1}") && !done("{\"step\":1"));
    }
}
