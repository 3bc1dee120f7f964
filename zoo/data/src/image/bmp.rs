//! BMP, as in Pillow.
//!
//! The crate `image` was considered. It rounds 16-bit colours otherwise, reads masks and run-length data that Pillow
//! rejects, and rejects files that are cut.

use super::{Decoded, ImageError, ImageFormat, RgbImage, cursor::Cursor, decode::check_size};

/// Values of the field `compression`.
const RLE8: u32 = 1;
const RLE4: u32 = 2;
const BIT_FIELDS: u32 = 3;

/// How a pixel is stored.
#[derive(Clone, Copy)]
enum Layout {
    /// Palette indices of 1, 4 or 8 bits.
    Indices(usize),
    /// Two bytes with 5 bits each of red, green and blue; green has the number of bits.
    Packed {
        /// 5 or 6.
        green_bits: u32,
    },
    /// Bytes.
    Bytes {
        /// Bytes of a pixel.
        count: usize,
        /// Positions of red, green and blue.
        rgb: [usize; 3],
    },
}

impl Layout {
    /// Bits of a pixel.
    fn bits(self) -> usize {
        match self {
            Self::Indices(bits) => bits,
            Self::Packed { .. } => 16,
            Self::Bytes { count, .. } => 8 * count,
        }
    }
}

struct BmpHeader {
    width: usize,
    height: usize,
    is_top_down: bool,
    bits: usize,
    compression: u32,
    layout: Layout,
    /// Colours of the 256 possible indices.
    palette: Box<[[u8; 3]; 256]>,
    /// Position of the pixels in the file.
    offset: usize,
}

/// Decodes a file. Rows that a cut file lacks have index or value 0.
pub(super) fn decode(bytes: &[u8], max_pixels: usize) -> Result<Decoded, ImageError> {
    let header = BmpHeader::read(bytes)?;
    check_size(ImageFormat::Bmp, header.width, header.height, max_pixels)?;
    let data = bytes.get(header.offset..).unwrap_or_default();
    let indices;
    let rows: Vec<&[u8]> = if header.is_run_length() {
        indices = header.run_length_indices(data);
        if indices.len() < header.width * header.height {
            return Err(invalid("the run-length data end too early".to_owned()));
        }
        indices.chunks_exact(header.width).take(header.height).collect()
    } else {
        header.rows(data)?
    };
    if rows.is_empty() {
        return Err(ImageError::NoImageData { format: ImageFormat::Bmp });
    }
    let blank = match header.layout {
        Layout::Indices(_) => header.palette[0],
        _ => [0; 3],
    };
    let mut pixels = vec![blank; header.width * header.height];
    for (number, row) in rows.iter().enumerate() {
        let y = if header.is_top_down { number } else { header.height - 1 - number };
        header.unpack(row, &mut pixels[y * header.width..][..header.width]);
    }
    let damage = (rows.len() < header.height)
        .then(|| format!("the BMP data end after {} of {} rows", rows.len(), header.height));
    let image = RgbImage::new(header.width, header.height, pixels.into_flattened());
    Ok(Decoded { image: image.ok_or(ImageError::NoImageData { format: ImageFormat::Bmp })?, damage })
}

impl BmpHeader {
    fn read(bytes: &[u8]) -> Result<Self, ImageError> {
        let mut file = Cursor::new(bytes);
        let _: [u8; 10] = file.array().ok_or_else(header_ends)?;
        let mut offset = file.u32_le().ok_or_else(header_ends)? as usize;
        let header_size = file.u32_le().ok_or_else(header_ends)? as usize;
        if !matches!(header_size, 12 | 40 | 52 | 56 | 64 | 108 | 124) {
            return Err(invalid(format!("a header of {header_size} bytes")));
        }
        let mut fields = Cursor::new(file.take(header_size - 4).ok_or_else(header_ends)?);
        let mut masks = None;
        let (width, height, bits, compression, mut colours, is_top_down);
        if header_size == 12 {
            [width, height] = [fields.u16_le().ok_or_else(header_ends)?, fields.u16_le().ok_or_else(header_ends)?];
            let _planes = fields.u16_le();
            bits = fields.u16_le().ok_or_else(header_ends)?;
            (compression, colours, is_top_down) = (0, 0, false);
        } else {
            let mut next = || fields.u32_le().ok_or_else(header_ends);
            let (signed_width, signed_height, planes_and_bits) = (next()?, next()?, next()?);
            compression = next()?;
            let [_size, _x_resolution, _y_resolution, colour_count, _important] =
                [next()?, next()?, next()?, next()?, next()?];
            // The height of a file from top to bottom is negative; of others, a large number is too large.
            is_top_down = signed_height >> 24 == 0xff;
            width = signed_width as usize;
            height = if is_top_down { signed_height.wrapping_neg() } else { signed_height } as usize;
            bits = (planes_and_bits >> 16) as usize;
            colours = colour_count as usize;
            if compression == BIT_FIELDS {
                // Headers of 40 bytes are followed by three masks; longer ones contain three or four.
                let source = if header_size == 40 { &mut file } else { &mut fields };
                let count = if header_size < 56 { 3 } else { 4 };
                let mut values = [0; 4];
                for mask in &mut values[..count] {
                    *mask = source.u32_le().ok_or_else(header_ends)?;
                }
                masks = Some(values);
            }
        }
        if colours == 0 {
            colours = 1_usize.checked_shl(bits as u32).unwrap_or(0);
        }
        // Some writers give the end of the header, where the palette follows.
        if offset == 14 + header_size && bits <= 8 {
            offset += 4 * colours;
        }
        let mut palette = Box::new([[0; 3]; 256]);
        let layout = match (bits, masks) {
            (1 | 4 | 8, None) => {
                let bytes_per_colour = if header_size == 12 { 3 } else { 4 };
                Self::read_palette(&mut file, bits, colours, bytes_per_colour, compression, &mut palette)?
            }
            _ => Layout::of(bits, masks).ok_or_else(|| match masks {
                None => invalid(format!("{bits} bits per pixel")),
                Some([red, green, blue, alpha]) => invalid(format!(
                    "{bits} bits per pixel with the masks {red:#x}, {green:#x}, {blue:#x} and {alpha:#x}"
                )),
            })?,
        };
        match (compression, layout) {
            (0 | BIT_FIELDS, _) | (RLE8 | RLE4, Layout::Indices(_)) => {}
            _ => return Err(invalid(format!("compression {compression} with {bits} bits per pixel"))),
        }
        if offset == 0 {
            offset = file.position();
        }
        Ok(Self { width, height, is_top_down, bits, compression, layout, palette, offset })
    }

    /// Reads the palette. A palette of greys in order makes a grey image in Pillow, whose pixels then have 8 bits, or 1
    /// bit with two colours, whatever the header says.
    fn read_palette(
        file: &mut Cursor<'_>,
        bits: usize,
        colours: usize,
        bytes_per_colour: usize,
        compression: u32,
        palette: &mut [[u8; 3]; 256],
    ) -> Result<Layout, ImageError> {
        if colours > 1 << 16 {
            return Err(invalid(format!("a palette of {colours} colours")));
        }
        let entries: Vec<[u8; 3]> = file
            .take_up_to(bytes_per_colour * colours)
            .chunks_exact(bytes_per_colour)
            .map(|entry| [entry[2], entry[1], entry[0]])
            .collect();
        let is_bilevel = colours == 2;
        let grey = |index: usize| if is_bilevel { [(255 * index).min(255) as u8; 3] } else { [index as u8; 3] };
        if entries.len() == colours && entries.iter().enumerate().all(|(index, &entry)| entry == grey(index)) {
            if is_bilevel && compression != 0 {
                return Err(invalid("run-length data with a palette of black and white".to_owned()));
            }
            *palette = std::array::from_fn(grey);
            return Ok(Layout::Indices(if is_bilevel { 1 } else { 8 }));
        }
        if entries.len() > palette.len() {
            return Err(invalid(format!("a palette of {} colours", entries.len())));
        }
        palette[..entries.len()].copy_from_slice(&entries);
        Ok(Layout::Indices(bits))
    }

    /// The complete rows of uncompressed pixels, in the order of the file.
    fn rows<'a>(&self, data: &'a [u8]) -> Result<Vec<&'a [u8]>, ImageError> {
        let too_large = || invalid(format!("rows of {} pixels", self.width));
        let stride = self.width.checked_mul(self.bits).ok_or_else(too_large)?.next_multiple_of(32) / 8;
        let length = (self.width * self.layout.bits()).div_ceil(8);
        if length > stride {
            return Err(invalid(format!("a palette of greys with {} bits per pixel", self.bits)));
        }
        // The last row may lack its padding.
        Ok((0..self.height).map_while(|row| data.get(row * stride..)?.get(..length)).collect())
    }

    fn is_run_length(&self) -> bool {
        matches!(self.compression, RLE8 | RLE4)
    }

    /// Decompresses indices up to the end of the data, each to a byte. Jumps and odd runs of 4 bits are read as Pillow reads them.
    fn run_length_indices(&self, data: &[u8]) -> Vec<u8> {
        let is_rle4 = self.compression == RLE4;
        let width = self.width;
        let mut indices = Vec::new();
        let mut column = 0;
        let mut file = Cursor::new(data);
        while indices.len() < width * self.height {
            match file.array() {
                None | Some([0, 1]) => break,
                // End of the row.
                Some([0, 0]) => {
                    indices.resize(indices.len().next_multiple_of(width), 0);
                    column = 0;
                }
                // Jump; Pillow skips two bytes.
                Some([0, 2]) => {
                    let Some([_, _, right, up]) = file.array() else { break };
                    indices.resize(indices.len() + usize::from(right) + usize::from(up) * width, 0);
                    column = indices.len() % width;
                }
                Some([0, count]) => {
                    let count = usize::from(count);
                    let length = if is_rle4 { count / 2 } else { count };
                    let literal = file.take_up_to(length);
                    if is_rle4 {
                        indices.extend(literal.iter().flat_map(|byte| [byte >> 4, byte & 15]));
                    } else {
                        indices.extend(literal);
                    }
                    if literal.len() < length {
                        break;
                    }
                    column += count;
                    if (self.offset + file.position()) % 2 == 1 {
                        file.take_up_to(1);
                    }
                }
                Some([count, value]) => {
                    let count = usize::from(count).min(width.saturating_sub(column));
                    let pair = if is_rle4 { [value >> 4, value & 15] } else { [value; 2] };
                    indices.extend(pair.iter().cycle().take(count));
                    column += count;
                }
            }
        }
        indices
    }

    fn unpack(&self, row: &[u8], pixels: &mut [[u8; 3]]) {
        let layout = if self.is_run_length() { Layout::Indices(8) } else { self.layout };
        match layout {
            Layout::Indices(bits) => {
                let mask = u8::MAX >> (8 - bits);
                for (x, pixel) in pixels.iter_mut().enumerate() {
                    let at = x * bits;
                    let index = row[at / 8] >> (8 - bits - at % 8) & mask;
                    *pixel = self.palette[usize::from(index)];
                }
            }
            Layout::Packed { green_bits } => {
                for (pixel, bytes) in pixels.iter_mut().zip(row.as_chunks::<2>().0) {
                    let value = u32::from(u16::from_le_bytes(*bytes));
                    let channel = |shift: u32, bits: u32| {
                        let largest = (1 << bits) - 1;
                        ((value >> shift & largest) * 255 / largest) as u8
                    };
                    *pixel = [channel(5 + green_bits, 5), channel(5, green_bits), channel(0, 5)];
                }
            }
            Layout::Bytes { count, rgb } => {
                for (pixel, bytes) in pixels.iter_mut().zip(row.chunks_exact(count)) {
                    *pixel = rgb.map(|position| bytes[position]);
                }
            }
        }
    }
}

impl Layout {
    /// The layout of pixels without a palette, if Pillow knows it.
    fn of(bits: usize, masks: Option<[u32; 4]>) -> Option<Self> {
        const RED: u32 = 0xff_0000;
        let bytes = |count, rgb| Some(Self::Bytes { count, rgb });
        match (bits, masks) {
            (16, None) => Some(Self::Packed { green_bits: 5 }),
            (24, None) => bytes(3, [2, 1, 0]),
            (32, None) => bytes(4, [2, 1, 0]),
            (16, Some([0x7c00, 0x3e0, 0x1f, _])) => Some(Self::Packed { green_bits: 5 }),
            (16, Some([0xf800, 0x7e0, 0x1f, _])) => Some(Self::Packed { green_bits: 6 }),
            (24, Some([RED, 0xff00, 0xff, _])) => bytes(3, [2, 1, 0]),
            (32, Some([0, 0, 0, 0] | [RED, 0xff00, 0xff, 0 | 0xff00_0000])) => bytes(4, [2, 1, 0]),
            (32, Some([0xff00_0000, RED, 0xff00, 0 | 0xff])) => bytes(4, [3, 2, 1]),
            (32, Some([0xff00_0000, 0xff00, 0xff, 0 | RED])) => bytes(4, [3, 1, 0]),
            (32, Some([0xff, 0xff00, RED, 0xff00_0000])) => bytes(4, [0, 1, 2]),
            _ => None,
        }
    }
}

fn header_ends() -> ImageError {
    invalid("the file ends within its header".to_owned())
}

fn invalid(reason: String) -> ImageError {
    ImageError::Undecodable { format: ImageFormat::Bmp, reason }
}
