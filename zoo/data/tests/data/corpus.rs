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

/// Files that Pillow rejects and that are decoded. Where the data end, `image-webp` takes one zero byte more, and libwebp
/// fails. `image-webp` does not tell how far it has read, and without the last byte of the data a whole image can fail, too,
/// so these files are not identifiable.
const DECODED: [&str; 1] = ["lossy_alpha_overwritten99.webp"];

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
            (Ok(_), None) if DECODED.contains(&&**name) => {}
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

/// The warning of a file in `corpus/odd`.
fn damage(name: &str) -> Option<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/corpus/odd").join(name);
    decode(&fs::read(path).unwrap()).unwrap().damage
}

#[test]
fn truncated_files_have_a_warning() {
    let warnings = [
        "baseline_colour_cut60.jpg",
        "type3_depth8_cut50.png",
        "type3_depth8_interlaced_cut50.png",
        "broken_deflate50.png",
        "filter5.png",
        "without_iend.png",
        "idat_wrong_crc.png",
        "interlaced_cut70.gif",
        "rows_missing.gif",
        "bits8_cut60.bmp",
    ]
    .map(|name| format!("{name}: {}", damage(name).unwrap_or_default()));
    insta::assert_snapshot!(warnings.join("\n"), @r"
    baseline_colour_cut60.jpg: Premature end of JPEG file
    type3_depth8_cut50.png: the PNG data end after 5 of 37 rows
    type3_depth8_interlaced_cut50.png: the PNG data end after 26 of 71 rows
    broken_deflate50.png: the PNG data are corrupt after 36 of 37 rows
    filter5.png: the PNG data have an unknown filter after 20 of 37 rows
    without_iend.png: the PNG file ends without an IEND chunk
    idat_wrong_crc.png: a checksum of the PNG data is wrong
    interlaced_cut70.gif: the GIF data end after 595 of 1665 pixels of the first frame
    rows_missing.gif: the GIF data end after 900 of 1665 pixels of the first frame
    bits8_cut60.bmp: the BMP data end after 13 of 37 rows
    ");
    for name in ["type3_depth1_interlaced.png", "interlaced.gif", "bits16.bmp", "tail.webp", "tail.jpg"] {
        assert_eq!(damage(name), None, "{name}");
    }
}
