//! [`ImageFormat`]: the formats that can be decoded, and what a file extension says.

use std::{fmt, path::Path};

/// A format that can be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageFormat {
    /// JPEG.
    Jpeg,
    /// PNG.
    Png,
    /// GIF.
    Gif,
    /// BMP.
    Bmp,
    /// WebP.
    WebP,
}

impl ImageFormat {
    /// The format of a file that starts with `bytes`, by the signatures that Pillow looks at. Extensions do not matter.
    ///
    /// ```
    /// use laps_data::image::ImageFormat;
    ///
    /// assert_eq!(ImageFormat::detect(b"GIF89a..."), Some(ImageFormat::Gif));
    /// assert_eq!(ImageFormat::detect(b"<html>"), None);
    /// ```
    pub fn detect(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0xff, 0xd8, 0xff, ..] => Some(Self::Jpeg),
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(Self::Png),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(Self::Gif),
            [b'B', b'M', ..] => Some(Self::Bmp),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', b'V', b'P', b'8', b' ' | b'L' | b'X', ..] => {
                Some(Self::WebP)
            }
            _ => None,
        }
    }
}

impl fmt::Display for ImageFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::Gif => "GIF",
            Self::Bmp => "BMP",
            Self::WebP => "WebP",
        })
    }
}

/// Extensions of the formats that can be decoded.
pub const READABLE_EXTENSIONS: [&str; 11] =
    ["apng", "bmp", "dib", "gif", "jfif", "jpe", "jpeg", "jpg", "pjpeg", "png", "webp"];

/// Extensions of image formats that cannot be decoded.
const UNREADABLE_EXTENSIONS: [&str; 28] = [
    "arw", "avif", "cr2", "cr3", "dds", "dng", "eps", "exr", "hdr", "heic", "heif", "ico", "j2k", "jp2", "jxl", "nef",
    "orf", "pbm", "pgm", "pnm", "ppm", "psd", "raf", "rw2", "svg", "tga", "tif", "tiff",
];

/// The image format that the extension of a file names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtensionKind {
    /// An image of a format that can be decoded.
    Readable,
    /// An image of another format, such as `.heic`, `.avif` or `.tif`. Its content may still be of a format that can be
    /// decoded.
    Unreadable,
    /// Not an image.
    Other,
}

impl ExtensionKind {
    /// The kind of the extension of `path`, in upper or lower case.
    ///
    /// ```
    /// use laps_data::image::ExtensionKind;
    ///
    /// assert_eq!(ExtensionKind::of("photos/1.JFIF".as_ref()), ExtensionKind::Readable);
    /// assert_eq!(ExtensionKind::of("photos/2.heic".as_ref()), ExtensionKind::Unreadable);
    /// assert_eq!(ExtensionKind::of("photos/2.txt".as_ref()), ExtensionKind::Other);
    /// ```
    pub fn of(path: &Path) -> Self {
        let extension = path.extension().unwrap_or_default();
        let is_in = |list: &[&str]| list.iter().any(|known| extension.eq_ignore_ascii_case(known));
        if is_in(&READABLE_EXTENSIONS) {
            Self::Readable
        } else if is_in(&UNREADABLE_EXTENSIONS) {
            Self::Unreadable
        } else {
            Self::Other
        }
    }
}
