//! Downloads and hashes a file from a local server, compared with `curl` and `sha256sum`; converts a PyTorch
//! checkpoint, compared with copying it. Both sides alternate in the same run; medians of five rounds.
//!
//! The server sends from memory, so both sides are limited by the loopback interface, the hash and the disk.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a benchmark may panic")]

#[allow(dead_code, reason = "the checkpoint tests use the rest")]
#[path = "../../zoo/hub/tests/checkpoint/writer.rs"]
mod writer;

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::Path,
    process::Command,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use laps_bench::machine::Machine;
use laps_files::{ExpectedDigest, digest_file};
use laps_hub::{
    checkpoint::{convert, convert_verified},
    fetch::{FetchSettings, Fetcher, Network, Pinning},
    store::{FileSource, FileStore, MAX_WEIGHTS_BYTES, RemoteFile},
};
use writer::{PickleWriter, torch_legacy};

const ROUNDS: usize = 5;
const TENSORS: usize = 384;
/// Values per tensor: 2 MiB, like most tensors of ViT-B and BERT-base. The file has 768 MiB, about the size of the
/// published checkpoints.
const ELEMENTS: usize = 1 << 19;

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source.pth");
    let bytes = Arc::new(checkpoint());
    fs_err::write(&source, &*bytes).unwrap();
    let sha256 = digest_file(&source, &ExpectedDigest::default()).unwrap().sha256;
    let address = serve(Arc::clone(&bytes));
    let mib = bytes.len() as f64 / f64::from(1 << 20);
    let machine = Machine::here();
    println!("{mib:.0} MiB, {ROUNDS} rounds; {machine}");

    let mut rounds: [Vec<Duration>; 5] = Default::default();
    for round in 0..ROUNDS {
        let room = folder.path().join(round.to_string());
        fs_err::create_dir(&room).unwrap();
        rounds[0].push(timed(|| {
            let path = room.join("curl");
            run(Command::new("curl").args(["--silent", "--show-error", "--fail", "--output"]).arg(&path).arg(&address));
            run(Command::new("sha256sum").arg(&path));
        }));
        rounds[1].push(timed(|| fetch(&room.join("cache"), &address, (bytes.len() as u64, &sha256))));
        rounds[2].push(timed(|| {
            run(Command::new("cp").arg(&source).arg(room.join("copy")));
            run(Command::new("sync").arg(room.join("copy")));
        }));
        rounds[3].push(timed(|| {
            let converted = convert(&source, &room.join("converted.safetensors"), None).unwrap();
            assert_eq!((converted.tensors, &converted.source_sha256), (TENSORS, &sha256));
        }));
        rounds[4].push(timed(|| {
            let (converted, _) = convert_verified(&source, &room.join("verified.safetensors"), &sha256, None).unwrap();
            assert_eq!(converted.tensors, TENSORS);
        }));
        fs_err::remove_dir_all(&room).unwrap();
    }
    let names = ["curl and sha256sum", "fetch", "cp and sync", "convert", "convert after fetch"];
    let medians = rounds.map(median);
    for (name, median) in names.into_iter().zip(medians) {
        println!("{name:>20}: {median:.3} s, {:.0} MiB/s", mib / median);
    }
    println!("fetch at {:.2} of the rate of curl and sha256sum", medians[0] / medians[1]);
    for (name, median) in names.into_iter().zip(medians).skip(3) {
        println!("{name} at {:.2} of the rate of cp and sync", medians[2] / median);
    }
}

/// A checkpoint in which all values differ.
fn checkpoint() -> Vec<u8> {
    let mut pickle = PickleWriter::default().op(b"\x80\x02}").text("model").op(b"}(");
    for tensor in 0..TENSORS {
        pickle = pickle.text(&format!("layer.{tensor}.weight")).whole("FloatStorage", &tensor.to_string(), &[ELEMENTS]);
    }
    let keys: Vec<String> = (0..TENSORS).map(|tensor| tensor.to_string()).collect();
    let values = |tensor: usize| (0..ELEMENTS).flat_map(move |at| ((at + tensor) as f32).to_le_bytes()).collect();
    let storages: Vec<_> =
        keys.iter().enumerate().map(|(tensor, key)| (key.as_str(), ELEMENTS, values(tensor))).collect();
    torch_legacy(&pickle.op(b"us.").0, &storages)
}

/// Serves `bytes` at every path until the process ends.
fn serve(bytes: Arc<Vec<u8>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/model_best.pth", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let bytes = Arc::clone(&bytes);
            thread::spawn(move || {
                let mut reader = BufReader::new(&stream);
                let mut line = String::new();
                while reader.read_line(&mut line).is_ok_and(|length| length > 2) {
                    line.clear();
                }
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", bytes.len());
                // Ignore clients that disconnect.
                let _ = (&stream).write_all(head.as_bytes()).and_then(|()| (&stream).write_all(&bytes));
            });
        }
    });
    address
}

fn fetch(cache: &Path, address: &str, (bytes, sha256): (u64, &str)) {
    let store = FileStore::at(cache.to_owned());
    let item = RemoteFile {
        key: "model_best.pth".to_owned(),
        path: cache.join("model_best.pth"),
        expected: ExpectedDigest { bytes: Some(bytes), sha256: Some(sha256.to_owned()), ..ExpectedDigest::default() },
        source: FileSource::Address(address.to_owned()),
        mirrors: Vec::new(),
        licence: None,
        max_bytes: MAX_WEIGHTS_BYTES,
    };
    let settings =
        FetchSettings { store, ..FetchSettings::from_environment(Network::Online, Pinning::OnFirstFetch).unwrap() };
    let fetched = Fetcher::new(settings).fetch(&item, |_| Ok(()), &()).unwrap();
    assert!(!fetched.was_cached && fetched.pin.bytes == bytes);
}

fn timed(work: impl FnOnce()) -> Duration {
    let clock = Instant::now();
    work();
    clock.elapsed()
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The median in seconds.
fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64()
}
