//! Thumbnails that are embedded in the page.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    path::{Component, PathBuf},
};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use laps_data::image::{self, ImageError, RgbImage};
use laps_files::text_to_path;

/// Longer side of a thumbnail, in pixels.
const SIDE: usize = 128;
/// JPEG quality.
const QUALITY: u8 = 82;

/// Finds images in folders and makes their thumbnails, each once.
#[derive(Debug)]
pub struct Thumbnails {
    folders: Vec<PathBuf>,
    made: RefCell<BTreeMap<String, Option<String>>>,
    missing: Cell<usize>,
}

impl Thumbnails {
    /// Thumbnails of images in `folders`, which are searched in this order.
    pub fn new(folders: Vec<PathBuf>) -> Self {
        Self { folders, made: RefCell::default(), missing: Cell::new(0) }
    }

    /// The thumbnail of the image `name`, a path relative to a folder as [`path_to_text`](laps_files::path_to_text) writes
    /// it, as a `data:` URL; `None` if the image is not found or cannot be decoded. Names that lead out of the folders are
    /// not found.
    pub fn of(&self, name: &str) -> Option<String> {
        if let Some(known) = self.made.borrow().get(name) {
            return known.clone();
        }
        let address = self.make(name);
        if address.is_none() {
            self.missing.set(self.missing.get() + 1);
        }
        self.made.borrow_mut().insert(name.to_owned(), address.clone());
        address
    }

    /// Number of requested images that were not found.
    pub fn missing(&self) -> usize {
        self.missing.get()
    }

    /// The image `name`, as [`of`](Self::of) finds it.
    pub(super) fn read(&self, name: &str) -> Option<RgbImage> {
        let name = text_to_path(name);
        let is_relative = name.components().all(|part| matches!(part, Component::Normal(_)));
        let path = self.folders.iter().map(|folder| folder.join(&name)).find(|path| is_relative && path.is_file())?;
        Some(image::read(&path).ok()?.image)
    }

    fn make(&self, name: &str) -> Option<String> {
        data_url(&self.read(name)?, SIDE, QUALITY).ok()
    }
}

/// The image as a `data:` URL of a JPEG file, with its longer side reduced to at most `longest` pixels.
pub(crate) fn data_url(image: &RgbImage, longest: usize, quality: u8) -> Result<String, ImageError> {
    Ok(format!("data:image/jpeg;base64,{}", BASE64_STANDARD.encode(image::thumbnail(image, longest, quality)?)))
}

#[cfg(test)]
mod tests {
    use laps_data::image::jpeg;

    use super::*;

    #[test]
    fn thumbnails_are_small_and_only_from_inside_the_folders() {
        let folder = tempfile::tempdir().unwrap();
        let images = folder.path().join("images");
        fs_err::create_dir(&images).unwrap();
        let large = jpeg(&RgbImage::new(400, 100, vec![90; 120_000]).unwrap(), 80).unwrap();
        fs_err::write(images.join("a.jpg"), &large).unwrap();
        fs_err::write(folder.path().join("secret.jpg"), &large).unwrap();
        let thumbnails = Thumbnails::new(vec![folder.path().join("none"), images]);
        let address = thumbnails.of("a.jpg").unwrap();
        let bytes = BASE64_STANDARD.decode(address.strip_prefix("data:image/jpeg;base64,").unwrap()).unwrap();
        let small = image::decode(&bytes).unwrap().image;
        assert_eq!((small.width(), small.height()), (128, 32));
        let outside = folder.path().join("secret.jpg");
        for name in ["../secret.jpg", outside.to_str().unwrap(), "b.jpg", "b.jpg"] {
            assert_eq!(thumbnails.of(name), None, "{name}");
        }
        assert_eq!(thumbnails.missing(), 3);
    }

    #[cfg(unix)]
    #[test]
    fn names_of_any_bytes_lead_to_their_images() {
        use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};

        let folder = tempfile::tempdir().unwrap();
        let image = jpeg(&RgbImage::new(8, 8, vec![90; 192]).unwrap(), 80).unwrap();
        let thumbnails = Thumbnails::new(vec![folder.path().to_owned()]);
        for name in [&b"\xff.jpg"[..], br"\xff.jpg", "B\u{fc}cher.jpg".as_bytes()] {
            let path = Path::new(OsStr::from_bytes(name));
            fs_err::write(folder.path().join(path), &image).unwrap();
            assert!(thumbnails.of(&laps_files::path_to_text(path)).is_some(), "{path:?}");
        }
        // An escape cannot lead out of the folder either.
        assert_eq!(thumbnails.of(r"\x2e\x2e/secret.jpg"), None);
    }
}
