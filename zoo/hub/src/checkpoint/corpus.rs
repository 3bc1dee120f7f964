//! The corpus of `tests/checkpoints/corpus.zip`: every tensor has the bytes that torch loads, and what is refused is refused
//! for its reason. `tests/checkpoints/corpus.py` writes it.

use std::{
    collections::BTreeMap,
    io::{Cursor, Read},
};

use laps_files::sha256_hex;
use serde::Deserialize;
use zip::ZipArchive;

use super::{Checkpoint, convert};

const CORPUS: &[u8] = include_bytes!("../../tests/checkpoints/corpus.zip");

/// Fewest cases, so that a corpus that lost some is noticed.
const MIN_CASES: usize = 200;

#[derive(Deserialize)]
struct Corpus {
    torch: String,
    cases: Vec<CorpusCase>,
}

#[derive(Deserialize)]
struct CorpusCase {
    name: String,
    #[serde(default)]
    tensors: BTreeMap<String, ExpectedTensor>,
    #[serde(default)]
    skipped: Vec<String>,
    #[serde(default)]
    outside: usize,
    /// Number of options.
    options: Option<usize>,
    /// Part of the error; none for a file that is read.
    refused: Option<String>,
}

#[derive(Deserialize, Debug, PartialEq)]
struct ExpectedTensor {
    dtype: String,
    shape: Vec<usize>,
    sha256: String,
}

/// The name that torch has for an element type.
fn torch_name(checkpoint: &Checkpoint, name: &str) -> String {
    match checkpoint.tensors[name].dtype.to_string().as_str() {
        "f64" => "float64".to_owned(),
        "f32" => "float32".to_owned(),
        "f16" => "float16".to_owned(),
        "bf16" => "bfloat16".to_owned(),
        short if short.starts_with('i') => short.replace('i', "int"),
        short if short.starts_with('u') => short.replace('u', "uint"),
        same => same.to_owned(),
    }
}

fn read_tensors(checkpoint: &Checkpoint) -> BTreeMap<String, ExpectedTensor> {
    let tensor = |name: &String| {
        let stored = &checkpoint.tensors[name];
        let sha256 = sha256_hex(&checkpoint.bytes(name, stored).unwrap());
        (name.clone(), ExpectedTensor { dtype: torch_name(checkpoint, name), shape: stored.shape.clone(), sha256 })
    };
    checkpoint.tensors.keys().map(tensor).collect()
}

/// The files of the corpus by name.
fn files() -> BTreeMap<String, Vec<u8>> {
    let mut archive = ZipArchive::new(Cursor::new(CORPUS)).unwrap();
    let count = archive.len();
    let file = |index| {
        let mut entry = archive.by_index(index).unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (entry.name().unwrap().into_owned(), bytes)
    };
    (0..count).map(file).collect()
}

#[test]
fn corpus_is_read_as_torch_reads_it() {
    let files = files();
    let corpus: Corpus = serde_json::from_slice(&files["expected.json"]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let [input, output] = ["in.pth", "out.safetensors"].map(|name| folder.path().join(name));
    let (mut tensors, mut refused, mut differences) = (0, 0, Vec::new());
    for case in &corpus.cases {
        fs_err::write(&input, &files[&case.name]).unwrap();
        let checkpoint = match (Checkpoint::open(&input), &case.refused) {
            (Ok(checkpoint), None) => checkpoint,
            (Err(error), Some(reason)) if error.to_string().contains(reason.as_str()) => {
                refused += 1;
                continue;
            }
            (result, expected) => {
                differences.push(format!("{}: expected {expected:?}, found {:?}", case.name, result.err()));
                continue;
            }
        };
        let found = read_tensors(&checkpoint);
        tensors += found.len();
        if found != case.tensors {
            differences.push(format!("{}: expected {:?}, found {found:?}", case.name, case.tensors));
        }
        let mut skipped: Vec<&str> = checkpoint.skipped.iter().map(|skipped| skipped.name.as_str()).collect();
        skipped.sort_unstable();
        if skipped != case.skipped || checkpoint.outside != case.outside {
            let (expected, outside) = ((&case.skipped, case.outside), checkpoint.outside);
            differences.push(format!("{}: expected skipped {expected:?}, found {:?}", case.name, (skipped, outside)));
        }
        let options = checkpoint.options().map(|options| options.iter().count());
        if options != case.options {
            differences.push(format!("{}: expected {:?} options, found {options:?}", case.name, case.options));
        }
        // safetensors has every type but complex128.
        let converted = convert(&input, &output, None).unwrap();
        let written = read_tensors(&Checkpoint::open(&output).unwrap());
        let expected: BTreeMap<_, _> = found.into_iter().filter(|(_, tensor)| tensor.dtype != "complex128").collect();
        if written != expected || converted.tensors != expected.len() {
            differences.push(format!("{}: converted to {written:?} of {expected:?}", case.name));
        }
    }
    println!(
        "{} checkpoints of torch {}: {tensors} tensors read, {refused} files refused, {} differences",
        corpus.cases.len(),
        corpus.torch,
        differences.len()
    );
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(corpus.cases.len() >= MIN_CASES, "{}", corpus.cases.len());
}

/// Legacy files with one to four altered bytes are read or refused. Archives have checksums, which find such bytes before
/// the reader sees them.
#[test]
fn altered_files_are_read_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("altered.pth");
    // A linear congruential generator with Knuth's constants.
    let mut state = 17_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let (mut read, mut refused) = (0, 0);
    for (_, bytes) in files().iter().filter(|(name, _)| name.ends_with("-legacy")) {
        for _ in 0..100 {
            let mut altered = bytes.clone();
            for _ in 0..=random(4) {
                let place = random(altered.len());
                altered[place] = random(256) as u8;
            }
            fs_err::write(&path, altered).unwrap();
            match Checkpoint::open(&path) {
                Ok(checkpoint) => {
                    read += 1;
                    for (name, stored) in &checkpoint.tensors {
                        let _ = checkpoint.bytes(name, stored);
                    }
                }
                Err(error) => {
                    refused += 1;
                    assert!(!error.to_string().is_empty());
                }
            }
        }
    }
    println!("{read} altered files read, {refused} refused");
    assert!(read > 100 && refused > 1000, "{read} read, {refused} refused");
}
