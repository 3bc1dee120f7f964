//! JPEG by libjpeg-turbo, whose output equals Pillow's bit for bit: accurate DCT, interpolated chroma.
//!
//! Coefficients that overflow 16 bits, which only corrupt files have, decode differently with and without the SIMD of
//! libjpeg-turbo. Pillow's wheels have it; this library has it if `nasm` was there when it was built.
#![allow(unsafe_code, reason = "the C interface tells a warning from an error, which decoding of cut files needs")]

use std::ffi::{CStr, c_int};

use turbojpeg_sys as turbo;

use super::{Decoded, ImageError, ImageFormat, RgbImage, decode::check_size};

/// Maximum number of scans of a progressive file. A small file with many scans would take hours; encoders write about ten.
const MAX_SCANS: c_int = 500;

const NO_IMAGE_DATA: ImageError = ImageError::NoImageData { format: ImageFormat::Jpeg };

fn undecodable(reason: String) -> ImageError {
    ImageError::Undecodable { format: ImageFormat::Jpeg, reason }
}

/// Decodes a file. The missing part of a truncated file is grey, as in libjpeg. A file without image data, or with an error
/// that stops the decoder, is rejected, and so is one of several scans that ends within a table, of which Pillow decodes
/// nothing.
pub(super) fn decode(bytes: &[u8], max_pixels: usize) -> Result<Decoded, ImageError> {
    check_segments(bytes)?;
    let mut decompressor = Decompressor::new()?;
    let header = decompressor.header(bytes)?;
    check_size(ImageFormat::Jpeg, header.width, header.height, max_pixels)?;
    let format = if header.is_cmyk { turbo::TJPF_TJPF_CMYK } else { turbo::TJPF_TJPF_RGB };
    let row = header.width * if header.is_cmyk { 4 } else { 3 };
    let mut pixels = vec![0; row * header.height];
    let damage = decompressor.pixels(bytes, format, row, &mut pixels)?;
    if header.is_cmyk {
        pixels = rgb_from_cmyk(&pixels);
    }
    let image = RgbImage::new(header.width, header.height, pixels).ok_or(NO_IMAGE_DATA)?;
    Ok(Decoded { image, damage })
}

struct JpegHeader {
    width: usize,
    height: usize,
    is_cmyk: bool,
}

struct Decompressor(turbo::tjhandle);

impl Decompressor {
    fn new() -> Result<Self, ImageError> {
        // SAFETY: takes a number and returns a handle or null.
        let handle = unsafe { turbo::tj3Init(turbo::TJINIT_TJINIT_DECOMPRESS as c_int) };
        if handle.is_null() {
            return Err(undecodable("libjpeg-turbo cannot be started".to_owned()));
        }
        let mut this = Self(handle);
        this.set(turbo::TJPARAM_TJPARAM_SCANLIMIT, MAX_SCANS)?;
        // Colour profiles would be copied without this.
        this.set(turbo::TJPARAM_TJPARAM_SAVEMARKERS, 0)?;
        Ok(this)
    }

    fn set(&mut self, parameter: turbo::TJPARAM, value: c_int) -> Result<(), ImageError> {
        // SAFETY: the handle lives as long as `self`.
        let status = unsafe { turbo::tj3Set(self.0, parameter as c_int, value) };
        if status == 0 { Ok(()) } else { Err(self.error()) }
    }

    fn get(&mut self, parameter: turbo::TJPARAM) -> c_int {
        // SAFETY: the handle lives as long as `self`.
        unsafe { turbo::tj3Get(self.0, parameter as c_int) }
    }

    fn header(&mut self, bytes: &[u8]) -> Result<JpegHeader, ImageError> {
        // SAFETY: pointer and length are those of one slice, which is only read during the call.
        let status = unsafe { turbo::tj3DecompressHeader(self.0, bytes.as_ptr(), bytes.len() as turbo::size_t) };
        if status != 0 && !self.is_warning() {
            return Err(self.error());
        }
        let colorspace = self.get(turbo::TJPARAM_TJPARAM_COLORSPACE);
        let size = [turbo::TJPARAM_TJPARAM_JPEGWIDTH, turbo::TJPARAM_TJPARAM_JPEGHEIGHT].map(|side| self.get(side));
        let [Ok(width), Ok(height)] = size.map(usize::try_from) else { return Err(NO_IMAGE_DATA) };
        let is_cmyk = [turbo::TJCS_TJCS_CMYK, turbo::TJCS_TJCS_YCCK].iter().any(|&kind| kind as c_int == colorspace);
        Ok(JpegHeader { width, height, is_cmyk })
    }

    /// Decodes into `pixels`, rows of `row` bytes each, zero at first; returns what was wrong with the file, if it was
    /// not bad enough to stop.
    fn pixels(
        &mut self,
        bytes: &[u8],
        format: turbo::TJPF,
        row: usize,
        pixels: &mut [u8],
    ) -> Result<Option<String>, ImageError> {
        if self.decompress(bytes, format, row, pixels)? {
            return Ok(None);
        }
        // An error that follows a warning is reported as a warning; but then the last row has not been written.
        let start = pixels.len() - row;
        if pixels[start..].iter().all(|&value| value == 0) {
            pixels[start..].fill(255);
            self.decompress(bytes, format, row, pixels)?;
            if pixels[start..].iter().all(|&value| value == 255) {
                return Err(self.error());
            }
        }
        Ok(Some(self.message()))
    }

    /// Whether the file was decoded without a warning.
    fn decompress(
        &mut self,
        bytes: &[u8],
        format: turbo::TJPF,
        row: usize,
        pixels: &mut [u8],
    ) -> Result<bool, ImageError> {
        let pitch = c_int::try_from(row).map_err(|_| NO_IMAGE_DATA)?;
        // SAFETY: `bytes` is only read; `pixels` has `height` rows of `pitch` bytes, as the header of these bytes says,
        // and the header is the same at each reading.
        let status = unsafe {
            turbo::tj3Decompress8(
                self.0,
                bytes.as_ptr(),
                bytes.len() as turbo::size_t,
                pixels.as_mut_ptr(),
                pitch,
                format,
            )
        };
        if status != 0 && !self.is_warning() {
            return Err(self.error());
        }
        Ok(status == 0)
    }

    fn is_warning(&mut self) -> bool {
        // SAFETY: the handle lives as long as `self`.
        unsafe { turbo::tj3GetErrorCode(self.0) == turbo::TJERR_TJERR_WARNING as c_int }
    }

    fn message(&mut self) -> String {
        // SAFETY: the library returns a string that ends in zero and lives until its next call.
        unsafe { CStr::from_ptr(turbo::tj3GetErrorStr(self.0)) }.to_string_lossy().into_owned()
    }

    fn error(&mut self) -> ImageError {
        undecodable(self.message())
    }
}

impl Drop for Decompressor {
    fn drop(&mut self) {
        // SAFETY: the handle is not used afterwards.
        unsafe { turbo::tj3Destroy(self.0) }
    }
}

/// Checks that a byte follows the header of the first scan, without which a file decodes to an even grey, and that a file
/// of several scans does not end within a table, of which Pillow decodes nothing.
fn check_segments(bytes: &[u8]) -> Result<(), ImageError> {
    const END: u8 = 0xd9;
    const START_OF_SCAN: u8 = 0xda;
    let mut rest = &bytes[2..];
    // Components of the frame, and whether there are several scans.
    let (mut components, mut has_scan, mut has_several_scans) = (0, false, false);
    loop {
        match rest {
            // Padding before a marker.
            [0xff, 0xff, ..] => rest = &rest[1..],
            // A byte of a scan, or a marker without a segment.
            [0xff, 0x00 | 0x01 | 0xd0..=0xd8, after @ ..] => rest = after,
            [0xff, END, ..] | [0xff] | [] => return if has_scan { Ok(()) } else { Err(NO_IMAGE_DATA) },
            [0xff, marker, high, low, ..] => {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                let (Some(segment), Some(after)) = (rest.get(4..2 + length), rest.get(2 + length..)) else {
                    break;
                };
                rest = after;
                match marker {
                    // Frames; 0xc4, 0xc8 and 0xcc are tables.
                    0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                        components = segment.get(5).copied().unwrap_or(0);
                        has_several_scans = marker & 3 == 2;
                    }
                    &START_OF_SCAN if !has_scan => {
                        if matches!(after, [] | [0xff] | [0xff, END, ..]) {
                            return Err(NO_IMAGE_DATA);
                        }
                        has_scan = true;
                        has_several_scans |= segment.first().is_some_and(|&count| count < components);
                        if !has_several_scans {
                            return Ok(());
                        }
                    }
                    _ => {}
                }
            }
            [0xff, ..] => break,
            [_, after @ ..] => rest = after,
        }
    }
    Err(if has_scan { undecodable("a file of several scans ends within a table".to_owned()) } else { NO_IMAGE_DATA })
}

/// Files hold inverted values (as Adobe writes them), so that 255 means no ink; the arithmetic is Pillow's.
fn rgb_from_cmyk(pixels: &[u8]) -> Vec<u8> {
    let mut rgb = Vec::with_capacity(pixels.len() / 4 * 3);
    for pixel in pixels.as_chunks::<4>().0 {
        let [inks @ .., light] = pixel.map(i32::from);
        rgb.extend(inks.map(|ink| (light - product_of_shares(255 - ink, light)).clamp(0, 255) as u8));
    }
    rgb
}

/// `a * b / 255` for values of 0 to 255, rounded as Pillow rounds it.
fn product_of_shares(a: i32, b: i32) -> i32 {
    let product = a * b + 128;
    ((product >> 8) + product) >> 8
}
