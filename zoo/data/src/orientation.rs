//! The orientation that EXIF metadata state.
//!
//! Cameras store the rotation of a photo as metadata. The authors' code ignores it, and so does everything here unless the
//! caller asks for it.

use std::io::Cursor;

use ::image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, metadata::Orientation};

use super::image::RgbImage;

/// Treatment of the EXIF orientation of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExifOrientation {
    /// Take the pixels as they are stored, as the authors' code does.
    #[default]
    Ignore,
    /// Rotate and mirror the image as Pillow's `ImageOps.exif_transpose` does.
    Apply,
}

/// The decoded `image` of the file `bytes`, upright if `orientation` says so. Metadata that cannot be read change nothing.
pub fn orient(bytes: &[u8], image: RgbImage, orientation: ExifOrientation) -> RgbImage {
    let stated = match orientation {
        ExifOrientation::Ignore => None,
        ExifOrientation::Apply => exif(bytes).as_deref().and_then(Orientation::from_exif_chunk),
    };
    match stated {
        None | Some(Orientation::NoTransforms) => image,
        Some(stated) => transform(&image, stated).unwrap_or(image),
    }
}

fn transform(image: &RgbImage, orientation: Orientation) -> Option<RgbImage> {
    let [width, height] = [image.width(), image.height()].map(u32::try_from);
    let pixels = ::image::RgbImage::from_raw(width.ok()?, height.ok()?, image.pixels().to_vec())?;
    let mut pixels = DynamicImage::ImageRgb8(pixels);
    pixels.apply_orientation(orientation);
    RgbImage::new(pixels.width() as usize, pixels.height() as usize, pixels.into_rgb8().into_raw())
}

/// The EXIF metadata of a JPEG, PNG or WebP file: a TIFF header and directories.
fn exif(bytes: &[u8]) -> Option<Vec<u8>> {
    match ::image::guess_format(bytes).ok()? {
        ImageFormat::Jpeg => jpeg_exif(bytes).map(<[u8]>::to_vec),
        format @ (ImageFormat::Png | ImageFormat::WebP) => {
            let mut decoder = ImageReader::with_format(Cursor::new(bytes), format).into_decoder().ok()?;
            decoder.exif_metadata().ok()?
        }
        _ => None,
    }
}

/// The contents of the first APP1 segment that holds EXIF, before the image data. The `image` crate reads them with a JPEG
/// decoder that is not part of this program.
fn jpeg_exif(bytes: &[u8]) -> Option<&[u8]> {
    const START_OF_SCAN: u8 = 0xda;
    const APP1: u8 = 0xe1;
    let mut rest = bytes.get(2..)?;
    loop {
        rest = match rest {
            // Padding between segments.
            [0xff, 0xff, ..] => &rest[1..],
            [0xff, START_OF_SCAN, ..] => return None,
            [0xff, marker, high, low, after @ ..] => {
                let length = usize::from(u16::from_be_bytes([*high, *low])).checked_sub(2)?;
                let contents = after.get(..length)?;
                if *marker == APP1 && contents.starts_with(b"Exif\0\0") {
                    return contents.get(6..);
                }
                &after[length..]
            }
            _ => return None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::{ExifOrientation, jpeg_exif, orient};
    use crate::image::{self, RgbImage, jpeg};

    /// A little-endian directory with the tag 0x0112 alone.
    fn exif(orientation: u8) -> Vec<u8> {
        let mut exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
        exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
        exif
    }

    /// `file` with the EXIF `orientation` as its first segment.
    fn tagged(file: &[u8], orientation: u8) -> Vec<u8> {
        let exif = exif(orientation);
        let length = u16::try_from(exif.len() + 2).unwrap().to_be_bytes();
        [&file[..2], &[0xff, 0xe1], &length, &exif, &file[2..]].concat()
    }

    /// The source pixel of each pixel of the upright image, by the definition of EXIF 2.32, table 6: `row 0` and `column 0`
    /// of the stored pixels are, for 1 to 8, top left, top right, bottom right, bottom left, left top, right top, right
    /// bottom, left bottom.
    #[test]
    fn all_orientations_follow_the_exif_definition() {
        let (width, height) = (3, 2);
        let pixels: Vec<u8> = (0..6u8).flat_map(|index| [index; 3]).collect();
        let stored = RgbImage::new(width, height, pixels).unwrap();
        let at = |row: usize, column: usize| stored.pixels()[3 * (row * width + column)];
        for orientation in 1..=8 {
            // The decoder is not asked here: only the metadata of the file matter.
            let file = tagged(&[0xff, 0xd8, 0xff, 0xd9], orientation);
            let upright = orient(&file, stored.clone(), ExifOrientation::Apply);
            let swapped = orientation > 4;
            let size = if swapped { (height, width) } else { (width, height) };
            assert_eq!((upright.width(), upright.height()), size, "{orientation}");
            for row in 0..upright.height() {
                for column in 0..upright.width() {
                    let [last_row, last_column] = [upright.height() - 1 - row, upright.width() - 1 - column];
                    let expected = match orientation {
                        1 => at(row, column),
                        2 => at(row, last_column),
                        3 => at(last_row, last_column),
                        4 => at(last_row, column),
                        5 => at(column, row),
                        6 => at(last_column, row),
                        7 => at(last_column, last_row),
                        _ => at(column, last_row),
                    };
                    assert_eq!(upright.pixels()[3 * (row * upright.width() + column)], expected, "{orientation}");
                }
            }
            assert_eq!(orient(&file, stored.clone(), ExifOrientation::Ignore), stored);
        }
    }

    #[test]
    fn real_jpeg_file_is_turned_and_broken_metadata_are_ignored() {
        let stored = RgbImage::new(16, 8, vec![90; 16 * 8 * 3]).unwrap();
        let file = jpeg(&stored, 90).unwrap();
        let turned = |file: &[u8]| {
            let upright = orient(file, image::decode(file).unwrap().image, ExifOrientation::Apply);
            (upright.width(), upright.height())
        };
        assert_eq!(turned(&file), (16, 8));
        let tagged = tagged(&file, 6);
        assert_eq!(turned(&tagged), (8, 16));
        for (position, value) in [(12, b'X'), (24, 0xff), (30, 9)] {
            let mut broken = tagged.clone();
            broken[position] = value;
            assert_eq!(turned(&broken), (16, 8), "byte {position}");
        }
        for length in 0..60 {
            let _ = jpeg_exif(&tagged[..length]);
        }
    }
}
