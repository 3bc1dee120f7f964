//! WebP: still images and the first frame of animations, as in Pillow.
//!
//! The pixels of a frame are decoded by `image-webp`. Its composition of frames is not used: it blends the first frame
//! and returns a canvas in another layout for opaque animations, where Pillow copies the frame onto a black canvas.
//! `image-webp` decodes lossy data that end one byte early, which libwebp refuses.

use std::io;

use image_webp::{DecodingError, WebPDecoder};

use super::{Decoded, ImageError, ImageFormat, RgbImage, cursor::Cursor, decode::check_size};

/// Flags of an extended file.
const ANIMATION: u8 = 0x02;
const ALPHA: u8 = 0x10;

/// Decodes a file. Pillow reads no WebP file that is cut.
pub(super) fn decode(bytes: &[u8], max_pixels: usize) -> Result<Decoded, ImageError> {
    let file = File::read(bytes)?;
    let [width, height] = file.canvas;
    check_size(ImageFormat::WebP, width, height, max_pixels)?;
    let frame = &file.frame;
    let [frame_width, frame_height] = frame.size;
    let pixels = frame.decode()?;
    let mut canvas = vec![0; 3 * width * height];
    for (y, row) in pixels.chunks_exact(3 * frame_width).take(frame_height).enumerate() {
        let start = 3 * ((frame.position[1] + y) * width + frame.position[0]);
        canvas[start..start + row.len()].copy_from_slice(row);
    }
    let image = RgbImage::new(width, height, canvas);
    Ok(Decoded { image: image.ok_or(ImageError::NoImageData { format: ImageFormat::WebP })?, damage: None })
}

/// A still file, or an animation without its later frames.
struct File<'a> {
    canvas: [usize; 2],
    frame: WebpFrame<'a>,
}

impl<'a> File<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, ImageError> {
        let mut file = Cursor::new(bytes);
        let _: Option<[u8; 4]> = file.array();
        let length = file.u32_le().ok_or_else(cut)? as usize;
        // Bytes after the file do not matter.
        let mut file = Cursor::new(file.take(length).ok_or_else(cut)?);
        let _: Option<[u8; 4]> = file.array();
        let mut chunks = Chunks(file);
        let (kind, payload) = chunks.next().ok_or_else(cut)??;
        if kind != *b"VP8X" {
            let frame = WebpFrame::find(std::iter::once(Ok((kind, payload))).chain(chunks))?;
            return Ok(Self { canvas: frame.size, frame });
        }
        let mut header = Cursor::new(payload);
        let [flags, _, _, _] = header.array().ok_or_else(cut)?;
        let canvas = [header.u24_le().ok_or_else(cut)? + 1, header.u24_le().ok_or_else(cut)? + 1];
        let frame = if flags & ANIMATION == 0 {
            let mut frame = WebpFrame::find(chunks)?;
            if flags & ALPHA == 0 {
                frame.alpha = None;
            }
            if frame.size != canvas {
                return Err(mismatch());
            }
            frame
        } else {
            Self::first_frame(chunks, canvas)?
        };
        Ok(Self { canvas, frame })
    }

    /// The first frame of an animation. The headers of all frames are checked, as in Pillow.
    fn first_frame(chunks: Chunks<'a>, canvas: [usize; 2]) -> Result<WebpFrame<'a>, ImageError> {
        let (mut first, mut has_parameters) = (None, false);
        for chunk in chunks {
            let (kind, payload) = chunk?;
            match &kind {
                b"ANIM" => has_parameters = true,
                b"ANMF" if has_parameters => {
                    let frame = WebpFrame::of_animation(payload)?;
                    if (0..2).any(|side| frame.position[side] + frame.size[side] > canvas[side]) {
                        return Err(mismatch());
                    }
                    first.get_or_insert(frame);
                }
                b"ANMF" | b"VP8X" | b"VP8 " | b"VP8L" | b"ALPH" => {
                    return Err(invalid("chunks that do not belong into an animation, or not there"));
                }
                _ => {}
            }
        }
        first.ok_or(ImageError::NoImageData { format: ImageFormat::WebP })
    }
}

/// A frame before decoding.
struct WebpFrame<'a> {
    position: [usize; 2],
    size: [usize; 2],
    alpha: Option<&'a [u8]>,
    is_lossless: bool,
    data: &'a [u8],
}

impl<'a> WebpFrame<'a> {
    fn of_animation(payload: &'a [u8]) -> Result<Self, ImageError> {
        let mut header = Cursor::new(payload);
        let mut fields = [0; 4];
        for field in &mut fields {
            *field = header.u24_le().ok_or_else(cut)?;
        }
        let [x, y, width, height] = fields;
        let _duration_and_flags: [u8; 4] = header.array().ok_or_else(cut)?;
        let mut frame = Self::find(Chunks(header))?;
        frame.position = [2 * x, 2 * y];
        if frame.size != [width + 1, height + 1] {
            return Err(mismatch());
        }
        Ok(frame)
    }

    /// The image among `chunks`, with the transparency before it.
    fn find(chunks: impl Iterator<Item = Result<Chunk<'a>, ImageError>>) -> Result<Self, ImageError> {
        let mut alpha = None;
        let mut found: Option<Self> = None;
        for chunk in chunks {
            let (kind, data) = chunk?;
            let is_lossless = kind == *b"VP8L";
            match &kind {
                b"ALPH" if found.is_none() => _ = alpha.get_or_insert(data),
                b"VP8 " | b"VP8L" if found.is_none() => {
                    let size = if is_lossless { lossless_size(data) } else { lossy_size(data) }?;
                    found = Some(Self { position: [0; 2], size, alpha, is_lossless, data });
                }
                b"ALPH" | b"VP8 " | b"VP8L" | b"VP8X" => {
                    return Err(invalid("more than one image, or chunks out of order"));
                }
                _ => {}
            }
        }
        found.ok_or(ImageError::NoImageData { format: ImageFormat::WebP })
    }

    /// The pixels, without transparency.
    fn decode(&self) -> Result<Vec<u8>, ImageError> {
        let failed = |error: DecodingError| invalid(&error.to_string());
        let mut decoder = WebPDecoder::new(io::Cursor::new(self.still())).map_err(failed)?;
        let [width, height] = self.size;
        let channels = if decoder.has_alpha() { 4 } else { 3 };
        let mut pixels = vec![0; width * height * channels];
        decoder.read_image(&mut pixels).map_err(failed)?;
        if channels == 4 {
            pixels = pixels.as_chunks::<4>().0.iter().flat_map(|&[red, green, blue, _]| [red, green, blue]).collect();
        }
        Ok(pixels)
    }

    /// The frame as a still file.
    fn still(&self) -> Vec<u8> {
        let mut body = b"WEBP".to_vec();
        let mut push = |kind: &[u8; 4], parts: &[&[u8]]| {
            let length: usize = parts.iter().map(|part| part.len()).sum();
            body.extend(kind);
            body.extend((length as u32).to_le_bytes());
            parts.iter().for_each(|part| body.extend(*part));
            body.resize(body.len().next_multiple_of(2), 0);
        };
        if let Some(alpha) = self.alpha {
            let [width, height] = self.size.map(|side| (side as u32 - 1).to_le_bytes());
            push(b"VP8X", &[&[ALPHA, 0, 0, 0], &width[..3], &height[..3]]);
            push(b"ALPH", &[alpha]);
        }
        push(if self.is_lossless { b"VP8L" } else { b"VP8 " }, &[self.data]);
        let mut file = b"RIFF".to_vec();
        file.extend((body.len() as u32).to_le_bytes());
        file.extend(body);
        file
    }
}

fn lossy_size(data: &[u8]) -> Result<[usize; 2], ImageError> {
    let mut header = Cursor::new(data);
    let _frame_tag: [u8; 3] = header.array().ok_or_else(cut)?;
    if header.array() != Some([0x9d, 0x01, 0x2a]) {
        return Err(invalid("not the start of VP8 data"));
    }
    // The upper two bits ask for scaling, which decoders ignore.
    let mut side = || header.u16_le().map(|side| side & 0x3fff).ok_or_else(cut);
    Ok([side()?, side()?])
}

fn lossless_size(data: &[u8]) -> Result<[usize; 2], ImageError> {
    let mut header = Cursor::new(data);
    if header.u8() != Some(0x2f) {
        return Err(invalid("not the start of VP8L data"));
    }
    let sides = header.u32_le().ok_or_else(cut)? as usize;
    Ok([(sides & 0x3fff) + 1, (sides >> 14 & 0x3fff) + 1])
}

/// Kind and payload.
type Chunk<'a> = ([u8; 4], &'a [u8]);

/// The chunks of a file or of a frame.
struct Chunks<'a>(Cursor<'a>);

impl<'a> Iterator for Chunks<'a> {
    type Item = Result<Chunk<'a>, ImageError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.rest().is_empty() {
            return None;
        }
        let chunk = (|| {
            let kind = self.0.array()?;
            let length = self.0.u32_le()? as usize;
            let payload = self.0.take(length)?;
            // Payloads are padded to an even length.
            self.0.take(length % 2)?;
            Some((kind, payload))
        })();
        Some(chunk.ok_or_else(cut))
    }
}

fn cut() -> ImageError {
    invalid("the file is truncated, and WebP files are not decoded in part")
}

fn mismatch() -> ImageError {
    invalid("the image does not have the size of the canvas, or leaves it")
}

fn invalid(reason: &str) -> ImageError {
    ImageError::Undecodable { format: ImageFormat::WebP, reason: reason.to_owned() }
}
