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

    /// Copies the similarities of an image to all captions into `values`.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn row(&self, image: usize, values: &mut [f32]) -> Result<(), RetrievalError> {
        self.read(image * self.captions, values)
    }

    /// Copies the values from `index` on into `values`.
    pub(super) fn read(&self, index: usize, values: &mut [f32]) -> Result<(), RetrievalError> {
        let bytes = self.bytes(index, 4 * values.len());
        let bytes = bytes.map_err(|source| RetrievalError::Read { path: self.path.clone(), source })?;
        let (words, _) = bytes.as_chunks::<4>();
        values.iter_mut().zip(words).for_each(|(value, &word)| *value = f32::from_le_bytes(word));
        Ok(())
    }

    fn bytes(&self, index: usize, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(self.start + 4 * index as u64))?;
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}
