//! Matrices in files of other programs.

use std::{
    collections::HashMap,
    io::{BufReader, Read},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use fs_err::File;
use laps_align::{CaptionImages, Scores, StoredScores};
use laps_model::random::SplitMix64;
use npyz::{NpyHeader, Order, TypeChar};
use rayon::prelude::*;
use safetensors::{Dtype, SafeTensors};

use super::{CAPTIONS_PER_IMAGE, describe_duplicates};
use crate::{Error, Result};

/// The key of a matrix in a safetensors or `.npz` file with several arrays.
const KEY: &str = "sims";

/// Maximum bytes of the header of an `.npy` file. NumPy itself reads at most 10,000.
const MAX_NPY_HEADER: u32 = 1 << 16;

/// Maximum depth of brackets in the header of an `.npy` file: that of records with arrays is 4.
const MAX_NPY_DEPTH: usize = 6;

/// An array of any rank, in memory as f32.
#[derive(Clone, Debug)]
pub(super) struct ForeignArray {
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<f32>,
}

/// A similarity matrix, images x captions.
pub(super) enum ForeignMatrix {
    /// In memory.
    Held { images: usize, captions: usize, values: Vec<f32> },
    /// In its file, of which rows are read when they are needed.
    Stored(StoredScores),
}

impl ForeignMatrix {
    pub(super) fn images(&self) -> usize {
        match self {
            Self::Held { images, .. } => *images,
            Self::Stored(stored) => stored.images(),
        }
    }

    pub(super) fn captions(&self) -> usize {
        match self {
            Self::Held { captions, .. } => *captions,
            Self::Stored(stored) => stored.captions(),
        }
    }

    pub(super) fn scores(&self) -> Result<Scores<'_>> {
        Ok(match self {
            Self::Held { images, captions, values } => Scores::new(values, *images, *captions)?,
            Self::Stored(stored) => Scores::from_file(stored)?,
        })
    }

    /// Checks that every value is finite, and describes rows and columns that are equal bit for bit. Reads the matrix once,
    /// and columns of the same hash once more.
    ///
    /// # Errors
    /// [`Error::Foreign`] that names the first non-finite value, and how many there are.
    pub(super) fn inspect(&self, path: &Path) -> Result<Vec<String>> {
        let scores = self.scores()?;
        let MatrixHashes { rows, columns } = MatrixHashes::of(&scores)?;
        let count: usize = rows.iter().map(|(_, count)| count).sum();
        let Some(row) = rows.iter().position(|&(_, count)| count > 0) else {
            let rows = describe_duplicates("rows (images)", equal_rows(&scores, &rows)?);
            let columns = describe_duplicates("columns (captions)", equal_columns(&scores, &columns)?);
            return Ok(rows.into_iter().chain(columns).collect());
        };
        let mut buffer = Vec::new();
        let values = scores.row(row, &mut buffer)?;
        let column = values.iter().position(|value| !value.is_finite()).unwrap_or_default();
        Err(Error::Foreign {
            path: path.to_owned(),
            expected: "finite similarities".to_owned(),
            found: format!(
                "{count} non-finite values; the first is {} at image {row}, caption {column} (from 0)",
                values[column]
            ),
            hint: "non-finite values have no rank; find where the program that wrote the file computes them",
        })
    }

    /// Writes the matrix as safetensors under the key `sims`.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let scores = self.scores()?;
        let mut bytes = Vec::with_capacity(4 * self.images() * self.captions());
        let mut buffer = Vec::new();
        for row in 0..self.images() {
            bytes.extend(scores.row(row, &mut buffer)?.iter().flat_map(|value| value.to_le_bytes()));
        }
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Write { path: path.to_owned(), source };
        let view = safetensors::tensor::TensorView::new(Dtype::F32, vec![self.images(), self.captions()], &bytes);
        let view = view.map_err(|error| failed(error.into()))?;
        let file = safetensors::serialize([(KEY, view)], None).map_err(|error| failed(error.into()))?;
        crate::files::write_atomic(path, &file)
    }
}

/// Rows that one task hashes at least, so that there are few partial sums of the columns.
const MIN_ROWS: usize = 64;

/// Hashes of the rows and the columns of a matrix.
#[derive(Default)]
struct MatrixHashes {
    /// The hash of each row, and its number of non-finite values.
    rows: Vec<(u64, usize)>,
    columns: Vec<u64>,
}

impl MatrixHashes {
    fn of(scores: &Scores<'_>) -> Result<Self> {
        let add = |(mut hashes, mut buffer): (Self, Vec<f32>), row| -> Result<(Self, Vec<f32>)> {
            hashes.add(row, scores.row(row, &mut buffer)?);
            Ok((hashes, buffer))
        };
        let rows = (0..scores.images()).into_par_iter().with_min_len(MIN_ROWS);
        let parts = rows.try_fold(|| (Self::default(), Vec::new()), add);
        let parts = parts.map(|part| part.map(|(hashes, _)| hashes));
        parts.try_reduce(Self::default, |first: Self, second: Self| Ok(first.followed_by(second)))
    }

    /// Adds the next row.
    fn add(&mut self, row: usize, values: &[f32]) {
        // A sum of u32, which the compiler vectorises.
        let wrong: u32 = values.iter().map(|value| u32::from(!value.is_finite())).sum();
        self.rows.push((hash(values), wrong as usize));
        // The hash of a column is a sum over rows, so that parts can be added.
        let factor = SplitMix64::new(row as u64).bits();
        self.columns.resize(values.len(), 0);
        for (sum, value) in self.columns.iter_mut().zip(values) {
            *sum = sum.wrapping_add(u64::from(value.to_bits()).wrapping_mul(factor));
        }
    }

    /// The hashes of these rows and the rows after them.
    fn followed_by(mut self, next: Self) -> Self {
        self.rows.extend(next.rows);
        self.columns.resize(self.columns.len().max(next.columns.len()), 0);
        self.columns.iter_mut().zip(next.columns).for_each(|(sum, part)| *sum = sum.wrapping_add(part));
        self
    }
}

/// A hash of the bits of a row. It need not be a good one, because rows of the same hash are compared, but a fast one: four
/// chains of multiplications at a time.
fn hash(values: &[f32]) -> u64 {
    /// Odd, with bits all over.
    const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;
    let step = |hash: u64, word: u64| (hash.rotate_left(29) ^ word).wrapping_mul(FACTOR);
    let mut lanes = [0_u64; 4];
    let (blocks, rest) = values.as_chunks::<8>();
    for block in blocks {
        let (pairs, _) = block.as_chunks::<2>();
        for (lane, [low, high]) in lanes.iter_mut().zip(pairs) {
            *lane = step(*lane, u64::from(high.to_bits()) << 32 | u64::from(low.to_bits()));
        }
    }
    rest.iter().for_each(|value| lanes[0] = step(lanes[0], u64::from(value.to_bits())));
    lanes.into_iter().fold(values.len() as u64, step)
}

/// Groups of rows with the same bits, from the hash of each row.
fn equal_rows(scores: &Scores<'_>, hashes: &[(u64, usize)]) -> Result<Vec<Vec<usize>>> {
    let mut by_hash: HashMap<u64, Vec<usize>> = HashMap::new();
    hashes.iter().enumerate().for_each(|(row, &(hash, _))| by_hash.entry(hash).or_default().push(row));
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let (mut first_buffer, mut buffer) = (Vec::new(), Vec::new());
    for rows in by_hash.into_values().filter(|rows| rows.len() > 1) {
        let known = groups.len();
        for row in rows {
            let values = scores.row(row, &mut buffer)?;
            let mut found = None;
            for (number, group) in groups.iter().enumerate().skip(known) {
                let first = scores.row(group[0], &mut first_buffer)?;
                if first.iter().zip(values).all(|(one, other)| one.to_bits() == other.to_bits()) {
                    found = Some(number);
                }
            }
            match found {
                Some(number) => groups[number].push(row),
                None => groups.push(vec![row]),
            }
        }
    }
    Ok(groups)
}

/// Groups of columns with the same bits, from the hash of each column. Those of the same hash are compared with the first.
fn equal_columns(scores: &Scores<'_>, hashes: &[u64]) -> Result<Vec<Vec<usize>>> {
    let mut order: Vec<usize> = (0..hashes.len()).collect();
    order.sort_by_key(|&column| hashes[column]);
    let equal = order.chunk_by(|&one, &other| hashes[one] == hashes[other]);
    let mut groups: Vec<Vec<usize>> = equal.filter(|group| group.len() > 1).map(<[usize]>::to_vec).collect();
    if groups.is_empty() {
        return Ok(groups);
    }
    let differs: Vec<AtomicBool> = hashes.iter().map(|_| AtomicBool::new(false)).collect();
    let compare = |buffer: &mut Vec<f32>, row| -> Result<()> {
        let values = scores.row(row, buffer)?;
        for group in &groups {
            for &column in group {
                if values[column].to_bits() != values[group[0]].to_bits() {
                    differs[column].store(true, Ordering::Relaxed);
                }
            }
        }
        Ok(())
    };
    (0..scores.images()).into_par_iter().try_for_each_init(Vec::new, compare)?;
    groups.iter_mut().for_each(|columns| columns.retain(|&column| !differs[column].load(Ordering::Relaxed)));
    Ok(groups)
}

/// Reads a matrix; a single-precision row-major one stays in its file.
///
/// # Errors
/// [`Error::Foreign`] for another format or shape, and for a matrix that is transposed.
pub(super) fn read_matrix(path: &Path, transposed: bool, pairing: Option<&CaptionImages>) -> Result<ForeignMatrix> {
    let extension = extension(path);
    let located = match extension.as_str() {
        "npy" => Some(locate_npy(path)?),
        "safetensors" => locate_safetensors(path)?,
        _ => None,
    };
    if let Some(ArrayLocation { start, shape, is_plain: true }) = &located {
        let [rows, columns] = matrix_shape(path, shape)?;
        if !transposed {
            check_orientation(path, rows, columns, pairing)?;
            return Ok(ForeignMatrix::Stored(StoredScores::open(path, *start, [rows, columns])?));
        }
    }
    let array = read_array(path, Some(KEY))?;
    let [rows, columns] = matrix_shape(path, &array.shape)?;
    if !transposed {
        check_orientation(path, rows, columns, pairing)?;
        return Ok(ForeignMatrix::Held { images: rows, captions: columns, values: array.values });
    }
    check_orientation(path, columns, rows, pairing)?;
    let mut values = vec![0.0; array.values.len()];
    for (index, &value) in array.values.iter().enumerate() {
        values[index % columns * rows + index / columns] = value;
    }
    Ok(ForeignMatrix::Held { images: columns, captions: rows, values })
}

fn matrix_shape(path: &Path, shape: &[usize]) -> Result<[usize; 2]> {
    match *shape {
        [rows, columns] if rows > 0 && columns > 0 => Ok([rows, columns]),
        _ => Err(Error::Foreign {
            path: path.to_owned(),
            expected: "a matrix of images x captions".to_owned(),
            found: format!("an array of shape {shape:?}"),
            hint: "save the two-dimensional similarity matrix",
        }),
    }
}

/// Rejects a matrix that is transposed: its shape is that of the data set, or of five captions per image, the other way
/// around.
fn check_orientation(path: &Path, images: usize, captions: usize, pairing: Option<&CaptionImages>) -> Result<()> {
    let expected = pairing.map(|pairing| [pairing.images(), pairing.captions()]);
    let is_transposed = match expected {
        Some([rows, columns]) => [images, captions] == [columns, rows] && rows != columns,
        None => images == CAPTIONS_PER_IMAGE * captions,
    };
    let [rows, columns] = expected.unwrap_or([captions, images]);
    if is_transposed {
        return Err(Error::Foreign {
            path: path.to_owned(),
            expected: format!("images x captions, {rows} x {columns}"),
            found: format!("{images} x {captions}, which is captions x images"),
            hint: "evaluate it as a transposed matrix (`--transposed` on the command line)",
        });
    }
    match expected {
        Some(expected) if expected != [images, captions] => Err(Error::Foreign {
            path: path.to_owned(),
            expected: format!("images x captions of the data set, {rows} x {columns}"),
            found: format!("{images} x {captions}"),
            hint: "name the split that the matrix was computed on",
        }),
        _ => Ok(()),
    }
}

/// An array of a file, as f32. `key` chooses among several arrays of a file.
///
/// # Errors
/// [`Error::Foreign`] for another format, element type or key.
pub(super) fn read_array(path: &Path, key: Option<&str>) -> Result<ForeignArray> {
    match extension(path).as_str() {
        "npy" => {
            let mut file = open(path)?;
            read_npy(path, &mut file)
        }
        "npz" => read_npz(path, key),
        "safetensors" => {
            let bytes = fs_err::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
            let file = SafeTensors::deserialize(&bytes).map_err(|error| damaged(path, error.to_string()))?;
            let names = file.names();
            let name = choose(path, &names, key)?;
            tensor(path, &file, &name)
        }
        other => Err(Error::Foreign {
            path: path.to_owned(),
            expected: "a file `.npy`, `.npz` or `.safetensors`".to_owned(),
            found: format!("`.{other}`"),
            hint: "save the array in one of these formats",
        }),
    }
}

/// A tensor of a safetensors file, as f32.
pub(super) fn tensor(path: &Path, file: &SafeTensors<'_>, name: &str) -> Result<ForeignArray> {
    let view = file.tensor(name).map_err(|error| damaged(path, error.to_string()))?;
    let data = view.data();
    let values = match view.dtype() {
        Dtype::F32 => floats(data, f32::from_le_bytes),
        Dtype::F64 => floats(data, |bytes: [u8; 8]| f64::from_le_bytes(bytes) as f32),
        Dtype::F16 => floats(data, |bytes: [u8; 2]| half::f16::from_le_bytes(bytes).to_f32()),
        Dtype::BF16 => floats(data, |bytes: [u8; 2]| half::bf16::from_le_bytes(bytes).to_f32()),
        Dtype::I64 => floats(data, |bytes: [u8; 8]| i64::from_le_bytes(bytes) as f32),
        Dtype::I32 => floats(data, |bytes: [u8; 4]| i32::from_le_bytes(bytes) as f32),
        other => return Err(element_type(path, &format!("{other:?} of `{name}`"))),
    };
    Ok(ForeignArray { shape: view.shape().to_vec(), values })
}

fn floats<const N: usize>(data: &[u8], convert: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    data.as_chunks::<N>().0.iter().map(|&bytes| convert(bytes)).collect()
}

/// Where an array lies in a file, and whether it is little-endian f32 in row-major order.
struct ArrayLocation {
    start: u64,
    shape: Vec<usize>,
    is_plain: bool,
}

fn locate_npy(path: &Path) -> Result<ArrayLocation> {
    let mut file = CountingReader { file: open(path)?, count: 0 };
    let header = npy_header(path, &mut file)?;
    let shape = sizes(&header);
    let is_plain = header.order() == Order::C && header.dtype().descr().trim_matches('\'') == "<f4";
    if is_plain {
        check_length(path, file.count, &shape)?;
    }
    Ok(ArrayLocation { start: file.count, shape, is_plain })
}

/// Reads the header of an array. npyz reserves the size that the header claims before it reads, up to 4 GiB, and its time to
/// parse the header grows exponentially with the depth of brackets.
pub(super) fn npy_header(path: &Path, mut reader: impl Read) -> Result<NpyHeader> {
    // 6 bytes of magic, 2 of version, and the size in 2 bytes (version 1) or 4 (later ones).
    let mut start = [0; 12];
    let failed = |error: std::io::Error| damaged(path, error.to_string());
    reader.read_exact(&mut start[..10]).map_err(failed)?;
    let [.., major, _, low, high, _, _] = start;
    let (read, size) = if major == 1 {
        (10, u32::from(u16::from_le_bytes([low, high])))
    } else {
        reader.read_exact(&mut start[10..]).map_err(failed)?;
        (12, u32::from_le_bytes([low, high, start[10], start[11]]))
    };
    if size > MAX_NPY_HEADER {
        return Err(damaged(path, format!("a header that claims {size} bytes")));
    }
    let mut text = vec![0; size as usize];
    reader.read_exact(&mut text).map_err(failed)?;
    let mut depth = 0usize;
    for byte in &text {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_NPY_DEPTH {
            return Err(damaged(path, format!("a header with brackets more than {MAX_NPY_DEPTH} deep")));
        }
    }
    NpyHeader::from_reader(start[..read].chain(text.as_slice())).map_err(failed)
}

/// A header may claim any size; the file has to hold it.
fn check_length(path: &Path, start: u64, shape: &[usize]) -> Result<()> {
    let length = fs_err::metadata(path).map_err(|source| Error::Read { path: path.to_owned(), source })?.len();
    let elements = shape.iter().try_fold(4u64, |all, &size| all.checked_mul(size as u64));
    match elements.and_then(|bytes| bytes.checked_add(start)) {
        Some(expected) if expected == length => Ok(()),
        expected => {
            let expected =
                expected.map_or_else(|| "more than any file holds".to_owned(), |bytes| format!("{bytes} bytes"));
            Err(damaged(path, format!("{length} bytes where the header describes {expected}")))
        }
    }
}

fn locate_safetensors(path: &Path) -> Result<Option<ArrayLocation>> {
    let mut file = File::open(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let length = file.metadata().map_err(|source| Error::Read { path: path.to_owned(), source })?.len();
    let (metadata, begin) =
        laps_files::safetensors_header(&mut file, length).map_err(|reason| damaged(path, reason))?;
    let tensors = metadata.tensors();
    let names: Vec<&str> = tensors.keys().map(String::as_str).collect();
    let name = choose(path, &names, Some(KEY))?;
    Ok(tensors.get(&name).map(|info| ArrayLocation {
        start: begin + info.data_offsets.0 as u64,
        shape: info.shape.clone(),
        is_plain: info.dtype == Dtype::F32,
    }))
}

/// The name among those of a file: `key` if it is there, or the only one.
fn choose(path: &Path, names: &[&str], key: Option<&str>) -> Result<String> {
    let named = key.filter(|key| names.contains(key));
    match (named, names) {
        (Some(key), _) => Ok(key.to_owned()),
        (None, [only]) => Ok((*only).to_owned()),
        (None, names) => {
            let mut listed: Vec<String> = names.iter().take(8).map(|name| format!("`{name}`")).collect();
            listed.sort();
            Err(Error::Foreign {
                path: path.to_owned(),
                expected: format!("an array `{}`, or only one array", key.unwrap_or(KEY)),
                found: if listed.is_empty() { "none".to_owned() } else { listed.join(", ") },
                hint: "save the matrix under that name",
            })
        }
    }
}

fn read_npy(path: &Path, mut reader: impl Read) -> Result<ForeignArray> {
    let header = npy_header(path, &mut reader)?;
    let shape = sizes(&header);
    let (order, dtype) = (header.order(), header.dtype());
    let npyz::DType::Plain(plain) = &dtype else { return Err(element_type(path, &dtype.descr())) };
    let width = match (plain.type_char(), plain.size_field()) {
        (TypeChar::Float, width @ (2 | 4 | 8)) | (TypeChar::Int, width @ (4 | 8)) => width as usize,
        _ => return Err(element_type(path, &dtype.descr())),
    };
    let is_big = plain.endianness() == npyz::Endianness::Big;
    let elements = shape.iter().try_fold(1usize, |all, &size| all.checked_mul(size));
    let Some(bytes) = elements.and_then(|elements| elements.checked_mul(width)) else {
        return Err(damaged(path, format!("a header that claims the shape {shape:?}")));
    };
    // Grows as it is read, so that a header alone cannot ask for memory.
    let mut data = Vec::new();
    reader.take(bytes as u64).read_to_end(&mut data).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    if data.len() != bytes {
        return Err(damaged(path, format!("{} bytes of values where the header describes {bytes}", data.len())));
    }
    if is_big {
        data.chunks_exact_mut(width).for_each(<[u8]>::reverse);
    }
    let mut values = match (plain.type_char(), width) {
        (TypeChar::Float, 2) => floats(&data, |bytes: [u8; 2]| half::f16::from_le_bytes(bytes).to_f32()),
        (TypeChar::Float, 4) => floats(&data, f32::from_le_bytes),
        (TypeChar::Float, _) => floats(&data, |bytes: [u8; 8]| f64::from_le_bytes(bytes) as f32),
        (_, 4) => floats(&data, |bytes: [u8; 4]| i32::from_le_bytes(bytes) as f32),
        _ => floats(&data, |bytes: [u8; 8]| i64::from_le_bytes(bytes) as f32),
    };
    if order == Order::Fortran {
        values = to_row_major(&shape, &values);
    }
    Ok(ForeignArray { shape, values })
}

/// Values in column-major order, in row-major order.
fn to_row_major(shape: &[usize], values: &[f32]) -> Vec<f32> {
    let mut sorted = vec![0.0; values.len()];
    for (index, &value) in values.iter().enumerate() {
        let (mut rest, mut place) = (index, 0);
        let mut stride = values.len();
        for &size in shape {
            stride /= size.max(1);
            place += rest % size * stride;
            rest /= size;
        }
        sorted[place] = value;
    }
    sorted
}

fn read_npz(path: &Path, key: Option<&str>) -> Result<ForeignArray> {
    let file = open(path)?;
    let mut archive = zip::ZipArchive::new(file).map_err(|error| damaged(path, error.to_string()))?;
    let names: Vec<String> = archive
        .file_names()
        .map(|name| name.map(|name| name.trim_end_matches(".npy").to_owned()))
        .collect::<Result<_, _>>()
        .map_err(|error| damaged(path, error.to_string()))?;
    let name = choose(path, &names.iter().map(String::as_str).collect::<Vec<_>>(), key)?;
    let member = archive.by_name(&format!("{name}.npy")).map_err(|error| damaged(path, error.to_string()))?;
    read_npy(path, member)
}

fn sizes(header: &NpyHeader) -> Vec<usize> {
    header.shape().iter().map(|&size| usize::try_from(size).unwrap_or(usize::MAX)).collect()
}

fn open(path: &Path) -> Result<BufReader<File>> {
    Ok(BufReader::new(File::open(path).map_err(|source| Error::Read { path: path.to_owned(), source })?))
}

fn extension(path: &Path) -> String {
    path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase()).unwrap_or_default()
}

fn damaged(path: &Path, found: String) -> Error {
    Error::Foreign {
        path: path.to_owned(),
        expected: "a whole file of arrays".to_owned(),
        found,
        hint: "the file is cut off or damaged: write it again",
    }
}

fn element_type(path: &Path, found: &str) -> Error {
    Error::Foreign {
        path: path.to_owned(),
        expected: "real numbers of 16, 32 or 64 bits".to_owned(),
        found: found.to_owned(),
        hint: "save the array as float32",
    }
}

/// A reader that counts what was read of it.
struct CountingReader {
    file: BufReader<File>,
    count: u64,
}

impl Read for CountingReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.count += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn npy_header_that_claims_gigabytes_is_refused_before_memory_is_reserved() {
        let mut bytes = b"\x93NUMPY\x03\x00".to_vec();
        bytes.extend(3_755_942_006u32.to_le_bytes());
        bytes.extend(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1), }");
        let error = npy_header(Path::new("a.npy"), bytes.as_slice()).err().unwrap();
        assert!(error.to_string().contains("a header that claims 3755942006 bytes"), "{error}");
    }

    #[test]
    fn npy_header_of_nested_brackets_is_refused() {
        let text = format!("{{'descr': {}'<f4'", "[".repeat(100));
        let bytes = [b"\x93NUMPY\x01\x00", &(text.len() as u16).to_le_bytes()[..], text.as_bytes()].concat();
        let error = npy_header(Path::new("a.npy"), bytes.as_slice()).err().unwrap();
        assert!(error.to_string().contains("a header with brackets more than 6 deep"), "{error}");
    }

    #[test]
    fn npy_headers_of_every_version_are_read() {
        let text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n";
        for major in [1, 2, 3] {
            let mut bytes = b"\x93NUMPY".to_vec();
            bytes.extend([major, 0]);
            match major {
                1 => bytes.extend((text.len() as u16).to_le_bytes()),
                _ => bytes.extend((text.len() as u32).to_le_bytes()),
            }
            bytes.extend(text);
            let header = npy_header(Path::new("a.npy"), bytes.as_slice()).unwrap();
            assert_eq!(sizes(&header), [2, 3]);
        }
    }
}
