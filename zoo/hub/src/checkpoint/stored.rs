//! Stored tensors: where their bytes are, and how they are read.

use std::{
    collections::BTreeMap,
    io::{self, Read, Seek, SeekFrom},
    path::PathBuf,
    sync::Arc,
};

use fs_err::{File, os::unix::fs::FileExt};
use zip::{CompressionMethod, ZipArchive, ZipReadOptions};

use super::{Dtype, Options, Skipped, Training};

/// Everything in a checkpoint but the elements of its tensors.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// By the name in the file.
    pub(super) tensors: BTreeMap<String, StoredTensor>,
    /// Entries of the state dict that are not among `tensors`.
    pub(super) skipped: Vec<Skipped>,
    /// Number of tensors outside the state dict.
    pub(super) outside: usize,
    pub(super) options: Option<Options>,
    pub(super) training: Training,
}

/// One tensor in a file.
#[derive(Clone, Debug)]
pub(super) struct StoredTensor {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    pub(super) layout: StoredLayout,
    pub(super) bytes: ByteRange,
}

/// How the elements of a tensor are stored.
#[derive(Clone, Debug, Default)]
pub(super) struct StoredLayout {
    /// In elements; none where the elements are row-major, as in safetensors.
    pub(super) strides: Option<Vec<usize>>,
    /// Bytes of a number whose order is reversed, in a file of a big-endian machine.
    pub(super) reversed: Option<usize>,
    /// See [`TensorView::is_conjugate`](super::pickle::TensorView).
    pub(super) is_conjugate: bool,
    /// See [`TensorView::is_negative`](super::pickle::TensorView).
    pub(super) is_negative: bool,
}

/// The bytes of a file from the first to the last element of a tensor.
#[derive(Clone, Debug)]
pub(super) enum ByteRange {
    /// Bytes of an open file.
    File { file: Arc<File>, offset: u64, length: usize },
    /// Bytes of a file that is opened for each tensor.
    Path { path: PathBuf, offset: u64, length: usize },
    /// Bytes of an archive entry, counted from the start of its contents.
    ZipEntry { archive: Arc<ZipArchive<SharedFile>>, index: usize, offset: u64, length: usize },
}

impl StoredTensor {
    /// Reads the elements, row-major and little-endian. Only this tensor is in memory, twice where it is not row-major.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] or [`io::ErrorKind::UnexpectedEof`] where the file contradicts itself.
    pub(super) fn read(&self) -> io::Result<Vec<u8>> {
        let read = |file: &File, offset: u64, length: usize| {
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, offset)?;
            io::Result::Ok(bytes)
        };
        let mut bytes = match &self.bytes {
            ByteRange::File { file, offset, length } => read(file, *offset, *length)?,
            ByteRange::Path { path, offset, length } => read(&File::open(path)?, *offset, *length)?,
            ByteRange::ZipEntry { archive, index, offset, length } => {
                read_entry(ZipArchive::clone(archive), *index, *offset, *length)?
            }
        };
        let layout = &self.layout;
        if let Some(part) = layout.reversed {
            bytes.chunks_exact_mut(part).for_each(<[u8]>::reverse);
        }
        if let (Some(strides), Some(size)) = (&layout.strides, self.dtype.size()) {
            if !is_row_major(&self.shape, strides) {
                bytes = gather(&bytes, size, &self.shape, strides);
            }
            if self.dtype == Dtype::Bool {
                bytes.iter_mut().for_each(|byte| *byte = u8::from(*byte != 0));
            }
        }
        // The sign is the highest bit of a float and of each part of a complex number.
        if let Some(part) = self.dtype.part_size()
            && (layout.is_negative || layout.is_conjugate)
        {
            let is_complex = self.dtype.size() != Some(part);
            for (index, number) in bytes.chunks_exact_mut(part).enumerate() {
                let is_conjugated = layout.is_conjugate && is_complex && index % 2 == 1;
                number[part - 1] ^= u8::from(layout.is_negative != is_conjugated) << 7;
            }
        }
        Ok(bytes)
    }
}

/// Reads `length` bytes of an entry from `offset` on. The checksum is compared where they are the whole entry; `torch.save`
/// can leave checksums out, and writes 0 for them then.
fn read_entry(mut archive: ZipArchive<SharedFile>, index: usize, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let raw = archive.by_index_raw(index)?;
    let (is_unchecked, is_stored) = (raw.crc32() == 0, raw.compression() == CompressionMethod::Stored);
    let (size, start) = (raw.size(), raw.data_start());
    drop(raw);
    let is_whole = offset == 0 && length as u64 == size;
    // The caller has checked that the file is at least as long as the storage.
    let mut bytes = vec![0; length];
    if is_stored
        && !is_whole
        && let Some(start) = start
    {
        archive.into_inner().file.read_exact_at(&mut bytes, start.saturating_add(offset))?;
        return Ok(bytes);
    }
    let mut entry = archive.by_index_with_options(index, ZipReadOptions::new().ignore_crc32(is_unchecked))?;
    io::copy(&mut entry.by_ref().take(offset), &mut io::sink())?;
    entry.read_exact(&mut bytes)?;
    // The crate compares the checksum at the end of the entry.
    if is_whole && entry.read(&mut [0])? != 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("more than the stated {size} bytes")));
    }
    Ok(bytes)
}

fn is_row_major(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1_usize;
    shape.contains(&0)
        || shape.iter().zip(strides).rev().all(|(&size, &stride)| {
            let is_next = size == 1 || stride == expected;
            expected = expected.wrapping_mul(size);
            is_next
        })
}

/// The elements of `size` bytes that a strided view has in `bytes`, row-major.
fn gather(bytes: &[u8], size: usize, shape: &[usize], strides: &[usize]) -> Vec<u8> {
    let count: usize = shape.iter().product();
    let mut gathered = Vec::with_capacity(count * size);
    let mut index = vec![0; shape.len()];
    let mut element = 0_usize;
    for _ in 0..count {
        gathered.extend_from_slice(&bytes[element * size..][..size]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            // Wrapping, because the stride of an axis of size 1 can be any number.
            element = element.wrapping_add(strides[axis]);
            if index[axis] < shape[axis] {
                break;
            }
            element = element.wrapping_sub(strides[axis].wrapping_mul(shape[axis]));
            index[axis] = 0;
        }
    }
    gathered
}

/// A file that is read at explicit offsets, so that clones of it, on any thread, do not disturb each other.
#[derive(Clone, Debug)]
pub(super) struct SharedFile {
    file: Arc<File>,
    length: u64,
    position: u64,
}

impl SharedFile {
    /// Reads `file`, of `length` bytes, from `position` on.
    pub(super) fn new(file: Arc<File>, length: u64) -> Self {
        Self { file, length, position: 0 }
    }
}

impl Read for SharedFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for SharedFile {
    fn seek(&mut self, target: SeekFrom) -> io::Result<u64> {
        let position = match target {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => self.length.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
