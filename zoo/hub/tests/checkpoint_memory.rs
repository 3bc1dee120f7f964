//! A checkpoint of 900 MB: opened by its pickle alone, read one tensor at a time. Alone in its process, so that the memory
//! it counts is its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at what is not as it should be"
)]

#[allow(dead_code, reason = "the other tests of checkpoints use the rest")]
#[path = "checkpoint/writer.rs"]
mod writer;

use std::{
    io::{Seek, SeekFrom, Write},
    time::Instant,
};

use laps_hub::checkpoint::Checkpoint;
use laps_model::params::{Init, Parameter};
use writer::{Pickle, torch_legacy};

/// The most memory that this process had in use so far, in MiB.
fn peak() -> Option<u64> {
    let status = fs_err::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? / 1024)
}

#[test]
fn a_large_checkpoint_needs_the_memory_of_its_largest_tensor_twice() {
    let (tensors, elements) = (9_usize, 25 << 20);
    let mut pickle = Pickle::default().op(b"\x80\x02}").text("model").op(b"}(");
    let names: Vec<String> = (0..tensors).map(|index| format!("layer.{index}.weight")).collect();
    for (index, name) in names.iter().enumerate() {
        pickle = pickle.text(name).whole("FloatStorage", &index.to_string(), &[elements]);
    }
    let keys: Vec<String> = (0..tensors).map(|index| index.to_string()).collect();
    let storages: Vec<_> = keys.iter().map(|key| (key.as_str(), elements, Vec::new())).collect();
    let head = torch_legacy(&pickle.op(b"us.").0, &storages);

    // The storages are holes in the file but for their element counts.
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

    let Some(before) = peak() else { return println!("skipped: this system does not tell the memory of a process") };
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
    // A tensor takes 100 MiB: its bytes while checking, its bytes and its values while reading.
    assert!(after_open < 10, "{after_open} MiB");
    assert!(after_check < 130, "{after_check} MiB");
    assert!(after_read < 230, "{after_read} MiB");
    // Converting holds the bytes of one tensor, or of the one that is written and the one that is hashed: it adds nothing to
    // what reading took.
    assert!(after_convert < 230, "{after_convert} MiB");
    assert!(after_verified < 230, "{after_verified} MiB");
}
