//! TensorBoard event files with scalars.
//!
//! The file is a TFRecord file: each record is its length, the masked CRC-32C of the length, the bytes, and the masked
//! CRC-32C of the bytes. A record is a protocol buffer `Event`. Only the few required fields are encoded here, so no
//! protobuf crate is needed.

use std::{
    io::Write,
    time::{SystemTime, UNIX_EPOCH},
};

use laps_files::IoError;

use super::RunFolder;
use crate::{Error, Result};

/// An event file of a run. A resumed run creates another file. TensorBoard reads all files of a folder and drops the steps
/// that a later file repeats.
pub(super) struct EventFile {
    path: std::path::PathBuf,
    file: fs_err::File,
}

impl EventFile {
    /// Creates a file in `folder` for the steps after `step`.
    pub(super) fn create(folder: &RunFolder, step: u64) -> Result<Self> {
        let seconds = now();
        let path = folder.file(&format!("events.out.tfevents.{:010}.{step:08}.laps-zoo", seconds as u64));
        let file = fs_err::File::create(&path).map_err(|source| Error::Io(IoError::new("write", &path, source)))?;
        let mut events = Self { path, file };
        let mut event = Vec::new();
        double(&mut event, 1, seconds);
        bytes(&mut event, 3, b"brain.Event:2");
        events.record(&event)?;
        if step > 0 {
            // `SessionLog` with status START: invalidates this and later steps of earlier files.
            let mut log = Vec::new();
            varint(&mut log, 1, 1);
            let mut event = Vec::new();
            double(&mut event, 1, seconds);
            varint(&mut event, 2, step + 1);
            bytes(&mut event, 7, &log);
            events.record(&event)?;
        }
        Ok(events)
    }

    /// Appends values at `step`.
    pub(super) fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        let mut summary = Vec::new();
        for (tag, value) in values {
            let mut entry = Vec::new();
            bytes(&mut entry, 1, tag.as_bytes());
            key(&mut entry, 2, 5);
            entry.extend((*value as f32).to_le_bytes());
            bytes(&mut summary, 1, &entry);
        }
        let mut event = Vec::new();
        double(&mut event, 1, now());
        varint(&mut event, 2, step);
        bytes(&mut event, 5, &summary);
        self.record(&event)
    }

    fn record(&mut self, event: &[u8]) -> Result<()> {
        let length = (event.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(event.len() + 16);
        record.extend(length);
        record.extend(masked_crc(&length).to_le_bytes());
        record.extend(event);
        record.extend(masked_crc(event).to_le_bytes());
        self.file.write_all(&record).map_err(|source| Error::Io(IoError::new("write", &self.path, source)))
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

fn push_varint(target: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        target.push(value as u8 | 0x80);
        value >>= 7;
    }
    target.push(value as u8);
}

fn key(target: &mut Vec<u8>, field: u64, wire_type: u64) {
    push_varint(target, field << 3 | wire_type);
}

fn varint(target: &mut Vec<u8>, field: u64, value: u64) {
    key(target, field, 0);
    push_varint(target, value);
}

fn double(target: &mut Vec<u8>, field: u64, value: f64) {
    key(target, field, 1);
    target.extend(value.to_le_bytes());
}

fn bytes(target: &mut Vec<u8>, field: u64, value: &[u8]) {
    key(target, field, 2);
    push_varint(target, value.len() as u64);
    target.extend(value);
}

fn masked_crc(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli, reflected), one bit at a time: records are short.
fn crc32c(data: &[u8]) -> u32 {
    !data.iter().fold(!0, |crc: u32, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| crc >> 1 ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    use super::{bytes, crc32c, varint};

    /// The published check value of CRC-32C.
    #[test]
    fn checksum_is_crc32c() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn fields_are_encoded_as_protocol_buffers() {
        let mut target = Vec::new();
        varint(&mut target, 2, 300);
        bytes(&mut target, 5, b"ab");
        assert_eq!(target, [0x10, 0xac, 0x02, 0x2a, 2, b'a', b'b']);
    }
}
