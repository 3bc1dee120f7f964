//! Checks the pages of a column of a Parquet file before they are decoded.
//!
//! The crate `parquet` allocates what a page header claims, and decompresses GZIP to its end. Its own page headers are not
//! public, so that the three numbers that matter are read here.

use std::{
    io::{Read, Seek, SeekFrom},
    path::Path,
};

use flate2::read::MultiGzDecoder;
use fs_err::File;
use parquet::{basic::Compression, file::metadata::ColumnChunkMetaData};

use super::unusable;
use crate::DataError;

/// Largest page after decompression.
const MAX_PAGE_BYTES: u64 = 1 << 29;
/// Largest number of values of a column in a row group.
const MAX_VALUES: u64 = 1 << 23;
/// Largest mean number of values of a row in a column of lists.
pub(super) const MAX_LIST_VALUES: u64 = 1 << 10;
/// Largest header of a page; its statistics have two values.
const MAX_HEADER_BYTES: u64 = 1 << 16;

#[derive(Default)]
struct PageHeader {
    uncompressed: u64,
    compressed: u64,
    values: u64,
    /// A data page of version 2, whose levels are not compressed.
    is_v2: bool,
}

/// Checks a column of a row group of `rows` rows.
pub(super) fn check(path: &Path, column: &ColumnChunkMetaData, rows: usize) -> Result<(), DataError> {
    let name = column.column_path().string();
    let max_values = match column.column_descr().max_rep_level() {
        0 => MAX_VALUES,
        _ => MAX_VALUES.min(MAX_LIST_VALUES.saturating_mul(rows as u64)),
    };
    let refuse = |expected: String, found: String| unusable(path, format!("{expected} in column `{name}`"), found);
    let start = column.dictionary_page_offset().unwrap_or_else(|| column.data_page_offset());
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let range = u64::try_from(start).ok().zip(u64::try_from(column.compressed_size()).ok());
    let range = range.and_then(|(start, size)| Some((start, start.checked_add(size)?)));
    let Some((mut at, end)) = range.filter(|&(_, end)| end <= length) else {
        let found = format!("{} bytes at {start} of {length}", column.compressed_size());
        return Err(refuse("pages inside the file".to_owned(), found));
    };
    let codec = column.compression();
    let is_known =
        matches!(codec, Compression::UNCOMPRESSED | Compression::SNAPPY | Compression::GZIP(_) | Compression::ZSTD(_));
    if !is_known {
        return Err(refuse("no compression, SNAPPY, GZIP or ZSTD".to_owned(), codec.to_string()));
    }
    let mut file = file;
    let mut values = 0;
    while at < end {
        file.seek(SeekFrom::Start(at))?;
        let mut bytes = Vec::new();
        (&mut file).take(MAX_HEADER_BYTES.min(end - at)).read_to_end(&mut bytes)?;
        let mut reader = Compact { bytes: &bytes, at: 0 };
        let Some(header) = reader.page_header() else {
            return Err(refuse("a page header".to_owned(), format!("other bytes at {at}")));
        };
        let content = at + reader.at as u64;
        at = content + header.compressed;
        values += header.values;
        if at > end {
            return Err(refuse("pages inside the column".to_owned(), format!("{} bytes", header.compressed)));
        }
        if header.uncompressed > MAX_PAGE_BYTES {
            let found = format!("{} bytes", header.uncompressed);
            return Err(refuse(format!("pages of at most {MAX_PAGE_BYTES} bytes"), found));
        }
        if values > max_values {
            let expected = format!("at most {max_values} values of a row group of {rows} rows");
            return Err(refuse(expected, format!("at least {values}")));
        }
        if matches!(codec, Compression::GZIP(_)) {
            if header.is_v2 {
                return Err(refuse("data pages of version 1 with GZIP".to_owned(), "version 2".to_owned()));
            }
            file.seek(SeekFrom::Start(content))?;
            let decoder = MultiGzDecoder::new((&mut file).take(header.compressed));
            // An error of the decoder is reported when the page is read.
            let size = std::io::copy(&mut decoder.take(header.uncompressed + 1), &mut std::io::sink());
            if size.is_ok_and(|size| size > header.uncompressed) {
                return Err(refuse(format!("a page of {} bytes", header.uncompressed), "more".to_owned()));
            }
        }
    }
    Ok(())
}

/// Reads Thrift's compact protocol.
struct Compact<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// Nested structures that are skipped.
const MAX_DEPTH: usize = 16;

impl Compact<'_> {
    fn page_header(&mut self) -> Option<PageHeader> {
        let mut header = PageHeader::default();
        let mut id = 0;
        while let Some(kind) = self.field(&mut id)? {
            match (id, kind) {
                (2, 5) => header.uncompressed = self.size()?,
                (3, 5) => header.compressed = self.size()?,
                // Data page, dictionary page, data page of version 2: the first field is the number of values.
                (5 | 7 | 8, 12) => {
                    header.is_v2 |= id == 8;
                    let mut inner = 0;
                    while let Some(kind) = self.field(&mut inner)? {
                        match (inner, kind) {
                            (1, 5) => header.values = self.size()?,
                            _ => self.skip(kind, 0)?,
                        }
                    }
                }
                _ => self.skip(kind, 0)?,
            }
        }
        Some(header)
    }

    /// Type of the next field, whose number is written to `id`; `Some(None)` at the end of a structure.
    fn field(&mut self, id: &mut i64) -> Option<Option<u8>> {
        let byte = self.byte()?;
        if byte == 0 {
            return Some(None);
        }
        *id = match byte >> 4 {
            0 => self.zigzag()?,
            delta => id.checked_add(delta.into())?,
        };
        Some(Some(byte & 15))
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        match kind {
            1 | 2 => {}
            3 => self.advance(1)?,
            4..=6 => _ = self.varint()?,
            7 => self.advance(8)?,
            8 => {
                let length = self.varint()?;
                self.advance(usize::try_from(length).ok()?)?;
            }
            9 | 10 => {
                let byte = self.byte()?;
                let count = if byte >> 4 == 15 { self.varint()? } else { (byte >> 4).into() };
                (0..count).try_for_each(|_| self.element(byte & 15, depth))?;
            }
            11 => {
                let count = self.varint()?;
                let kinds = if count > 0 { self.byte()? } else { 0 };
                (0..count).try_for_each(|_| {
                    self.element(kinds >> 4, depth)?;
                    self.element(kinds & 15, depth)
                })?;
            }
            12 => {
                let mut id = 0;
                while let Some(kind) = self.field(&mut id)? {
                    self.skip(kind, depth + 1)?;
                }
            }
            _ => return None,
        }
        Some(())
    }

    /// Skips an element of a list, where a boolean is a byte.
    fn element(&mut self, kind: u8, depth: usize) -> Option<()> {
        match kind {
            1 | 2 => self.advance(1),
            kind => self.skip(kind, depth + 1),
        }
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn advance(&mut self, count: usize) -> Option<()> {
        self.at = self.at.checked_add(count).filter(|&at| at <= self.bytes.len())?;
        Some(())
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 127) << shift;
            if byte < 128 {
                return Some(value);
            }
        }
        None
    }

    fn zigzag(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A number that is not negative.
    fn size(&mut self) -> Option<u64> {
        u64::try_from(self.zigzag()?).ok()
    }
}
