//! Checks the images of a data set, and hashes the data.

use std::path::Path;

use laps_files::{DigestWriter, read_regular, sha256};
use rayon::prelude::*;

use super::{
    DataError, ImageFault, ImageFile, Split, UnusableData,
    image::{self, ImageError},
};

/// Identity of the data of a split, see [`hash_data`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataHash {
    /// Total size of the image files in bytes.
    pub bytes: u64,
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

/// Hashes the captions and image files of `split` in the folder `root`, on `threads` threads (at least 1). Images are read
/// and not decoded. `progress` is called for each image, from any thread.
///
/// The hash is the SHA-256 of a list of fields. Each field is its length in bytes (64 bits, little-endian), then its bytes.
/// The fields are `laps-zoo data 1`; for each image, in the order of the split, its id, its name in the mapping, and the
/// 32 bytes of the SHA-256 of its file; and for each caption the id of its image and its text. The hash depends on exactly
/// the ids, captions and image bytes that are used, and on their order.
///
/// # Errors
/// [`DataError::Unusable`] with all images that cannot be read.
pub fn hash_data(
    split: &Split,
    root: &Path,
    threads: usize,
    progress: impl Fn() + Sync,
) -> Result<DataHash, DataError> {
    let files = split.image_files(root);
    let seen = for_each_image(&files, threads, |file| {
        let bytes = read_regular(&file.path)?;
        progress();
        Ok((bytes.len() as u64, sha256(&bytes)))
    })?;
    let mut bytes = 0;
    let mut hash = FieldDigest::new();
    for (ImageFile { image, .. }, (size, sha256)) in files.iter().zip(seen) {
        bytes += size;
        hash.add(image.id.as_bytes()).add(image.name.as_bytes()).add(&sha256);
    }
    for (caption, &image) in split.captions().iter().zip(split.image_of()) {
        hash.add(split.images()[image].id.as_bytes()).add(caption.as_bytes());
    }
    Ok(DataHash { bytes, sha256: hash.finish() })
}

/// Decodes every image, on `threads` threads (at least 1), and returns those that are damaged but usable, such as truncated
/// JPEG files. `progress` is called for each image, from any thread.
///
/// # Errors
/// [`DataError::Unusable`] with all images that cannot be used.
pub fn check_images(files: &[ImageFile], threads: usize, progress: impl Fn() + Sync) -> Result<Vec<Damage>, DataError> {
    let seen = for_each_image(files, threads, |file| {
        let damage = image::read(&file.path)?.damage;
        progress();
        Ok(damage)
    })?;
    let damaged = files.iter().zip(seen);
    Ok(damaged.filter_map(|(file, damage)| damage.map(|warning| Damage { file: file.clone(), warning })).collect())
}

/// The results of `check` in the order of `files`, or all faults.
fn for_each_image<T: Send>(
    files: &[ImageFile],
    threads: usize,
    check: impl Fn(&ImageFile) -> Result<T, ImageError> + Sync,
) -> Result<Vec<T>, DataError> {
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let threads = threads.clamp(1, files.len());
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = pool.map_err(|error| DataError::Threads { threads, source: std::io::Error::other(error) })?;
    let seen: Vec<Result<T, ImageError>> = pool.install(|| files.par_iter().map(&check).collect());
    let mut faults = Vec::new();
    let mut found = Vec::with_capacity(files.len());
    for (ImageFile { image, path }, seen) in files.iter().zip(seen) {
        match seen {
            Ok(value) => found.push(value),
            Err(cause) => {
                faults.push(ImageFault { id: image.id.clone(), line: image.line.clone(), path: path.clone(), cause });
            }
        }
    }
    if faults.is_empty() {
        return Ok(found);
    }
    let data = UnusableData { images: files.len(), image_faults: faults, ..UnusableData::default() };
    Err(DataError::Unusable(data.into()))
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
