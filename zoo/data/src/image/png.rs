//! PNG, as in Pillow with truncated files allowed. Of an animation, the first frame.
//!
//! The crate `png` was considered. It holds rows back when the data end or a checksum is wrong, where Pillow gives out
//! what has been decoded. zlib's state decides which row is the last one, so rows are decompressed one by one, by zlib-rs.

use flate2::{Crc, Decompress, FlushDecompress, Status};

use super::{Decoded, ImageError, ImageFormat, RgbImage, cursor::Cursor, decode::check_size};

/// Decodes a file. Pixels that a cut or corrupt file lacks have sample 0.
pub(super) fn decode(bytes: &[u8], max_pixels: usize) -> Result<Decoded, ImageError> {
    let (header, file) = PngHeader::read(bytes)?;
    check_size(ImageFormat::Png, header.width, header.height, max_pixels)?;
    let [left, top, width, height] = header.frame.unwrap_or([0, 0, header.width, header.height]);
    let mut pixels = vec![header.rgb(0); header.width * header.height];
    let mut stream = DataStream { file, crc_fault: false };
    let mut decoder = RowDecoder::new();
    let mut rows = 0;
    let mut scratch = Vec::new();
    let passes: &[Pass] = if header.is_interlaced { &ADAM7 } else { &[Pass { x: 0, y: 0, step_x: 1, step_y: 1 }] };
    let mut total = 0;
    let mut is_complete = true;
    for pass in passes {
        let columns = width.saturating_sub(pass.x).div_ceil(pass.step_x);
        let pass_rows = if columns == 0 { 0 } else { height.saturating_sub(pass.y).div_ceil(pass.step_y) };
        total += pass_rows;
        decoder.start_pass((columns * header.bits_per_pixel()).div_ceil(8));
        for y in (pass.y..height).step_by(pass.step_y).take(pass_rows) {
            is_complete = is_complete && decoder.next(&mut stream, header.bits_per_pixel().div_ceil(8));
            if !is_complete {
                break;
            }
            header.unpack(decoder.row(), columns, &mut scratch);
            let row = &mut pixels[(top + y) * header.width + left..][..width];
            for (pixel, &value) in row.iter_mut().skip(pass.x).step_by(pass.step_x).zip(&scratch) {
                *pixel = value;
            }
            rows += 1;
        }
    }
    if rows == 0 {
        return Err(ImageError::NoImageData { format: ImageFormat::Png });
    }
    let has_end = stream.skip_to_end(header.is_animated)?;
    let damage = if rows < total {
        let cause = decoder.fault.unwrap_or("end");
        Some(format!("the PNG data {cause} after {rows} of {total} rows"))
    } else if stream.crc_fault {
        Some("a checksum of the PNG data is wrong".to_owned())
    } else {
        (!has_end).then(|| "the PNG file ends without an IEND chunk".to_owned())
    };
    let image = RgbImage::new(header.width, header.height, pixels.into_flattened());
    Ok(Decoded { image: image.ok_or(ImageError::NoImageData { format: ImageFormat::Png })?, damage })
}

/// How the samples of a pixel become RGB.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Color {
    Grey,
    Rgb,
    Palette,
    GreyAlpha,
    Rgba,
}

impl Color {
    fn channels(self) -> usize {
        match self {
            Self::Grey | Self::Palette => 1,
            Self::GreyAlpha => 2,
            Self::Rgb => 3,
            Self::Rgba => 4,
        }
    }
}

struct PngHeader {
    width: usize,
    height: usize,
    depth: usize,
    color: Color,
    is_interlaced: bool,
    /// Colours of the 256 possible indices.
    palette: Box<[[u8; 3]; 256]>,
    /// Left, top, width and height of the first frame, if the file is an animation whose first frame is the image.
    frame: Option<[usize; 4]>,
    is_animated: bool,
}

impl PngHeader {
    /// Reads the chunks up to the image data. The cursor is then at the length of the first data chunk.
    fn read(bytes: &[u8]) -> Result<(Self, Cursor<'_>), ImageError> {
        let mut file = Cursor::new(bytes);
        let _signature: Option<[u8; 8]> = file.array();
        let mut header: Option<Self> = None;
        let (mut palette, mut frames, mut has_transparency): (Option<&[u8]>, u32, bool) = (None, 0, false);
        loop {
            let start = file;
            let (length, kind) = (file.u32_be(), file.array());
            let (Some(length), Some(kind)) = (length, kind) else { return Err(header_ends()) };
            match &kind {
                b"IDAT" => {
                    let mut header = header.ok_or_else(|| invalid("image data without a header"))?;
                    match palette {
                        Some(entries) => header.set_palette(entries)?,
                        None if header.color == Color::Palette && has_transparency => {
                            return Err(invalid("transparency without a palette"));
                        }
                        None => {}
                    }
                    // The image itself is a frame more if no frame was announced.
                    header.is_animated = frames > 1 || (frames == 1 && header.frame.is_none());
                    return Ok((header, start));
                }
                b"IEND" | b"fdAT" => return Err(ImageError::NoImageData { format: ImageFormat::Png }),
                _ => {}
            }
            if !kind.is_ascii() {
                return Err(invalid(&format!("a chunk named {}", kind.escape_ascii())));
            }
            let data = file.take(length as usize).ok_or_else(header_ends)?;
            check_chunk(&kind, data, header.as_ref().map(|header| header.color))?;
            match &kind {
                b"IHDR" => header = Some(Self::parse(data)?),
                b"PLTE" if header.as_ref().is_some_and(|header| header.color == Color::Palette) => palette = Some(data),
                b"tRNS" => has_transparency = true,
                b"acTL" => frames = data.first_chunk().map_or(0, |&count| u32::from_be_bytes(count)),
                b"fcTL" => {
                    let header = header.as_mut().ok_or_else(|| invalid("a frame without a header"))?;
                    if let Some(frame) = header.parse_frame(data)?
                        && header.frame.replace(frame).is_some()
                    {
                        return Err(invalid("two frames before the image data"));
                    }
                }
                _ => {}
            }
            // Checksums of chunks that are not critical do not matter.
            let checksum = file.take_up_to(4);
            let is_critical = kind[0] & 0x20 == 0;
            if is_critical && crc(&[&kind, data]).to_be_bytes() != *checksum {
                return Err(invalid(&format!("wrong checksum of chunk {}", kind.escape_ascii())));
            }
        }
    }

    fn parse(data: &[u8]) -> Result<Self, ImageError> {
        let mut fields = Cursor::new(data);
        let [width, height] = [fields.u32_be(), fields.u32_be()].map(|side| side.map(|side| side as usize));
        let [depth, color, _compression, filter, interlace] = fields.array().ok_or_else(header_ends)?;
        let color = match (color, depth) {
            (0, 1 | 2 | 4 | 8 | 16) => Color::Grey,
            (2, 8 | 16) => Color::Rgb,
            (3, 1 | 2 | 4 | 8) => Color::Palette,
            (4, 8 | 16) => Color::GreyAlpha,
            (6, 8 | 16) => Color::Rgba,
            _ => return Err(invalid(&format!("colour type {color} with {depth} bits per sample"))),
        };
        if filter != 0 {
            return Err(invalid(&format!("filter method {filter}")));
        }
        Ok(Self {
            width: width.ok_or_else(header_ends)?,
            height: height.ok_or_else(header_ends)?,
            depth: usize::from(depth),
            color,
            is_interlaced: interlace != 0,
            palette: Box::new([[0; 3]; 256]),
            frame: None,
            is_animated: false,
        })
    }

    /// Indices beyond the palette are black.
    fn set_palette(&mut self, entries: &[u8]) -> Result<(), ImageError> {
        let entries = entries.as_chunks::<3>().0;
        let Some(palette) = self.palette.get_mut(..entries.len()) else {
            return Err(invalid(&format!("a palette of {} colours", entries.len())));
        };
        palette.copy_from_slice(entries);
        Ok(())
    }

    /// Left, top, width and height of the frame of a chunk `fcTL`. Pillow ignores short chunks.
    fn parse_frame(&self, data: &[u8]) -> Result<Option<[usize; 4]>, ImageError> {
        if data.len() < 26 {
            return Ok(None);
        }
        let mut fields = Cursor::new(data);
        let mut next = || fields.u32_be().map(|value| value as usize).ok_or_else(header_ends);
        let (sequence, width, height, left, top) = (next()?, next()?, next()?, next()?, next()?);
        let is_inside = width > 0 && height > 0 && left + width <= self.width && top + height <= self.height;
        let is_whole = [left, top, width, height] == [0, 0, self.width, self.height];
        if sequence != 0 || !is_inside || (self.is_interlaced && !is_whole) {
            return Err(invalid("the first frame of the animation is invalid"));
        }
        Ok(Some([left, top, width, height]))
    }

    fn bits_per_pixel(&self) -> usize {
        self.color.channels() * self.depth
    }

    /// Colour of a sample that is grey or a palette index of less than 8 bits. Pillow clips 16-bit grey at 255.
    fn rgb(&self, sample: u16) -> [u8; 3] {
        if self.color == Color::Palette {
            return self.palette[usize::from(sample.min(255))];
        }
        let scale = match self.depth {
            1 => 255,
            2 => 85,
            4 => 17,
            _ => 1,
        };
        [(sample * scale).min(255) as u8; 3]
    }

    /// The pixels of a row. Alpha is dropped; of 16-bit colours, the high byte is taken.
    fn unpack(&self, row: &[u8], count: usize, pixels: &mut Vec<[u8; 3]>) {
        pixels.clear();
        let step = self.bits_per_pixel() / 8;
        let bytes = self.depth / 8;
        match (self.color, self.depth) {
            (Color::Rgb, 8) => pixels.extend(row.as_chunks::<3>().0),
            (Color::Rgb | Color::Rgba, _) => {
                pixels.extend(row.chunks_exact(step).map(|pixel| [pixel[0], pixel[bytes], pixel[2 * bytes]]));
            }
            (Color::GreyAlpha, _) => pixels.extend(row.chunks_exact(step).map(|pixel| [pixel[0]; 3])),
            (Color::Grey, 16) => {
                pixels.extend(row.as_chunks::<2>().0.iter().map(|&sample| self.rgb(u16::from_be_bytes(sample))));
            }
            (Color::Grey | Color::Palette, depth) => {
                let mask = u8::MAX >> (8 - depth);
                pixels.extend((0..count).map(|x| {
                    let at = x * depth;
                    self.rgb(u16::from(row[at / 8] >> (8 - depth - at % 8) & mask))
                }));
            }
        }
    }
}

/// Rejects chunks whose content Pillow rejects. `color` is that of the header, if it came before.
fn check_chunk(kind: &[u8; 4], data: &[u8], color: Option<Color>) -> Result<(), ImageError> {
    let is_good = match kind {
        b"gAMA" => data.len() >= 4,
        b"cHRM" => data.len().is_multiple_of(4),
        b"tRNS" => match color {
            Some(Color::Grey) => data.len() >= 2,
            Some(Color::Rgb) => data.len() >= 6,
            _ => true,
        },
        // The compression method follows a name that ends in zero; without one, Pillow looks at the first byte.
        b"iCCP" => {
            let name = data.iter().position(|&byte| byte == 0).map_or(0, |end| end + 1);
            data.get(name) == Some(&0)
        }
        b"zTXt" => match data.iter().position(|&byte| byte == 0) {
            Some(end) => data.get(end + 1).is_none_or(|&method| method == 0),
            None => true,
        },
        _ => true,
    };
    is_good.then_some(()).ok_or_else(|| invalid(&format!("chunk {} is invalid", kind.escape_ascii())))
}

/// The rows and columns of a pass of an interlaced image.
struct Pass {
    x: usize,
    y: usize,
    step_x: usize,
    step_y: usize,
}

const ADAM7: [Pass; 7] = [
    Pass { x: 0, y: 0, step_x: 8, step_y: 8 },
    Pass { x: 4, y: 0, step_x: 8, step_y: 8 },
    Pass { x: 0, y: 4, step_x: 4, step_y: 8 },
    Pass { x: 2, y: 0, step_x: 4, step_y: 4 },
    Pass { x: 0, y: 2, step_x: 2, step_y: 4 },
    Pass { x: 1, y: 0, step_x: 2, step_y: 2 },
    Pass { x: 0, y: 1, step_x: 1, step_y: 2 },
];

/// The data of consecutive chunks `IDAT`.
struct DataStream<'a> {
    file: Cursor<'a>,
    /// Whether the checksum of a complete chunk was wrong.
    crc_fault: bool,
}

impl<'a> DataStream<'a> {
    /// The data of the next chunk, or what is left of it in a truncated file.
    fn next(&mut self) -> Option<&'a [u8]> {
        let mut file = self.file;
        let length = file.u32_be()?;
        let kind: [u8; 4] = file.array()?;
        if kind != *b"IDAT" {
            return None;
        }
        let data = file.take_up_to(length as usize);
        if let Some(checksum) = file.u32_be() {
            self.crc_fault |= checksum != crc(&[&kind, data]);
        }
        self.file = file;
        Some(data)
    }

    /// Skips the rest of the file. Returns whether it ends properly. As in Pillow, chunks after the image data must be
    /// valid and complete.
    fn skip_to_end(&mut self, is_animated: bool) -> Result<bool, ImageError> {
        while self.next().is_some() {}
        loop {
            let Some(length) = self.file.u32_be() else { return Ok(false) };
            let kind = self.file.take_up_to(4);
            match kind {
                b"IEND" => return Ok(true),
                b"fcTL" if is_animated => return Ok(true),
                _ if !kind.is_ascii() => return Ok(false),
                _ => {}
            }
            let data = self.file.take_up_to(length as usize);
            let is_cut = data.len() < length as usize;
            match kind.first_chunk() {
                Some(b"IDAT" | b"fdAT") if is_cut => return Ok(false),
                _ if is_cut => {
                    return Err(invalid(&format!("the file ends within chunk {}", kind.escape_ascii())));
                }
                Some(kind) => check_chunk(kind, data, None)?,
                None => {}
            }
            self.file.take_up_to(4);
        }
    }
}

/// Decompresses and unfilters rows.
struct RowDecoder<'a> {
    inflate: Decompress,
    /// Data of the current chunk that have not been decompressed.
    input: &'a [u8],
    /// The filter and the bytes of the current row.
    current: Vec<u8>,
    previous: Vec<u8>,
    has_ended: bool,
    /// Why rows are missing, if not because the file ends.
    fault: Option<&'static str>,
}

impl<'a> RowDecoder<'a> {
    fn new() -> Self {
        let inflate = Decompress::new(true);
        Self { inflate, input: &[], current: Vec::new(), previous: Vec::new(), has_ended: false, fault: None }
    }

    /// Starts rows of `length` bytes, of which the first has zeros above.
    fn start_pass(&mut self, length: usize) {
        self.current = vec![0; length + 1];
        self.previous = vec![0; length + 1];
    }

    /// The row decoded last.
    fn row(&self) -> &[u8] {
        &self.previous[1..]
    }

    /// Decodes the next row; false if there is none. `step` is the distance in bytes to the sample on the left.
    fn next(&mut self, stream: &mut DataStream<'a>, step: usize) -> bool {
        let mut filled = 0;
        while filled < self.current.len() {
            if self.has_ended {
                return false;
            }
            // Output that zlib holds back when the data end is lost, as in Pillow.
            while self.input.is_empty() {
                let Some(data) = stream.next() else { return false };
                self.input = data;
            }
            let (before_in, before_out) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self.inflate.decompress(self.input, &mut self.current[filled..], FlushDecompress::None);
            self.input = &self.input[(self.inflate.total_in() - before_in) as usize..];
            filled += (self.inflate.total_out() - before_out) as usize;
            match status {
                Ok(Status::Ok) => {}
                Ok(Status::StreamEnd) => self.has_ended = true,
                Ok(Status::BufError) | Err(_) => {
                    (self.has_ended, self.fault) = (true, Some("are corrupt"));
                    return false;
                }
            }
        }
        if !unfilter(&mut self.current, &self.previous, step) {
            (self.has_ended, self.fault) = (true, Some("have an unknown filter"));
            return false;
        }
        std::mem::swap(&mut self.current, &mut self.previous);
        true
    }
}

/// Undoes the filter that the first byte of `row` names. False if it is unknown.
fn unfilter(row: &mut [u8], above: &[u8], step: usize) -> bool {
    let Some((filter, row)) = row.split_first_mut() else { return false };
    let above = &above[1..];
    match filter {
        0 => {}
        1 => {
            for index in step..row.len() {
                row[index] = row[index].wrapping_add(row[index - step]);
            }
        }
        2 => {
            for (value, &up) in row.iter_mut().zip(above) {
                *value = value.wrapping_add(up);
            }
        }
        3 => {
            for index in 0..row.len() {
                let left = if index < step { 0 } else { row[index - step] };
                row[index] = row[index].wrapping_add(left.midpoint(above[index]));
            }
        }
        4 => {
            for index in 0..row.len() {
                let [left, corner] = if index < step { [0; 2] } else { [row[index - step], above[index - step]] };
                row[index] = row[index].wrapping_add(paeth(left, above[index], corner));
            }
        }
        _ => return false,
    }
    true
}

/// The neighbour that is nearest to `left + above - corner`.
fn paeth(left: u8, above: u8, corner: u8) -> u8 {
    let [a, b, c] = [left, above, corner].map(i16::from);
    let distances = [(b - c).abs(), (a - c).abs(), (a + b - 2 * c).abs()];
    if distances[0] <= distances[1] && distances[0] <= distances[2] {
        left
    } else if distances[1] <= distances[2] {
        above
    } else {
        corner
    }
}

fn crc(parts: &[&[u8]]) -> u32 {
    let mut crc = Crc::new();
    parts.iter().for_each(|part| crc.update(part));
    crc.sum()
}

fn header_ends() -> ImageError {
    invalid("the file ends before its image data")
}

fn invalid(reason: &str) -> ImageError {
    ImageError::Undecodable { format: ImageFormat::Png, reason: reason.to_owned() }
}
