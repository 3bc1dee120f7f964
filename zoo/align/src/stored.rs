//! A similarity matrix in a file, read one row at a time.
//!
//! Rows are read at their offsets and not through a memory map, because a file that shrinks under a map ends the process.

use std::{
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use fs_err::File;

use super::RetrievalError;

/// Bytes read at a time. They stay in the cache of the CPU while they are converted.
const BLOCK: usize = 1 << 15;

/// A matrix, images x captions of little-endian f32 in row-major order, somewhere in a file. It holds no values in memory.
#[derive(Debug)]
pub struct StoredScores {
    /// One handle for all threads. Reads come from the system's cache and take less time than ranking.
    file: Mutex<File>,
    path: PathBuf,
    start: u64,
    images: usize,
    captions: usize,
}

impl StoredScores {
    /// Opens the matrix whose values begin at byte `start` of the file `path`.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(path: &Path, start: u64, [images, captions]: [usize; 2]) -> Result<Self, RetrievalError> {
        let file = File::open(path).map_err(|source| RetrievalError::Read { path: path.to_owned(), source })?;
        Ok(Self { file: Mutex::new(file), path: path.to_owned(), start, images, captions })
    }

    /// Number of rows.
    pub fn images(&self) -> usize {
        self.images
    }

    /// Number of columns.
    pub fn captions(&self) -> usize {
        self.captions
    }

    /// Copies the values from `index` on into `values`.
    pub(super) fn read(&self, index: usize, values: &mut [f32]) -> Result<(), RetrievalError> {
        let failed = |source| RetrievalError::Read { path: self.path.clone(), source };
        let mut block = [0; BLOCK];
        let mut start = self.start + 4 * index as u64;
        for values in values.chunks_mut(BLOCK / 4) {
            let bytes = &mut block[..4 * values.len()];
            self.read_bytes(start, bytes).map_err(failed)?;
            start += bytes.len() as u64;
            let (words, _) = bytes.as_chunks::<4>();
            values.iter_mut().zip(words).for_each(|(value, &word)| *value = f32::from_le_bytes(word));
        }
        Ok(())
    }

    fn read_bytes(&self, start: u64, bytes: &mut [u8]) -> io::Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(bytes)
    }
}
