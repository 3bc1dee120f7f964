//! What a container holds, and how the bytes of one tensor are had.

use std::{
    collections::BTreeMap,
    io::{self, Read, Seek, SeekFrom},
    sync::{Mutex, PoisonError},
};

use fs_err::File;

use super::{Dtype, Options, Training};

/// Everything that is known of a checkpoint before a tensor is read.
#[derive(Debug)]
pub(super) struct Contents {
    /// By the name in the file.
    pub(super) tensors: BTreeMap<String, Stored>,
    pub(super) options: Option<Options>,
    pub(super) training: Training,
}

/// One tensor in a file.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    pub(super) handle: Handle,
}

/// Where the bytes of a tensor are.
#[derive(Clone, Debug)]
pub(super) enum Handle {
    /// At this place of the file, row-major and little-endian.
    At { offset: u64, length: usize },
    /// In a storage of a torch container, perhaps strided.
    Torch(pytorch_reader::Tensor),
}

impl Stored {
    /// Reads the elements, row-major and little-endian. Only this tensor is in memory.
    pub(super) fn bytes(&self, file: &Mutex<File>) -> io::Result<Vec<u8>> {
        match &self.handle {
            Handle::Torch(tensor) => tensor.read(),
            Handle::At { offset, length } => {
                let mut bytes = vec![0; *length];
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                file.seek(SeekFrom::Start(*offset))?;
                file.read_exact(&mut bytes)?;
                Ok(bytes)
            }
        }
    }
}
