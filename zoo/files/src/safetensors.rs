//! Headers of safetensors files.
//!
//! A safetensors file is the length of its header (8 bytes, little-endian), the header (JSON: name, dtype, shape and byte
//! range of each tensor), and the values. The `safetensors` crate parses the JSON and checks that the byte ranges cover the
//! values without gaps or overlap. It takes the whole file as one slice, which means a memory map for large files, and a map
//! of a file that shrinks ends the process. So this module reads the header alone, and callers read tensors at their offsets.
//! The crate also writes metadata from a hash map, in another order each time, so this module writes headers too.

use std::{
    collections::BTreeMap,
    io::{Read, Seek, SeekFrom},
    ops::Range,
};

use fs_err::File;
use safetensors::tensor::Metadata;
use serde_json::json;

/// Maximum length of a header in bytes. The header of a LAPS checkpoint takes about 60 kB.
const MAX_HEADER_BYTES: u64 = 16 << 20;

/// Reads the header of a safetensors file of `length` bytes. Returns it with the offset of the first value.
///
/// # Errors
/// A description of the fault, for the caller's `found:` line.
///
/// ```
/// # use std::io::Write;
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("model.safetensors");
/// let header = br#"{"bias":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
/// let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
/// bytes.extend_from_slice(header);
/// bytes.extend_from_slice(&[0; 8]);
/// std::fs::write(&path, &bytes)?;
///
/// let mut file = fs_err::File::open(&path)?;
/// let (metadata, offset) = laps_files::safetensors_header(&mut file, bytes.len() as u64)?;
/// assert_eq!(metadata.info("bias").map(|info| info.shape.clone()), Some(vec![2]));
/// assert_eq!(offset, 8 + header.len() as u64);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn safetensors_header(file: &mut File, length: u64) -> Result<(Metadata, u64), String> {
    let (metadata, values) = safetensors_header_at(file, 0, length)?;
    match values.end == length {
        true => Ok((metadata, values.start)),
        false => Err(format!("{length} bytes where the header describes {}", values.end)),
    }
}

/// Reads the header at byte `offset` of a file of `length` bytes, for a file with several headers. Returns it with the byte
/// range of its values. Other bytes may follow them.
///
/// # Errors
/// As [`safetensors_header`].
pub fn safetensors_header_at(file: &mut File, offset: u64, length: u64) -> Result<(Metadata, Range<u64>), String> {
    let mut prefix = [0; 8];
    file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut prefix)).map_err(|error| error.to_string())?;
    let header_length = u64::from_le_bytes(prefix);
    if header_length > length.saturating_sub(offset).saturating_sub(8) {
        return Err(format!("a header of {header_length} bytes in a file of {length}"));
    }
    if header_length > MAX_HEADER_BYTES {
        return Err(format!("a header of {header_length} bytes, of at most {MAX_HEADER_BYTES}"));
    }
    // The bounds above make it fit into memory.
    let mut header = vec![0; header_length as usize];
    file.read_exact(&mut header).map_err(|error| error.to_string())?;
    let metadata: Metadata = serde_json::from_slice(&header).map_err(|error| format!("an invalid header: {error}"))?;
    let start = offset + 8 + header_length;
    let end = start.saturating_add(metadata.data_len() as u64);
    if end > length {
        return Err(format!("{length} bytes where the header describes {end}"));
    }
    Ok((metadata, start..end))
}

/// The length of a header is a multiple of this many bytes, so that every tensor can be aligned to its element size.
const ALIGNMENT: usize = 8;

/// One tensor of a header that is written.
#[derive(Clone, Copy, Debug)]
pub struct TensorHeader<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its element type as safetensors names it, such as `F32`.
    pub dtype: &'a str,
    /// Its shape.
    pub shape: &'a [usize],
    /// Number of bytes of its values.
    pub bytes: usize,
}

/// The start of a safetensors file: the length of the header and the header. The values follow in the order of `tensors`.
/// It depends on the arguments alone, so the same contents give the same file.
///
/// # Errors
/// A description of the fault: a name that two tensors have, or sizes that overflow.
///
/// ```
/// use std::collections::BTreeMap;
/// use laps_files::{TensorHeader, safetensors_head};
///
/// let bias = TensorHeader { name: "bias", dtype: "F32", shape: &[2], bytes: 8 };
/// let head = safetensors_head(&[bias], &BTreeMap::from([("format", "pt".to_owned())]))?;
/// let text = br#"{"__metadata__":{"format":"pt"},"bias":{"data_offsets":[0,8],"dtype":"F32","shape":[2]}}"#;
/// assert_eq!(head[..8], (text.len().next_multiple_of(8) as u64).to_le_bytes());
/// assert_eq!(head[8..].trim_ascii_end(), text);
/// # Ok::<(), String>(())
/// ```
pub fn safetensors_head(tensors: &[TensorHeader], metadata: &BTreeMap<&str, String>) -> Result<Vec<u8>, String> {
    let mut fields = BTreeMap::from([("__metadata__", json!(metadata))]);
    let mut start = 0_usize;
    for TensorHeader { name, dtype, shape, bytes } in tensors {
        let end = start.checked_add(*bytes).ok_or_else(|| format!("`{name}`, whose size overflows"))?;
        // In alphabetical order, whatever the order of a JSON object in memory is.
        let field = json!({ "data_offsets": [start, end], "dtype": dtype, "shape": shape });
        if fields.insert(name, field).is_some() {
            return Err(format!("two tensors named `{name}`"));
        }
        start = end;
    }
    let mut text = json!(fields).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(ALIGNMENT), b' ');
    let mut head = (text.len() as u64).to_le_bytes().to_vec();
    head.append(&mut text);
    Ok(head)
}
