//! PNG, GIF, BMP and WebP.

use std::io::Cursor;

use ::image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use super::{ImageError, MAX_PIXELS, RgbImage, decode::check_size};

/// Decodes the first frame to RGB.
pub(super) fn decode(bytes: &[u8]) -> Result<RgbImage, ImageError> {
    let format = match ::image::guess_format(bytes) {
        Ok(format @ (ImageFormat::Png | ImageFormat::Gif | ImageFormat::Bmp | ImageFormat::WebP)) => format,
        _ => return Err(ImageError::Format),
    };
    let mut limits = Limits::default();
    // Four channels of 16 bits, and the decoder's copy.
    limits.max_alloc = Some(16 * MAX_PIXELS as u64);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits);
    let decoder = reader.into_decoder()?;
    let [width, height] = <[u32; 2]>::from(decoder.dimensions()).map(|side| side as usize);
    check_size(width, height)?;
    let pixels = rgb(DynamicImage::from_decoder(decoder)?);
    RgbImage::new(width, height, pixels).ok_or(ImageError::Format)
}

/// Pillow takes the high byte of 16-bit colours, and clips 16-bit grey at 255.
fn rgb(image: DynamicImage) -> Vec<u8> {
    match image {
        DynamicImage::ImageRgb8(image) => image.into_raw(),
        DynamicImage::ImageLuma16(image) => each::<1, u16>(image.as_raw(), |[grey]| [grey.min(255) as u8; 3]),
        DynamicImage::ImageLumaA16(image) => each::<2, u16>(image.as_raw(), |[grey, _]| [(grey >> 8) as u8; 3]),
        DynamicImage::ImageRgb16(image) => each::<3, u16>(image.as_raw(), |rgb| rgb.map(|value| (value >> 8) as u8)),
        DynamicImage::ImageRgba16(image) => {
            each::<4, u16>(image.as_raw(), |[r, g, b, _]| [r, g, b].map(|value| (value >> 8) as u8))
        }
        DynamicImage::ImageLuma8(image) => each::<1, u8>(image.as_raw(), |[grey]| [grey; 3]),
        DynamicImage::ImageLumaA8(image) => each::<2, u8>(image.as_raw(), |[grey, _]| [grey; 3]),
        DynamicImage::ImageRgba8(image) => each::<4, u8>(image.as_raw(), |[r, g, b, _]| [r, g, b]),
        other => other.into_rgb8().into_raw(),
    }
}

fn each<const N: usize, T: Copy>(values: &[T], pixel: impl Fn([T; N]) -> [u8; 3]) -> Vec<u8> {
    values.as_chunks::<N>().0.iter().flat_map(|&values| pixel(values)).collect()
}
