//! The similarity matrix as a file that is written tile by tile.

use std::{
    io::{self, Read, Seek, SeekFrom, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use fs_err::{File, OpenOptions};
use laps_files::FileLock;

use super::{
    fingerprint::Fingerprint,
    plan::{Plan, Tile},
    sink::Sink,
};
use crate::{Error, Result, RetrievalError, StoredScores};

/// Last bytes of an unfinished file.
const MARK: [u8; 8] = *b"sims\0\0\x01\n";

/// Fingerprint, images of a tile, captions of a tile, mark.
const FOOTER: usize = 32 + 8 + 8 + 8;

/// A sink that writes a matrix `(images, captions)` as safetensors, key `sims`.
///
/// The matrix grows in `PATH.partial`, which also says of each tile whether it is there; it takes the place of `PATH`
/// when it is complete, and is then what safetensors would have written at once. Opened again after an interruption, it
/// asks only for the tiles that are missing. What it holds in memory is a row of a tile, and a byte for each tile.
#[derive(Debug)]
pub struct MatrixFile {
    path: PathBuf,
    partial: PathBuf,
    file: File,
    plan: Plan,
    /// Where the values begin and end; a byte for each tile follows, and the footer.
    values: [u64; 2],
    done: Vec<u8>,
    row: Vec<u8>,
    _lock: FileLock,
}

impl MatrixFile {
    /// Begins a file, or continues `PATH.partial` if that is there. `plan` says how tiles are cut; a file that is
    /// continued keeps the cut that it has, see [`plan`](Self::plan).
    ///
    /// # Errors
    /// If the file that is there was computed from other inputs, and [`laps_files::Error::Held`] if another process is
    /// writing it.
    pub fn open(path: &Path, plan: &Plan, inputs: &Fingerprint) -> Result<Self> {
        let lock = FileLock::try_acquire(path)?;
        let partial = partial_path(path);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let wrong = |source| Error::Io { action: "open", path: partial.clone(), source };
        let file = options.open(&partial).map_err(wrong)?;
        let header = header(plan.images, plan.captions);
        let start = header.len() as u64;
        let values = [start, start + 4 * plan.images as u64 * plan.captions as u64];
        let row = Vec::with_capacity(4 * plan.tile_captions);
        let mut matrix =
            Self { path: path.to_owned(), partial, file, plan: *plan, values, done: Vec::new(), row, _lock: lock };
        match matrix.look(inputs) {
            Ok(true) => {}
            Ok(false) => matrix.begin(&header, inputs).map_err(|source| matrix.failed("write", source))?,
            Err(Some(source)) => return Err(matrix.failed("read", source)),
            Err(None) => return Err(RetrievalError::OtherInputs { path: matrix.partial }.into()),
        }
        Ok(matrix)
    }

    /// How the matrix is cut: what [`Engine::run`](super::Engine::run) has to be given with this sink.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Number of tiles that are in the file.
    pub fn finished_tiles(&self) -> usize {
        self.done.iter().filter(|&&done| done == 1).count()
    }

    /// The tiles that are not in the file yet.
    pub fn missing(&self) -> Vec<Tile> {
        let unfinished = |&index: &usize| self.done.get(index) != Some(&1);
        (0..self.plan.len()).filter(unfinished).map(|index| self.plan.tile(index)).collect()
    }

    /// The file in which the matrix grows.
    pub fn partial(&self) -> &Path {
        &self.partial
    }

    /// The matrix as it is in the file, to be read before [`finish`](Self::finish) puts it in its place. What tiles that
    /// are missing cover is zero.
    pub fn stored(&self) -> Result<StoredScores> {
        Ok(StoredScores::open(&self.partial, self.values[0], [self.plan.images, self.plan.captions])?)
    }

    /// Puts the complete matrix in its place.
    ///
    /// # Errors
    /// If tiles are missing.
    pub fn finish(self) -> Result<()> {
        let [found, tiles] = [self.finished_tiles(), self.plan.len()];
        if found != tiles {
            return Err(Error::Operation {
                operation: "similarity",
                expected: format!("{tiles} tiles in `{}`", self.partial.display()),
                found: format!("{found} tiles"),
            });
        }
        let close = || {
            self.file.sync_all()?;
            self.file.set_len(self.values[1])?;
            self.file.sync_all()?;
            fs_err::rename(&self.partial, &self.path)
        };
        close().map_err(|source| self.failed("write", source))
    }

    /// Whether the file holds tiles of the same inputs, which are taken over. An error without a source means others.
    fn look(&mut self, inputs: &Fingerprint) -> Result<bool, Option<io::Error>> {
        let length = self.file.metadata()?.len();
        let mut footer = [0; FOOTER];
        if length < FOOTER as u64 {
            return Ok(false);
        }
        self.file.seek(SeekFrom::End(-(FOOTER as i64)))?;
        self.file.read_exact(&mut footer)?;
        let (fingerprint, rest) = footer.split_at(32);
        let number = |at: usize| rest[at..at + 8].iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte));
        if rest[16..] != MARK {
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

    /// Everything but the values; the mark comes last, so that a file without it is not believed.
    fn begin(&mut self, header: &[u8], inputs: &Fingerprint) -> io::Result<()> {
        self.done = vec![0; self.plan.len()];
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(header)?;
        self.file.set_len(self.values[1] + self.done.len() as u64)?;
        self.file.seek(SeekFrom::End(0))?;
        let mut footer = inputs.bytes().to_vec();
        footer.extend((self.plan.tile_images as u64).to_le_bytes());
        footer.extend((self.plan.tile_captions as u64).to_le_bytes());
        footer.extend(MARK);
        self.file.write_all(&footer)
    }

    fn write(&mut self, tile: &Tile, similarities: &[f32]) -> io::Result<()> {
        for (image, row) in tile.images.clone().zip(similarities.chunks_exact(tile.captions.len())) {
            self.row.clear();
            self.row.extend(row.iter().flat_map(|value| value.to_le_bytes()));
            let place = (image * self.plan.captions + tile.captions.start) as u64;
            self.file.seek(SeekFrom::Start(self.values[0] + 4 * place))?;
            self.file.write_all(&self.row)?;
        }
        // A tile may be called finished only when its values are certain to be there.
        self.file.sync_data()?;
        self.file.seek(SeekFrom::Start(self.values[1] + tile.index as u64))?;
        self.file.write_all(&[1])?;
        self.done[tile.index] = 1;
        Ok(())
    }

    fn failed(&self, action: &'static str, source: io::Error) -> Error {
        Error::Io { action, path: self.partial.clone(), source }
    }
}

impl Sink for MatrixFile {
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

fn partial_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

/// What a safetensors file of one f32 matrix named `sims` begins with: the length of the description, and the
/// description, filled up with spaces to a multiple of 8.
fn header(images: usize, captions: usize) -> Vec<u8> {
    let end = 4 * images as u128 * captions as u128;
    let mut text =
        format!(r#"{{"sims":{{"dtype":"F32","shape":[{images},{captions}],"data_offsets":[0,{end}]}}}}"#).into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.append(&mut text);
    header
}
