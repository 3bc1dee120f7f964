//! Parquet files as on the Hugging Face hub: one row per image, or one per caption.
//!
//! | column | content |
//! |---|---|
//! | `image` | a structure of `bytes` and `path`, the bytes of an image file, or its path |
//! | `caption`, `captions`, `sentences` or `text` | a text or a list of texts |
//! | `split` | optional; without it, the name of the file says it |
//! | `img_id`, `image_id`, `imgid`, `cocoid` or `id` | optional; without it, the stem of the file name |
//! | `filename` or `file_name` | optional; without it, the file name in `image.path` |
//!
//! Columns are read a few rows at a time with the reader of columns of the crate `parquet`; its rows have no bound on what
//! a list in them may take.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use parquet::{
    column::reader::{ColumnReader, ColumnReaderImpl},
    data_type::{ByteArray, DataType},
    errors::ParquetError,
    file::reader::{FileReader, RowGroupReader, SerializedFileReader},
    schema::types::SchemaDescriptor,
};

use super::{CaptionUse, ItemSink, MAX_IMAGE_BYTES, MAX_TEXT_BYTES, Source, SourceItem, parquet_pages, unusable};
use crate::{DataError, image::ImageFormat};

/// Rows that are read at a time.
const ROWS: usize = 32;
/// Most values of these rows in a column. All of them may be one value of a dictionary, which takes no space in the file.
const MAX_BATCH_VALUES: usize = ROWS * parquet_pages::MAX_LIST_VALUES as usize;
/// Largest footer.
const MAX_FOOTER_BYTES: u32 = 1 << 26;

const CAPTIONS: [&str; 4] = ["caption", "captions", "sentences", "text"];
const IDS: [&str; 5] = ["img_id", "image_id", "imgid", "cocoid", "id"];
const NAMES: [&str; 2] = ["filename", "file_name"];
const EXPECTED: &str = "the columns `image` and `caption`, and optionally `split`, `img_id` and `filename`";

pub(super) fn read(source: &Source, sink: &mut ItemSink<'_>) -> Result<(), DataError> {
    for path in &source.files {
        // The crate asserts some things that a file may violate.
        let read = catch_unwind(AssertUnwindSafe(|| read_file(source, path, sink)));
        read.unwrap_or_else(|_| Err(unusable(path, "a valid Parquet file", "pages that cannot be decoded")))?;
    }
    Ok(())
}

/// Indices of the leaf columns.
struct Columns {
    bytes: Option<usize>,
    path: Option<usize>,
    captions: Option<usize>,
    split: Option<usize>,
    id: Option<usize>,
    name: Option<usize>,
}

impl Columns {
    fn find(path: &Path, schema: &SchemaDescriptor, captions: CaptionUse) -> Result<Self, DataError> {
        let leaf = |wanted: &[&str], last: Option<&str>| {
            wanted.iter().find_map(|wanted| {
                schema.columns().iter().position(|column| {
                    let parts = column.path().parts();
                    parts[0] == *wanted && last.is_none_or(|last| parts.len() > 1 && parts[parts.len() - 1] == last)
                })
            })
        };
        let refuse = || {
            let names: Vec<String> =
                schema.columns().iter().take(20).map(|column| format!("`{}`", column.path().string())).collect();
            unusable(path, EXPECTED, names.join(", "))
        };
        let (mut bytes, mut file) = (leaf(&["image"], Some("bytes")), leaf(&["image"], Some("path")));
        if bytes.is_none() && file.is_none() {
            // One column: texts are paths.
            let image = leaf(&["image"], None).ok_or_else(refuse)?;
            let is_text = schema.column(image).converted_type() == parquet::basic::ConvertedType::UTF8;
            (bytes, file) = if is_text { (None, Some(image)) } else { (Some(image), None) };
        }
        let texts = leaf(&CAPTIONS, Some("raw")).or_else(|| leaf(&CAPTIONS, None));
        Ok(Self {
            bytes,
            path: file,
            captions: match captions {
                CaptionUse::Required => Some(texts.ok_or_else(refuse)?),
                CaptionUse::Ignored => None,
            },
            split: leaf(&["split"], None),
            id: leaf(&IDS, None),
            name: leaf(&NAMES, None),
        })
    }
}

fn read_file(source: &Source, path: &Path, sink: &mut ItemSink<'_>) -> Result<(), DataError> {
    let broken = |error: ParquetError| unusable(path, "a valid Parquet file", error.to_string());
    check_footer(path)?;
    let reader = SerializedFileReader::new(fs_err::File::open(path)?.into_parts().0).map_err(broken)?;
    let columns = Columns::find(path, reader.metadata().file_metadata().schema_descr(), source.captions)?;
    let mut first = 0;
    for group in 0..reader.num_row_groups() {
        let metadata = reader.metadata().row_group(group);
        let rows = usize::try_from(metadata.num_rows())
            .map_err(|_| unusable(path, "a number of rows", metadata.num_rows().to_string()))?;
        let Columns { bytes, path: file, captions, split, id, name } = columns;
        for column in [bytes, file, captions, split, id, name].into_iter().flatten() {
            parquet_pages::check(path, metadata.column(column), rows)?;
        }
        let group = reader.get_row_group(group).map_err(broken)?;
        let open = |index: Option<usize>| index.map(|index| Column::open(path, &*group, index)).transpose();
        let (mut bytes, mut file, mut split) = (open(bytes)?, open(file)?, open(split)?);
        let (mut captions, mut id, mut name) = (open(captions)?, open(id)?, open(name)?);
        let mut row = 0;
        while row < rows {
            let count = ROWS.min(rows - row);
            let next = |column: &mut Option<Column>| match column {
                Some(column) => column.read(path, count, first + rows),
                None => Ok(vec![Vec::new(); count]),
            };
            let batch = next(&mut bytes)?.into_iter().zip(next(&mut file)?).zip(next(&mut split)?);
            let batch = batch.zip(next(&mut captions)?).zip(next(&mut id)?).zip(next(&mut name)?);
            for (row, (((((mut bytes, file), split), captions), id), name)) in (first + row..).zip(batch) {
                let origin = (path.to_owned(), format!("row {row}"));
                // Sizes are checked before values are copied.
                let check = |values: &[ColumnValue], max: u64, what: &str| {
                    let size: u64 = values.iter().map(ColumnValue::size).sum();
                    let expected = || format!("at most {max} bytes of {what} in row {row}");
                    if size > max { Err(unusable(path, expected(), format!("{size} bytes"))) } else { Ok(()) }
                };
                let text = |mut values: Vec<ColumnValue>| {
                    values.truncate(1);
                    check(&values, MAX_TEXT_BYTES, "a text")?;
                    values.pop().map(|value| value.text(path, row)).transpose()
                };
                check(&captions, MAX_TEXT_BYTES, "captions")?;
                let captions = captions.into_iter().map(|caption| caption.text(path, row)).collect::<Result<_, _>>()?;
                bytes.truncate(1);
                check(&bytes, MAX_IMAGE_BYTES, "an image")?;
                let (bytes, file, name) = (bytes.pop().map(ColumnValue::bytes), text(file)?, text(name)?);
                sink(item(source, origin, bytes, file, name, text(split)?, text(id)?, captions)?)?;
            }
            row += count;
        }
        first += rows;
    }
    Ok(())
}

/// The item of a row.
#[expect(clippy::too_many_arguments, reason = "one for each column")]
fn item(
    source: &Source,
    origin: (std::path::PathBuf, String),
    bytes: Option<Vec<u8>>,
    file: Option<String>,
    name: Option<String>,
    split: Option<String>,
    id: Option<String>,
    captions: Vec<String>,
) -> Result<SourceItem, DataError> {
    let (path, row) = &origin;
    let file_name = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
    let name = match (name, &file, &bytes) {
        (Some(name), _, _) => name,
        (None, Some(file), Some(_)) => file_name(file),
        (None, Some(file), None) => file.clone(),
        (None, None, Some(bytes)) => {
            let extension = match ImageFormat::detect(bytes) {
                Some(ImageFormat::Jpeg) | None => "jpg",
                Some(ImageFormat::Png) => "png",
                Some(ImageFormat::Gif) => "gif",
                Some(ImageFormat::Bmp) => "bmp",
                Some(ImageFormat::WebP) => "webp",
            };
            let stem = id.clone().unwrap_or_else(|| row.replace(' ', "_"));
            format!("{stem}.{extension}")
        }
        (None, None, None) => return Err(unusable(path, format!("an image in {row}"), "null")),
    };
    if bytes.is_none() && file.is_none() {
        return Err(unusable(path, format!("an image in {row}"), "null"));
    }
    // Images that are not in the file have the path as their name.
    let name = if bytes.is_some() { name } else { file.unwrap_or(name) };
    let stem = || file_name(&name).rsplit_once('.').map_or_else(|| file_name(&name), |(stem, _)| stem.to_owned());
    Ok(SourceItem {
        id: id.unwrap_or_else(stem),
        split: split.or_else(|| source.names.of_file(path).map(str::to_owned)),
        name,
        captions,
        bytes,
        origin,
    })
}

/// Checks the size of the footer before it is read.
fn check_footer(path: &Path) -> Result<(), DataError> {
    use std::io::{Read, Seek, SeekFrom};

    let mut file = fs_err::File::open(path)?;
    let length = file.metadata()?.len();
    let mut tail = [0; 8];
    let is_parquet = length >= 12 && {
        file.seek(SeekFrom::Start(length - 8))?;
        file.read_exact(&mut tail)?;
        tail.ends_with(b"PAR1")
    };
    if !is_parquet {
        return Err(unusable(path, "a Parquet file, which ends with `PAR1`", "another or a cut file"));
    }
    let size = u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]);
    if size > MAX_FOOTER_BYTES || u64::from(size) > length - 12 {
        let expected = format!("a footer of at most {} bytes", u64::from(MAX_FOOTER_BYTES).min(length - 12));
        return Err(unusable(path, expected, format!("{size} bytes")));
    }
    Ok(())
}

/// A value of a column.
#[derive(Clone)]
enum ColumnValue {
    Bytes(ByteArray),
    Number(i64),
}

impl ColumnValue {
    /// Number of bytes; that of a number is at most this.
    fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Number(_) => 20,
        }
    }

    fn bytes(self) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => bytes.data().to_vec(),
            Self::Number(number) => number.to_string().into_bytes(),
        }
    }

    fn text(self, path: &Path, row: usize) -> Result<String, DataError> {
        String::from_utf8(self.bytes()).map_err(|_| unusable(path, format!("UTF-8 in row {row}"), "other bytes"))
    }
}

/// Reads a leaf column of a row group.
struct Column {
    name: String,
    reader: ColumnReader,
    max_definition: i16,
    max_repetition: i16,
}

impl Column {
    fn open(path: &Path, group: &dyn RowGroupReader, index: usize) -> Result<Self, DataError> {
        let descriptor = group.metadata().column(index).column_descr_ptr();
        let name = descriptor.path().string();
        let (max_definition, max_repetition) = (descriptor.max_def_level(), descriptor.max_rep_level());
        let reader = group.get_column_reader(index);
        let reader = reader.map_err(|error| unusable(path, format!("the column `{name}`"), error.to_string()))?;
        use ColumnReader::{ByteArrayColumnReader, Int32ColumnReader, Int64ColumnReader};
        let is_known = matches!(reader, ByteArrayColumnReader(_) | Int32ColumnReader(_) | Int64ColumnReader(_));
        if !is_known || max_repetition > 1 {
            let expected = format!("texts, bytes, numbers, or lists of them in the column `{name}`");
            return Err(unusable(path, expected, format!("{}", descriptor.physical_type())));
        }
        Ok(Self { name, reader, max_definition, max_repetition })
    }

    /// The values of each of the next `count` rows; nulls are left out. The footer claims `rows` rows so far.
    fn read(&mut self, path: &Path, count: usize, rows: usize) -> Result<Vec<Vec<ColumnValue>>, DataError> {
        let (definition, repetition) = (self.max_definition, self.max_repetition);
        let read = match &mut self.reader {
            ColumnReader::ByteArrayColumnReader(reader) => {
                records(reader, count, definition, repetition, ColumnValue::Bytes)
            }
            ColumnReader::Int32ColumnReader(reader) => {
                records(reader, count, definition, repetition, |value| ColumnValue::Number(value.into()))
            }
            ColumnReader::Int64ColumnReader(reader) => {
                records(reader, count, definition, repetition, ColumnValue::Number)
            }
            _ => Ok(Some(Vec::new())),
        };
        let name = &self.name;
        let read = read.map_err(|error| unusable(path, format!("the column `{name}`"), error.to_string()))?;
        let Some(read) = read else {
            let expected = format!("at most {MAX_BATCH_VALUES} values of {count} rows in the column `{name}`");
            return Err(unusable(path, expected, "more"));
        };
        if read.len() != count {
            let expected = format!("{rows} rows in the column `{name}`, as the footer says");
            return Err(unusable(path, expected, format!("{} fewer or more", count.abs_diff(read.len()))));
        }
        Ok(read)
    }
}

/// The values of each of the next `count` rows; `None` if there are more than [`MAX_BATCH_VALUES`].
fn records<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    count: usize,
    max_definition: i16,
    max_repetition: i16,
    value: impl Fn(T::T) -> ColumnValue,
) -> Result<Option<Vec<Vec<ColumnValue>>>, ParquetError> {
    let (mut definitions, mut repetitions, mut values) = (Vec::new(), Vec::new(), Vec::new());
    // A page boundary may end a call early.
    let mut read = 0;
    while read < count {
        let (records, _, levels) =
            reader.read_records(count - read, Some(&mut definitions), Some(&mut repetitions), &mut values)?;
        read += records;
        if values.len() > MAX_BATCH_VALUES {
            return Ok(None);
        }
        if levels == 0 {
            break;
        }
    }
    let mut values = values.into_iter().map(value);
    if max_definition == 0 {
        return Ok(Some(values.map(|value| vec![value]).collect()));
    }
    let mut rows: Vec<Vec<ColumnValue>> = Vec::new();
    for (index, definition) in definitions.into_iter().enumerate() {
        if max_repetition == 0 || repetitions.get(index) == Some(&0) {
            rows.push(Vec::new());
        }
        if definition == max_definition
            && let Some((row, value)) = rows.last_mut().zip(values.next())
        {
            row.push(value);
        }
    }
    Ok(Some(rows))
}
