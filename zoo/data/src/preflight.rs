//! Checks every image of a split before hours of work, and hashes the data.

use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use laps_files::{DigestWriter, sha256};
use rayon::prelude::*;

use super::{
    DataError, ImageFault, ImageFile, Split,
    image::{self, ImageError},
};

/// Result of [`preflight`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preflight {
    /// Number of images.
    pub images: usize,
    /// Total size of the image files in bytes.
    pub bytes: u64,
    /// Images that are damaged but usable, such as a truncated JPEG file.
    pub damaged: Vec<Damage>,
    /// Hash of captions and images, in hexadecimal.
    pub sha256: String,
}

/// An image that was decoded in part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The image.
    pub file: ImageFile,
    /// The decoder's warning.
    pub warning: String,
}

struct CheckedImage {
    bytes: u64,
    sha256: [u8; 32],
    damage: Option<String>,
}

/// Reads and decodes every image of `split` in the folder `root`, on `threads` threads (at least 1). `progress` is called
/// with the number of images so far, from any thread.
///
/// The hash is the SHA-256 of a list of fields. Each field is its length in bytes (64 bits, little-endian), then its bytes.
/// The fields are `laps-zoo data 1`; for each image, in the order of the split, its id, its name in the mapping, and the
/// 32 bytes of the SHA-256 of its file; and for each caption the id of its image and its text. The hash depends on exactly
/// the ids, captions and image bytes that are used, and on their order.
///
/// # Errors
/// [`DataError::Images`] with all images that cannot be used.
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
    let check = |file: &ImageFile| {
        let result = check_image(file);
        progress(count.fetch_add(1, Ordering::Relaxed) + 1);
        result
    };
    let seen: Vec<Result<CheckedImage, ImageError>> = pool.install(|| files.par_iter().map(check).collect());

    let mut faults = Vec::new();
    let mut damaged = Vec::new();
    let mut bytes = 0;
    let mut hash = FieldDigest::new();
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

fn check_image(file: &ImageFile) -> Result<CheckedImage, ImageError> {
    let bytes = std::fs::read(&file.path)?;
    let damage = image::decode(&bytes)?.damage;
    Ok(CheckedImage { bytes: bytes.len() as u64, sha256: sha256(&bytes), damage })
}

/// Hashes a list of fields.
struct FieldDigest(DigestWriter);

impl FieldDigest {
    fn new() -> Self {
        let mut fields = Self(DigestWriter::sha256());
        fields.add(b"laps-zoo data 1");
        fields
    }

    fn add(&mut self, field: &[u8]) -> &mut Self {
        self.0.update(&(field.len() as u64).to_le_bytes());
        self.0.update(field);
        self
    }

    fn finish(self) -> String {
        self.0.finish().sha256
    }
}
