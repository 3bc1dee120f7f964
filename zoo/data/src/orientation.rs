//! The orientation that EXIF metadata state.
//!
//! Cameras store the rotation of a photo as metadata. The authors' code ignores it, and so does everything here unless the
//! caller asks for it.

use std::io::Cursor;

use exif::{In, Tag};

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
    match orientation {
        ExifOrientation::Ignore => image,
        ExifOrientation::Apply => stated_orientation(bytes).and_then(|stated| upright(&image, stated)).unwrap_or(image),
    }
}

/// The value 1 to 8 of the tag `Orientation` of a JPEG, PNG or WebP file.
fn stated_orientation(bytes: &[u8]) -> Option<u32> {
    let metadata = exif::Reader::new().continue_on_error(true).read_from_container(&mut Cursor::new(bytes));
    // Fields besides the orientation may be damaged, as in files of some cameras.
    let metadata = metadata.or_else(|error| error.distill_partial_result(|_| ())).ok()?;
    metadata.get_field(Tag::Orientation, In::PRIMARY)?.value.get_uint(0)
}

/// `image` as EXIF 2.32, table 6, says for `orientation`; `None` for 1, and for values that are not defined.
fn upright(image: &RgbImage, orientation: u32) -> Option<RgbImage> {
    // Whether rows and columns are swapped, then whether columns and rows are counted from the end of the stored image.
    let (is_transposed, from_right, from_bottom) = match orientation {
        2 => (false, true, false),
        3 => (false, true, true),
        4 => (false, false, true),
        5 => (true, false, false),
        6 => (true, false, true),
        7 => (true, true, true),
        8 => (true, true, false),
        _ => return None,
    };
    let (stored_width, stored_height) = (image.width(), image.height());
    let [width, height] = if is_transposed { [stored_height, stored_width] } else { [stored_width, stored_height] };
    let stored = image.pixels().as_chunks::<3>().0;
    let mut pixels = Vec::with_capacity(stored.len());
    for y in 0..height {
        for x in 0..width {
            let [column, row] = if is_transposed { [y, x] } else { [x, y] };
            let column = if from_right { stored_width - 1 - column } else { column };
            let row = if from_bottom { stored_height - 1 - row } else { row };
            pixels.push(stored[row * stored_width + column]);
        }
    }
    RgbImage::new(width, height, pixels.into_flattened())
}

#[cfg(test)]
mod tests {
    use super::{ExifOrientation, orient};
    use crate::image::{self, RgbImage, jpeg};

    /// A little-endian directory with the tag 0x0112 alone.
    fn exif(orientation: u8) -> Vec<u8> {
        let mut exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
        exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
        exif
    }

    /// `file` with the EXIF `orientation` as its first segment.
    fn tagged(file: &[u8], orientation: u8) -> Vec<u8> {
        with_segment(file, &exif(orientation))
    }

    /// `file` with an APP1 segment of `contents` as its first one.
    fn with_segment(file: &[u8], contents: &[u8]) -> Vec<u8> {
        let length = u16::try_from(contents.len() + 2).unwrap().to_be_bytes();
        [&file[..2], &[0xff, 0xe1], &length, contents, &file[2..]].concat()
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
            let _ = orient(&tagged[..length], stored.clone(), ExifOrientation::Apply);
        }
    }

    #[test]
    fn damaged_field_beside_the_orientation_is_ignored() {
        let stored = RgbImage::new(16, 8, vec![90; 16 * 8 * 3]).unwrap();
        // The maker of the camera is a text that lies beyond the end.
        let mut tiff = b"Exif\0\0II*\0\x08\0\0\0\x02\0\x0f\x01\x02\0\x09\0\0\0\xff\xff\0\0".to_vec();
        tiff.extend(b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0");
        let file = with_segment(&jpeg(&stored, 90).unwrap(), &tiff);
        let upright = orient(&file, stored, ExifOrientation::Apply);
        assert_eq!((upright.width(), upright.height()), (8, 16));
    }

    #[test]
    fn no_byte_of_the_metadata_causes_a_panic() {
        let stored = RgbImage::new(1, 1, vec![90; 3]).unwrap();
        let file = tagged(&[0xff, 0xd8, 0xff, 0xd9], 6);
        for position in 2..file.len() {
            for value in 0..=u8::MAX {
                let mut changed = file.clone();
                changed[position] = value;
                let _ = orient(&changed, stored.clone(), ExifOrientation::Apply);
            }
        }
    }

    #[test]
    fn png_file_with_metadata_is_turned() {
        let mut file = Vec::new();
        let mut info = png::Info::with_size(16, 8);
        info.color_type = png::ColorType::Rgb;
        info.exif_metadata = Some(exif(6)[6..].to_vec().into());
        let mut writer = png::Encoder::with_info(&mut file, info).unwrap().write_header().unwrap();
        writer.write_image_data(&[90; 16 * 8 * 3]).unwrap();
        writer.finish().unwrap();
        let upright = orient(&file, image::decode(&file).unwrap().image, ExifOrientation::Apply);
        assert_eq!((upright.width(), upright.height()), (8, 16));
    }
}
