//! Generated image files of every format, mode and oddity, compared with Pillow 10.4 bit for bit.
//!
//! `corpus/make.py` draws and writes them. `corpus/odd` has the small set that belongs to the repository; `.ci/run pillow`
//! makes all of them.

use std::{collections::BTreeMap, fs, path::Path};

use laps_data::image::{ImageError, decode};
use laps_files::sha256_hex;
use serde_json::Value;

/// Files that Pillow reads and that are rejected, with the reason.
const REJECTED: [(&str, &str); 4] = [
    ("baseline_cut_at_data.jpg", "a JPEG file without image data"),
    ("progressive_cut_at_data.jpg", "a JPEG file without image data"),
    ("restart_cut_at_data.jpg", "a JPEG file without image data"),
    // Pillow takes two pixels of 4 bits for one of 8, and reads rows that overlap.
    ("grey4.bmp", "not decodable as BMP: a palette of greys with 4 bits per pixel"),
];

/// Compares every file of `folder` with `expected.json`; returns the number of files and of those that both reject.
fn compare(folder: &Path) -> (usize, usize) {
    let expected: BTreeMap<String, Value> =
        serde_json::from_slice(&fs::read(folder.join("expected.json")).unwrap()).unwrap();
    let (mut wrong, mut both_reject, mut blank) = (Vec::new(), 0, 0);
    for (name, expected) in &expected {
        let found = decode(&fs::read(folder.join(name)).unwrap());
        match (found, expected["sha256"].as_str()) {
            (Err(ImageError::Panic), _) => wrong.push(format!("{name}: the decoder panicked")),
            (Err(_), None) => both_reject += 1,
            // Pillow returns an image of one colour, in which it has decoded nothing.
            (Err(_), Some(_)) if expected["blank"] == true => blank += 1,
            (Err(error), Some(_)) => {
                if !REJECTED.contains(&(name, &error.to_string())) {
                    wrong.push(format!("{name}: {error}"));
                }
            }
            (Ok(_), None) => wrong.push(format!("{name}: decoded, but Pillow: {}", expected["refused"])),
            (Ok(found), Some(hash)) => {
                let size = Value::from(vec![found.image.width(), found.image.height()]);
                if size != expected["size"] {
                    wrong.push(format!("{name}: size {size}, expected {}", expected["size"]));
                } else if sha256_hex(found.image.pixels()) != hash {
                    wrong.push(format!("{name}: other pixels ({:?})", found.damage));
                }
            }
        }
    }
    println!("{} files: {both_reject} rejected as by Pillow, {blank} without a pixel rejected", expected.len());
    assert!(wrong.is_empty(), "{} files differ:\n{}", wrong.len(), wrong.join("\n"));
    (expected.len(), both_reject)
}

#[test]
fn generated_files_decode_as_in_pillow() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.runtime/pillow/corpus");
    if !folder.is_dir() {
        println!("skipped: there is no `{}`; `.ci/run pillow` makes it", folder.display());
        return;
    }
    let (files, rejected) = compare(&folder);
    assert!(files >= 1000 && rejected < files / 4, "{files} files, {rejected} rejected");
}

/// The odd files that belong to the repository: at least one of each kind that was decoded otherwise before.
#[test]
fn odd_files_decode_as_in_pillow() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/corpus/odd");
    let (files, rejected) = compare(&folder);
    assert!(files >= 100 && rejected < files / 4, "{files} files, {rejected} rejected");
}
