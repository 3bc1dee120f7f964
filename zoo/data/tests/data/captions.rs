//! Reading splits: real ones, and every error.

use std::{fs, num::NonZeroUsize, path::Path};

use laps_data::Split;
use tempfile::TempDir;

use crate::real;

/// A folder with a split `test` of three images, the second of which is named again at the end.
pub(crate) fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "test_ids.txt", "7\n7\n12\n12\n3\n7\n");
    write(folder.path(), "test_caps.txt", "  a red square \na square\n\na circle\r\na star\nagain red\n");
    write(folder.path(), "id_mapping.json", r#"{"3": "sub/c.png", "7": "a.png", "12": "b.png", "99": "unused.png"}"#);
    folder
}

fn write(folder: &Path, name: &str, text: impl AsRef<[u8]>) {
    fs::write(folder.join(name), text).unwrap();
}

fn message(folder: &TempDir, name: &str) -> String {
    let error = Split::open(folder.path(), name).unwrap_err();
    error.to_string().replace(&format!("{}", folder.path().display()), "DIR")
}

#[test]
fn images_are_distinct_and_in_order() {
    let folder = folder();
    let split = Split::open(folder.path(), "test").unwrap();
    let images: Vec<_> =
        split.images().iter().map(|image| (image.id.as_str(), image.name.as_str(), image.row)).collect();
    assert_eq!(images, [("7", "a.png", 1), ("12", "b.png", 3), ("3", "sub/c.png", 5)]);
    assert_eq!(split.captions(), ["a red square", "a square", "", "a circle", "a star", "again red"]);
    assert_eq!(split.image_of(), [0, 0, 1, 1, 2, 0]);
    assert_eq!(split.image_files(Path::new("root"))[2].path, Path::new("root/sub/c.png"));
}

#[test]
fn limit_keeps_the_captions_of_the_kept_images() {
    let folder = folder();
    let split = Split::open(folder.path(), "test").unwrap();
    let two = split.clone().limit(NonZeroUsize::new(2).unwrap());
    assert_eq!(two.images(), &split.images()[..2]);
    assert_eq!(two.captions(), ["a red square", "a square", "", "a circle", "again red"]);
    assert_eq!(two.image_of(), [0, 0, 1, 1, 0]);
    assert_eq!(split.clone().limit(NonZeroUsize::new(9).unwrap()), split);
}

#[test]
fn real_splits_have_five_captions_per_image() {
    let Some(real) = real() else { return };
    for (name, images) in [("test", 243), ("dev", 242), ("train", 1000)] {
        let split = Split::open(&real.join("f30k_mini/captions"), name).unwrap();
        assert_eq!((split.images().len(), split.captions().len()), (images, 5 * images));
        assert!(split.image_of().iter().enumerate().all(|(caption, &image)| image == caption / 5));
    }
}

#[test]
fn missing_split_lists_the_available_ones() {
    let folder = folder();
    write(folder.path(), "dev_ids.txt", "7\n");
    write(folder.path(), "dev_caps.txt", "a\n");
    write(folder.path(), "half_ids.txt", "7\n");
    assert_eq!(
        message(&folder, "tset"),
        "split `tset` is not in `DIR`\n  expected: `tset_ids.txt`\n  found: the splits `dev`, `test`"
    );
    assert_eq!(
        message(&folder, "half"),
        "split `half` is not in `DIR`\n  expected: `half_caps.txt`\n  found: the splits `dev`, `test`"
    );
    let nowhere = Split::open(&folder.path().join("none"), "test").unwrap_err();
    assert!(nowhere.to_string().ends_with("found: no split"), "{nowhere}");
    assert!(nowhere.hint().unwrap().contains("`NAME_ids.txt`"));
}

#[test]
fn inconsistent_files_are_rejected() {
    let folder = folder();
    write(folder.path(), "test_caps.txt", "one\ntwo\n");
    assert_eq!(
        message(&folder, "test"),
        "`DIR/test_ids.txt` and `DIR/test_caps.txt` do not belong together\n  expected: as many ids as captions\n  \
         found: 6 ids and 2 captions"
    );
    write(folder.path(), "test_caps.txt", "");
    assert_eq!(message(&folder, "test"), "`DIR/test_caps.txt` is empty");
    write(folder.path(), "test_caps.txt", b"one\ntw\xff\n");
    assert_eq!(
        message(&folder, "test"),
        "`DIR/test_caps.txt` cannot be used\n  expected: text in UTF-8\n  found: other bytes in row 2"
    );
    write(folder.path(), "test_ids.txt", "\n\n");
    assert_eq!(message(&folder, "test"), "`DIR/test_ids.txt` is empty");
}

#[test]
fn unmapped_ids_and_unsafe_names_are_rejected() {
    let folder = folder();
    write(folder.path(), "id_mapping.json", r#"{"3": "c.png", "7": "a.png"}"#);
    assert_eq!(message(&folder, "test"), "image id `12` (row 3 of `DIR/test_ids.txt`) is not in `DIR/id_mapping.json`");
    for name in ["/etc/passwd", "../b.png", "a/../../b.png", "", "."] {
        write(folder.path(), "id_mapping.json", format!(r#"{{"3": "c.png", "7": "a.png", "12": "{name}"}}"#));
        assert_eq!(
            message(&folder, "test"),
            format!(
                "`DIR/id_mapping.json` maps image id `12` to a file that cannot be used\n  \
                 expected: a path inside the image folder\n  found: `{name}`"
            )
        );
    }
    write(folder.path(), "id_mapping.json", r#"{"3": 4}"#);
    let error = message(&folder, "test");
    assert!(error.starts_with("`DIR/id_mapping.json` cannot be used\n  expected: a JSON object from"), "{error}");
    fs::remove_file(folder.path().join("id_mapping.json")).unwrap();
    assert!(message(&folder, "test").contains("DIR/id_mapping.json"));
}
