//! A similarity matrix in a file that is written tile by tile.

use std::{
    io::{self, Read, Seek, SeekFrom, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use fs_err::{File, OpenOptions};
use laps_files::{FileLock, IoError};

use super::{
    fingerprint::Fingerprint,
    plan::{Plan, Tile},
    sink::TileSink,
};
use crate::{Error, Result, RetrievalError, StoredScores};

/// Last bytes of a partial file.
const MAGIC: [u8; 8] = *b"sims\0\0\x01\n";

/// Bytes of the footer: fingerprint, images of a tile, captions of a tile, magic.
const FOOTER: usize = 32 + 8 + 8 + 8;

/// A sink that writes a matrix `(images, captions)` as a safetensors file with the tensor `sims`.
///
/// Tiles are written to `PATH.partial`, which also stores which tiles are complete. The complete file is renamed to `PATH`
/// and has the same bytes as a file written by safetensors. After an interruption, opening the file again requests only the
/// missing tiles. It needs memory for one row of a tile and one byte per tile. If `PATH` is a symbolic link, all of this
/// happens at the file that it points to, and the link stays.
#[derive(Debug)]
pub struct MatrixFile {
    /// The regular file to write, with links followed.
    target: PathBuf,
    partial: PathBuf,
    file: File,
    plan: Plan,
    /// Start and end of the values. One byte per tile and the footer follow.
    values: [u64; 2],
    done: Vec<u8>,
    row: Vec<u8>,
    _lock: FileLock,
}

impl MatrixFile {
    /// Creates the partial file of `path`, or resumes it if it exists. `plan` defines the tiles of a new file; a resumed file
    /// keeps its tiles, see [`plan`](Self::plan).
    ///
    /// # Errors
    /// A partial file of other inputs; [`laps_files::Error::Held`] if another process is writing it;
    /// [`laps_files::Error::NotSeekable`] if `path` is a device, a FIFO, an open descriptor or standard output.
    pub fn open(path: &Path, plan: &Plan, inputs: &Fingerprint) -> Result<Self> {
        let target = laps_files::seekable_target(path)?;
        let lock = FileLock::try_acquire(&target)?;
        let partial = laps_files::with_suffix(&target, ".partial");
        let failed = |source| Error::Io(IoError::new("open", &partial, source));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(&partial).map_err(failed)?;
        let header = header(plan.images, plan.captions);
        let start = header.len() as u64;
        let values = [start, start + 4 * plan.images as u64 * plan.captions as u64];
        let row = Vec::with_capacity(4 * plan.tile_captions);
        let mut matrix = Self { target, partial, file, plan: *plan, values, done: Vec::new(), row, _lock: lock };
        match matrix.resume(inputs) {
            Ok(true) => {}
            Ok(false) => matrix.create(&header, inputs).map_err(|source| matrix.failed("write", source))?,
            Err(Some(source)) => return Err(matrix.failed("read", source)),
            Err(None) => return Err(RetrievalError::OtherInputs { path: matrix.partial }.into()),
        }
        Ok(matrix)
    }

    /// The tiles of the file. [`Engine::run`](super::Engine::run) needs this plan with this sink.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Number of complete tiles.
    pub fn finished_tiles(&self) -> usize {
        self.done.iter().filter(|&&done| done == 1).count()
    }

    /// The missing tiles.
    pub fn missing(&self) -> Vec<Tile> {
        let unfinished = |&index: &usize| self.done.get(index) != Some(&1);
        (0..self.plan.len()).filter(unfinished).map(|index| self.plan.tile(index)).collect()
    }

    /// Path of the partial file.
    pub fn partial(&self) -> &Path {
        &self.partial
    }

    /// The matrix in the partial file, for reading before [`finish`](Self::finish). Missing tiles are zero.
    ///
    /// # Errors
    /// A file that cannot be opened.
    pub fn stored(&self) -> Result<StoredScores> {
        Ok(StoredScores::open(&self.partial, self.values[0], [self.plan.images, self.plan.captions])?)
    }

    /// Renames the complete file to its final path.
    ///
    /// # Errors
    /// Missing tiles, and a file that cannot be renamed.
    pub fn finish(self) -> Result<()> {
        let [found, tiles] = [self.finished_tiles(), self.plan.len()];
        if found != tiles {
            return Err(Error::Operation {
                operation: "similarity",
                expected: format!("{tiles} tiles in `{}`", self.partial.display()),
                found: format!("{found} tiles"),
            });
        }
        let complete = || {
            self.file.set_len(self.values[1])?;
            laps_files::persist(&self.partial, &self.target)
        };
        complete().map_err(|source| self.failed("write", source))
    }

    /// Reads which tiles are complete. False if the file has no footer; `Err(None)` if it has other inputs.
    fn resume(&mut self, inputs: &Fingerprint) -> Result<bool, Option<io::Error>> {
        let length = self.file.metadata()?.len();
        let mut footer = [0; FOOTER];
        if length < FOOTER as u64 {
            return Ok(false);
        }
        self.file.seek(SeekFrom::End(-(FOOTER as i64)))?;
        self.file.read_exact(&mut footer)?;
        let (fingerprint, rest) = footer.split_at(32);
        let number = |at: usize| rest[at..at + 8].iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte));
        if rest[16..] != MAGIC {
            return Ok(false);
        }
        let tile = [number(0), number(8)].map(|size| usize::try_from(size).unwrap_or(0));
        let plan = Plan { tile_images: tile[0], tile_captions: tile[1], ..self.plan };
        if fingerprint != inputs.bytes()
            || tile.contains(&0)
            || self.values[1].checked_add((plan.len() + FOOTER) as u64) != Some(length)
        {
            return Err(None);
        }
        self.plan = plan;
        self.done = vec![0; plan.len()];
        self.file.seek(SeekFrom::Start(self.values[1]))?;
        self.file.read_exact(&mut self.done)?;
        Ok(true)
    }

    /// Writes everything but the values. The magic is written last: a file without it is not resumed.
    fn create(&mut self, header: &[u8], inputs: &Fingerprint) -> io::Result<()> {
        self.done = vec![0; self.plan.len()];
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(header)?;
        self.file.set_len(self.values[1] + self.done.len() as u64)?;
        self.file.seek(SeekFrom::End(0))?;
        let mut footer = inputs.bytes().to_vec();
        footer.extend((self.plan.tile_images as u64).to_le_bytes());
        footer.extend((self.plan.tile_captions as u64).to_le_bytes());
        footer.extend(MAGIC);
        self.file.write_all(&footer)
    }

    fn write(&mut self, tile: &Tile, similarities: &[f32]) -> io::Result<()> {
        for (image, row) in tile.images.clone().zip(similarities.chunks_exact(tile.captions.len())) {
            self.row.clear();
            self.row.extend(row.iter().flat_map(|value| value.to_le_bytes()));
            let index = (image * self.plan.captions + tile.captions.start) as u64;
            self.file.seek(SeekFrom::Start(self.values[0] + 4 * index))?;
            self.file.write_all(&self.row)?;
        }
        // The values must be on the disk before the tile is marked as complete.
        self.file.sync_data()?;
        self.file.seek(SeekFrom::Start(self.values[1] + tile.index as u64))?;
        self.file.write_all(&[1])?;
        self.done[tile.index] = 1;
        Ok(())
    }

    fn failed(&self, action: &'static str, source: io::Error) -> Error {
        Error::Io(IoError::new(action, &self.partial, source))
    }
}

impl TileSink for MatrixFile {
    fn wants(&mut self, tile: &Tile) -> bool {
        self.done.get(tile.index) != Some(&1)
    }

    fn accept(&mut self, tile: &Tile, similarities: &[f32]) -> Result<ControlFlow<()>> {
        if *tile != self.plan.tile(tile.index) || tile.index >= self.done.len() {
            return Err(Error::Operation {
                operation: "similarity",
                expected: format!("a tile of {:?}", self.plan),
                found: format!("{tile:?}"),
            });
        }
        self.write(tile, similarities).map_err(|source| self.failed("write", source))?;
        Ok(ControlFlow::Continue(()))
    }
}

/// Header of a safetensors file with one f32 matrix named `sims`: the length of the JSON text, and the text, padded with
/// spaces to a multiple of 8.
fn header(images: usize, captions: usize) -> Vec<u8> {
    let end = 4 * images as u128 * captions as u128;
    let mut text =
        format!(r#"{{"sims":{{"dtype":"F32","shape":[{images},{captions}],"data_offsets":[0,{end}]}}}}"#).into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.append(&mut text);
    header
}
