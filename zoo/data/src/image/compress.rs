//! Encodes JPEG and PNG files for reports. No result depends on it.
#![allow(unsafe_code, reason = "the C interface of libjpeg-turbo, whose decoder is here anyway")]

use std::ffi::{CStr, c_int};

use turbojpeg_sys as turbo;

use super::{ImageError, ImageFormat, RgbImage, resize};

/// Encodes `image` as a JPEG file of `quality` 1 to 100, without chroma subsampling.
///
/// # Errors
/// If the image is larger than the format allows, which is 65,535 pixels a side.
pub fn jpeg(image: &RgbImage, quality: u8) -> Result<Vec<u8>, ImageError> {
    let mut compressor = Compressor::new()?;
    compressor.set(turbo::TJPARAM_TJPARAM_QUALITY, c_int::from(quality.clamp(1, 100)))?;
    compressor.set(turbo::TJPARAM_TJPARAM_SUBSAMP, turbo::TJSAMP_TJSAMP_444 as c_int)?;
    // The buffer has the maximum size of the file.
    compressor.set(turbo::TJPARAM_TJPARAM_NOREALLOC, 1)?;
    compressor.compress(image)
}

/// Encodes `image` as a PNG file.
///
/// # Errors
/// If the image is larger than the format allows.
pub fn png(image: &RgbImage) -> Result<Vec<u8>, ImageError> {
    png_of_pixels(image.pixels(), image.width(), image.height())
}

/// Encodes rows of RGB samples as a PNG file.
pub(crate) fn png_of_pixels(pixels: &[u8], width: usize, height: usize) -> Result<Vec<u8>, ImageError> {
    let fault = |reason: String| ImageError::Encode { format: ImageFormat::Png, reason };
    let side = |side: usize| u32::try_from(side).map_err(|_| fault("too large for a PNG file".to_owned()));
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, side(width)?, side(height)?);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_compression(png::Compression::Fast);
    encoder.set_filter(png::Filter::Adaptive);
    let written = encoder.write_header().and_then(|mut writer| {
        writer.write_image_data(pixels)?;
        writer.finish()
    });
    written.map_err(|error| fault(error.to_string()))?;
    Ok(bytes)
}

/// Encodes `image` as a JPEG file of `quality` 1 to 100, with its longer side reduced to at most `longest` pixels.
///
/// # Errors
/// As [`jpeg`].
pub fn thumbnail(image: &RgbImage, longest: usize, quality: u8) -> Result<Vec<u8>, ImageError> {
    let longer = image.width().max(image.height());
    if longer <= longest {
        return jpeg(image, quality);
    }
    let side = |side: usize| (side * longest).div_ceil(longer).max(1);
    jpeg(&resize(image, side(image.width()), side(image.height())), quality)
}

struct Compressor(turbo::tjhandle);

impl Compressor {
    fn new() -> Result<Self, ImageError> {
        // SAFETY: takes a number and returns a handle or null.
        let handle = unsafe { turbo::tj3Init(turbo::TJINIT_TJINIT_COMPRESS as c_int) };
        if handle.is_null() {
            return Err(ImageError::Encode {
                format: ImageFormat::Jpeg,
                reason: "libjpeg-turbo cannot be started".to_owned(),
            });
        }
        Ok(Self(handle))
    }

    fn set(&mut self, parameter: turbo::TJPARAM, value: c_int) -> Result<(), ImageError> {
        // SAFETY: the handle lives as long as `self`.
        let status = unsafe { turbo::tj3Set(self.0, parameter as c_int, value) };
        if status == 0 { Ok(()) } else { Err(self.error()) }
    }

    fn compress(&mut self, image: &RgbImage) -> Result<Vec<u8>, ImageError> {
        let too_large =
            || ImageError::Encode { format: ImageFormat::Jpeg, reason: "too large for a JPEG file".to_owned() };
        let side = |side: usize| u16::try_from(side).map(c_int::from).map_err(|_| too_large());
        let [width, height] = [side(image.width())?, side(image.height())?];
        // SAFETY: takes numbers and returns one.
        let longest = unsafe { turbo::tj3JPEGBufSize(width, height, turbo::TJSAMP_TJSAMP_444 as c_int) };
        let mut bytes = vec![0_u8; usize::try_from(longest).map_err(|_| too_large())?];
        let (mut pointer, mut length) = (bytes.as_mut_ptr(), longest);
        // SAFETY: the pixels are `height` rows of `width` times three bytes without gaps (pitch 0), as `RgbImage` sees to;
        // `pointer` has room for `length` bytes, which is the most that the library writes, and it does not move it.
        let status = unsafe {
            turbo::tj3Compress8(
                self.0,
                image.pixels().as_ptr(),
                width,
                0,
                height,
                turbo::TJPF_TJPF_RGB as c_int,
                &mut pointer,
                &mut length,
            )
        };
        if status != 0 {
            return Err(self.error());
        }
        bytes.truncate(usize::try_from(length).map_err(|_| too_large())?);
        Ok(bytes)
    }

    fn error(&mut self) -> ImageError {
        // SAFETY: the library returns a string that ends in zero and lives until its next call.
        let reason = unsafe { CStr::from_ptr(turbo::tj3GetErrorStr(self.0)) }.to_string_lossy().into_owned();
        ImageError::Encode { format: ImageFormat::Jpeg, reason }
    }
}

impl Drop for Compressor {
    fn drop(&mut self) {
        // SAFETY: the handle is not used afterwards.
        unsafe { turbo::tj3Destroy(self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::decode, *};

    /// A colour gradient is preserved within the loss of this quality.
    #[test]
    fn compressed_jpeg_decodes() {
        let pixels: Vec<u8> =
            (0..40 * 23).flat_map(|index| [index % 40 * 6, index / 40 * 11, 128]).map(|v| v as u8).collect();
        let image = RgbImage::new(40, 23, pixels).unwrap();
        let bytes = jpeg(&image, 90).unwrap();
        let found = decode(&bytes).unwrap();
        assert_eq!((found.image.width(), found.image.height(), found.damage), (40, 23, None));
        let differences = image.pixels().iter().zip(found.image.pixels()).map(|(a, b)| a.abs_diff(*b));
        // Quantisation at quality 90 moves a smooth value by a few of 255 levels.
        assert!(differences.max().unwrap() <= 12);
        assert!(bytes.len() < image.pixels().len());
    }

    #[test]
    fn compressed_png_decodes_to_the_same_pixels() {
        let pixels: Vec<u8> = (0..3 * 40 * 23).map(|index| (index * index % 251) as u8).collect();
        let image = RgbImage::new(40, 23, pixels).unwrap();
        let found = decode(&png(&image).unwrap()).unwrap();
        assert_eq!((found.image, found.damage), (image, None));
    }

    #[test]
    fn image_too_large_for_jpeg_is_rejected() {
        let image = RgbImage::new(65_536, 1, vec![0; 3 * 65_536]).unwrap();
        assert!(jpeg(&image, 80).is_err());
    }
}
