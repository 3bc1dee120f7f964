//! Peak memory for a checkpoint of 900 MB. The only test of its process, so that it measures its own memory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed assertion in a test may panic")]

#[allow(dead_code, reason = "the other checkpoint tests use the rest")]
#[path = "checkpoint/writer.rs"]
mod writer;

use std::{
    io::{Seek, SeekFrom, Write},
    time::Instant,
};

use laps_hub::checkpoint::Checkpoint;
use laps_model::params::{Init, Parameter};
use writer::{PickleWriter, torch_legacy};

/// Peak memory of this process in MiB.
fn peak() -> Option<u64> {
    let status = fs_err::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? / 1024)
}

#[test]
fn peak_memory_is_twice_the_largest_tensor() {
    let (tensors, elements) = (9_usize, 25 << 20);
    let mut pickle = PickleWriter::default().op(b"\x80\x02}").text("model").op(b"}(");
    let names: Vec<String> = (0..tensors).map(|index| format!("layer.{index}.weight")).collect();
    for (index, name) in names.iter().enumerate() {
        pickle = pickle.text(name).whole("FloatStorage", &index.to_string(), &[elements]);
    }
    let keys: Vec<String> = (0..tensors).map(|index| index.to_string()).collect();
    let storages: Vec<_> = keys.iter().map(|key| (key.as_str(), elements, Vec::new())).collect();
    let head = torch_legacy(&pickle.op(b"us.").0, &storages);

    // The storages are holes of a sparse file; only their element counts are written.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.pth");
    let start = head.len() - 8 * tensors;
    fs_err::write(&path, &head[..start]).unwrap();
    let mut file = fs_err::OpenOptions::new().write(true).open(&path).unwrap();
    for index in 0..tensors {
        file.seek(SeekFrom::Start((start + index * (8 + 4 * elements)) as u64)).unwrap();
        file.write_all(&(elements as u64).to_le_bytes()).unwrap();
    }
    file.set_len((start + tensors * (8 + 4 * elements)) as u64).unwrap();

    let Some(before) = peak() else { return println!("skipped: this system does not report the memory of a process") };
    let clock = Instant::now();
    let checkpoint = Checkpoint::open(&path).unwrap();
    let (opened, after_open) = (clock.elapsed(), peak().unwrap() - before);
    let model: Vec<_> =
        names.iter().map(|name| Parameter { name: name.clone(), shape: vec![elements], init: Init::Zeros }).collect();
    checkpoint.check(&model).unwrap();
    let (checked, after_check) = (clock.elapsed(), peak().unwrap() - before);
    assert_eq!(checkpoint.read(&names[8]).unwrap().values().len(), elements);
    let after_read = peak().unwrap() - before;
    let clock = Instant::now();
    let converted = laps_hub::checkpoint::convert(&path, &folder.path().join("large.safetensors"), None).unwrap();
    assert_eq!(converted.tensors, tensors);
    let (convert_time, after_convert) = (clock.elapsed(), peak().unwrap() - before);
    println!("convert: {convert_time:?}, {after_convert} MiB");
    let verified = folder.path().join("verified.safetensors");
    laps_hub::checkpoint::convert_verified(&path, &verified, &converted.source_sha256, None).unwrap();
    let after_verified = peak().unwrap() - before;
    println!("convert, hashing the result: {after_verified} MiB");
    println!("open: {opened:?}, {after_open} MiB; check: {checked:?}, {after_check} MiB; read: {after_read} MiB");
    // A tensor has 100 MiB: its bytes while checking, its bytes and its values while reading.
    assert!(after_open < 10, "{after_open} MiB");
    assert!(after_check < 130, "{after_check} MiB");
    assert!(after_read < 230, "{after_read} MiB");
    // Converting has the bytes of one tensor in memory, or of one being written and one being hashed: no more than reading.
    assert!(after_convert < 230, "{after_convert} MiB");
    assert!(after_verified < 230, "{after_verified} MiB");
}
