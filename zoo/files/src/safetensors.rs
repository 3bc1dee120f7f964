//! The safetensors container.
//!
//! Tensors are read at their offsets rather than through a memory map: a file that shrinks under a map ends the process.

use std::io::{Read, Seek, SeekFrom};

use fs_err::File;
use safetensors::tensor::Metadata;

/// Longest header in bytes. The header of a whole LAPS checkpoint takes about 60 kB.
const MAX_HEADER_BYTES: u64 = 16 << 20;

/// Reads the header of a file of `length` bytes, and where the tensors begin; what is wrong with it in words otherwise.
pub fn safetensors_header(file: &mut File, length: u64) -> Result<(Metadata, u64), String> {
    let mut prefix = [0; 8];
    file.seek(SeekFrom::Start(0)).and_then(|_| file.read_exact(&mut prefix)).map_err(|error| error.to_string())?;
    let header_length = u64::from_le_bytes(prefix);
    let held = length.saturating_sub(8);
    if header_length > held {
        return Err(format!("a header of {header_length} bytes in a file of {length}"));
    }
    if header_length > MAX_HEADER_BYTES {
        return Err(format!("a header of {header_length} bytes, of at most {MAX_HEADER_BYTES}"));
    }
    // Both bounds above make it fit.
    let mut header = vec![0; header_length as usize];
    file.read_exact(&mut header).map_err(|error| error.to_string())?;
    let metadata: Metadata =
        serde_json::from_slice(&header).map_err(|error| format!("a header that is wrong: {error}"))?;
    let expected = (metadata.data_len() as u64).saturating_add(8 + header_length);
    if expected != length {
        return Err(format!("{length} bytes where the header describes {expected}"));
    }
    Ok((metadata, 8 + header_length))
}
