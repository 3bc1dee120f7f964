//! A look at every image of a split before hours of work, and the hash of the data that it yields.

use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::{
    DataError, ImageFault, ImageFile, Split,
    image::{self, ImageError},
};

/// What is known of a split after all of its images were read and decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preflight {
    /// Images that were looked at.
    pub images: usize,
    /// Size of all image files in bytes.
    pub bytes: u64,
    /// Images that are usable but damaged, as a JPEG file that was cut short.
    pub damaged: Vec<Damage>,
    /// Hash of captions and images in hexadecimal, see [`preflight`].
    pub sha256: String,
}

/// An image that was decoded as far as it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The image.
    pub file: ImageFile,
    /// The decoder's warning.
    pub warning: String,
}

struct Seen {
    bytes: u64,
    sha256: [u8; 32],
    damage: Option<String>,
}

/// Reads and decodes every image of `split`, in the folder `root`, on `threads` threads (at least 1). All images that
/// can not be used come in one error. `progress` is told the number of images seen so far, from any thread.
///
/// The hash is the SHA-256 of a list of fields, each as its length in bytes (64 bits, little-endian) followed by its
/// bytes: `laps-zoo data 1`; then for each image, in the order of the split, its id, its name in the mapping, and the
/// 32 bytes of its file's SHA-256; then for each caption its image's id and its text. So it depends on every id,
/// caption and image byte that is used, on their order, and on nothing else.
pub fn preflight(
    split: &Split,
    root: &Path,
    threads: usize,
    progress: impl Fn(usize) + Sync,
) -> Result<Preflight, DataError> {
    let files = split.image_files(root);
    let threads = threads.max(1);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = pool.map_err(|error| DataError::Threads { threads, source: std::io::Error::other(error) })?;
    let count = AtomicUsize::new(0);
    let look = |file: &ImageFile| {
        let seen = look(file);
        progress(count.fetch_add(1, Ordering::Relaxed) + 1);
        seen
    };
    let seen: Vec<Result<Seen, ImageError>> = pool.install(|| files.par_iter().map(look).collect());

    let mut faults = Vec::new();
    let mut damaged = Vec::new();
    let mut bytes = 0;
    let mut hash = Fields::new();
    for (file, seen) in files.iter().zip(seen) {
        let ImageFile { image, path } = file;
        match seen {
            Ok(seen) => {
                bytes += seen.bytes;
                hash.add(image.id.as_bytes()).add(image.name.as_bytes()).add(&seen.sha256);
                damaged.extend(seen.damage.map(|warning| Damage { file: file.clone(), warning }));
            }
            Err(cause) => {
                faults.push(ImageFault { id: image.id.clone(), row: image.row, path: path.clone(), cause });
            }
        }
    }
    if !faults.is_empty() {
        return Err(DataError::Images { checked: files.len(), faults });
    }
    for (caption, &image) in split.captions().iter().zip(split.image_of()) {
        hash.add(split.images()[image].id.as_bytes()).add(caption.as_bytes());
    }
    Ok(Preflight { images: files.len(), bytes, damaged, sha256: hash.finish() })
}

fn look(file: &ImageFile) -> Result<Seen, ImageError> {
    let bytes = std::fs::read(&file.path)?;
    let damage = image::decode(&bytes)?.damage;
    Ok(Seen { bytes: bytes.len() as u64, sha256: Sha256::digest(&bytes).into(), damage })
}

struct Fields(Sha256);

impl Fields {
    fn new() -> Self {
        let mut fields = Self(Sha256::new());
        fields.add(b"laps-zoo data 1");
        fields
    }

    fn add(&mut self, field: &[u8]) -> &mut Self {
        self.0.update((field.len() as u64).to_le_bytes());
        self.0.update(field);
        self
    }

    fn finish(self) -> String {
        self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
