//! GIF: the first frame on the screen, as in Pillow.
//!
//! The crates `gif` and `image` were considered. They fill what the first frame leaves of the screen with transparent
//! black, where Pillow takes a palette entry; they reject frames beyond the screen and files that are cut; and they
//! reject codes or end blocks where Pillow goes on.

use super::{Decoded, ImageError, ImageFormat, RgbImage, cursor::Cursor, decode::check_size};

/// Colours of the 256 possible indices.
type Palette = [[u8; 3]; 256];

/// Decodes the first frame. Pixels that a cut file lacks have the colour of the screen.
pub(super) fn decode(bytes: &[u8], max_pixels: usize) -> Result<Decoded, ImageError> {
    let frame = read_frame(bytes)?;
    let [mut left, mut top, mut width, mut height] = frame.rectangle;
    let [screen_width, screen_height] = [frame.screen[0].max(left + width), frame.screen[1].max(top + height)];
    check_size(ImageFormat::Gif, screen_width, screen_height, max_pixels)?;
    // Pillow takes this for the whole screen.
    if left == 0 && width == 0 {
        [left, top, width, height] = [0, 0, screen_width, screen_height];
    }
    if width == 0 || height == 0 {
        return Err(invalid("the first frame has no pixels"));
    }
    let mut indices = vec![frame.transparent.unwrap_or(0); screen_width * screen_height];
    let mut rows = FrameRows::new(frame.is_interlaced, height);
    let mut row = rows.next();
    let (mut column, mut decoded) = (0, 0);
    decompress(frame.data, frame.code_size, |index| {
        let Some(y) = row else { return false };
        indices[(top + y) * screen_width + left + column] = index;
        decoded += 1;
        column += 1;
        if column == width {
            column = 0;
            row = rows.next();
        }
        row.is_some()
    });
    if decoded == 0 {
        return Err(ImageError::NoImageData { format: ImageFormat::Gif });
    }
    let pixels = indices.iter().flat_map(|&index| frame.palette[usize::from(index)]).collect();
    let damage = (decoded < width * height)
        .then(|| format!("the GIF data end after {decoded} of {} pixels of the first frame", width * height));
    let image = RgbImage::new(screen_width, screen_height, pixels);
    Ok(Decoded { image: image.ok_or(ImageError::NoImageData { format: ImageFormat::Gif })?, damage })
}

/// The first frame of a file, before decompression.
struct GifFrame<'a> {
    /// Width and height of the screen.
    screen: [usize; 2],
    /// Left, top, width and height of the frame.
    rectangle: [usize; 4],
    palette: Palette,
    transparent: Option<u8>,
    is_interlaced: bool,
    /// Bits of an uncompressed index.
    code_size: u8,
    /// Data blocks.
    data: &'a [u8],
}

fn read_frame(bytes: &[u8]) -> Result<GifFrame<'_>, ImageError> {
    let mut file = Cursor::new(bytes);
    // The signature, which was checked.
    let _: Option<[u8; 6]> = file.array();
    let [width, height] = [file.u16_le(), file.u16_le()].map(|side| side.ok_or_else(header_ends));
    let screen = [width?, height?];
    let [flags, _background, _aspect] = file.array().ok_or_else(header_ends)?;
    let mut palette = read_palette(&mut file, flags)?.flatten();
    let mut transparent = None;
    loop {
        match file.u8() {
            None | Some(b';') => return Err(ImageError::NoImageData { format: ImageFormat::Gif }),
            Some(b'!') => {
                let label = file.u8().ok_or_else(header_ends)?;
                let block = data_block(&mut file);
                match (label, block) {
                    (0xf9, Some(block)) => match block {
                        [flags, _, _, index, ..] if flags & 1 == 1 => transparent = Some(*index),
                        [flags, _, _, ..] if flags & 1 == 0 => {}
                        _ => return Err(invalid("the graphic control extension is too short")),
                    },
                    (0xff, Some(block)) if block.starts_with(b"NETSCAPE2.0") => _ = data_block(&mut file),
                    // The end of the comment has been read: one without a block is complete.
                    (0xfe, None) => continue,
                    _ => {}
                }
                while data_block(&mut file).is_some() {}
            }
            Some(b',') => {
                let mut rectangle = [0; 4];
                for side in &mut rectangle {
                    *side = file.u16_le().ok_or_else(header_ends)?;
                }
                let flags = file.u8().ok_or_else(header_ends)?;
                // A local palette of greys in order does not replace a global palette, as in Pillow.
                if let Some(Some(local)) = read_palette(&mut file, flags)? {
                    palette = Some(local);
                }
                let code_size = file.u8().ok_or_else(header_ends)?;
                return Ok(GifFrame {
                    screen,
                    rectangle,
                    palette: palette.unwrap_or_else(|| std::array::from_fn(|index| [index as u8; 3])),
                    transparent,
                    is_interlaced: flags & 0x40 != 0,
                    code_size,
                    data: file.rest(),
                });
            }
            // Pillow skips junk between blocks.
            Some(_) => {}
        }
    }
}

/// The palette that `flags` announce, if any, and `Some(None)` if it is that of greys in order. Indices beyond a palette
/// are black.
fn read_palette(file: &mut Cursor<'_>, flags: u8) -> Result<Option<Option<Palette>>, ImageError> {
    if flags & 0x80 == 0 {
        return Ok(None);
    }
    let bytes = file.take(6 << (flags & 7)).ok_or_else(header_ends)?;
    let colours = bytes.as_chunks::<3>().0;
    if colours.iter().enumerate().all(|(index, colour)| colour.iter().all(|&value| usize::from(value) == index)) {
        return Ok(Some(None));
    }
    let mut palette = [[0; 3]; 256];
    palette[..colours.len()].copy_from_slice(colours);
    Ok(Some(Some(palette)))
}

/// The next block of an extension, `None` at its end and at the end of the file.
fn data_block<'a>(file: &mut Cursor<'a>) -> Option<&'a [u8]> {
    let length = file.u8()?;
    Some(file.take_up_to(usize::from(length))).filter(|block| !block.is_empty())
}

/// Row numbers of a frame in the order of its data.
struct FrameRows {
    /// Next row and step of the current pass, and the passes after it.
    current: (usize, usize),
    later: std::slice::Iter<'static, (usize, usize)>,
    height: usize,
}

impl FrameRows {
    fn new(is_interlaced: bool, height: usize) -> Self {
        let (current, later): (_, &[_]) =
            if is_interlaced { ((0, 8), &[(4, 8), (2, 4), (1, 2)]) } else { ((0, 1), &[]) };
        Self { current, later: later.iter(), height }
    }
}

impl Iterator for FrameRows {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        while self.current.0 >= self.height {
            self.current = *self.later.next()?;
        }
        let row = self.current.0;
        self.current.0 += self.current.1;
        Some(row)
    }
}

/// Number of codes, of at most 12 bits.
const MAX_CODES: usize = 1 << 12;

/// Decompresses data blocks and passes each index to `put` until it returns false. A block that is cut is not used, and
/// an invalid code ends the data.
///
/// `weezl` was considered. It stops at an empty block and treats codes after a full table and invalid codes otherwise than
/// Pillow.
fn decompress(data: &[u8], code_size: u8, mut put: impl FnMut(u8) -> bool) {
    if code_size > 12 {
        return;
    }
    let (clear, end) = (1_usize << code_size, (1_usize << code_size) + 1);
    // The last index of each code, and the code of those before it.
    let mut table = vec![(0_u8, 0_usize); MAX_CODES];
    let mut string = Vec::new();
    let (mut next, mut width) = (clear + 2, code_size + 1);
    // The previous code and its first index.
    let mut previous: Option<(usize, u8)> = None;
    let (mut bits, mut bit_count) = (0_u32, 0_u8);
    let mut file = Cursor::new(data);
    while let Some(block) = file.u8().and_then(|length| file.take(usize::from(length))) {
        for &byte in block {
            bits |= u32::from(byte) << bit_count;
            bit_count += 8;
            // A byte holds several codes where codes are narrow.
            while bit_count >= width {
                let code = bits as usize & ((1 << width) - 1);
                bits >>= width;
                bit_count -= width;
                if code == end {
                    return;
                }
                if code == clear {
                    (next, width, previous) = (clear + 2, code_size + 1, None);
                    continue;
                }
                let Some((previous_code, previous_first)) = previous else {
                    if code > clear || !put(code as u8) {
                        return;
                    }
                    previous = Some((code, code as u8));
                    continue;
                };
                if code > next {
                    return;
                }
                string.clear();
                let mut rest = code;
                if code == next {
                    string.push(previous_first);
                    rest = previous_code;
                }
                while rest >= clear {
                    // A table entry that was never written can form a cycle.
                    if rest >= MAX_CODES || string.len() >= MAX_CODES {
                        return;
                    }
                    string.push(table[rest].0);
                    rest = table[rest].1;
                }
                let first = rest as u8;
                if !put(first) || !string.iter().rev().all(|&index| put(index)) {
                    return;
                }
                if next < MAX_CODES {
                    table[next] = (first, previous_code);
                    if next == (1 << width) - 1 && width < 12 {
                        width += 1;
                    }
                    next += 1;
                }
                previous = Some((code, first));
            }
        }
    }
}

fn header_ends() -> ImageError {
    invalid("the file ends within its header")
}

fn invalid(reason: &str) -> ImageError {
    ImageError::Undecodable { format: ImageFormat::Gif, reason: reason.to_owned() }
}
