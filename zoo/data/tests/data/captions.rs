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
        split.images().iter().map(|image| (image.id.as_str(), image.name.as_str(), image.line.line)).collect();
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
        "`DIR/test_ids.txt` and `DIR/test_caps.txt` do not belong together\n  expected: as many ids as captions, or one id for five captions\n  \
         found: 6 ids and 2 captions"
    );
    write(folder.path(), "test_caps.txt", "");
    assert_eq!(message(&folder, "test"), "`DIR/test_caps.txt` is empty");
    write(folder.path(), "test_caps.txt", b"one\ntw\xff\n");
    assert_eq!(
        message(&folder, "test"),
        "`DIR/test_caps.txt` cannot be used\n  expected: text in UTF-8\n  found: other bytes in line 2"
    );
    write(folder.path(), "test_ids.txt", "\n\n");
    assert_eq!(message(&folder, "test"), "`DIR/test_ids.txt` is empty");
}

#[test]
fn unmapped_ids_and_unsafe_names_are_rejected() {
    let folder = folder();
    write(folder.path(), "id_mapping.json", r#"{"7": "a.png", "12": "b.png"}"#);
    assert_eq!(message(&folder, "test"), "image id `3` (line 5 of `DIR/test_ids.txt`) is not in `DIR/id_mapping.json`");
    for name in ["/etc/passwd", "../b.png", "a/../../b.png", "", "."] {
        write(folder.path(), "id_mapping.json", format!(r#"{{"3": "c.png", "7": "a.png", "12": "{name}"}}"#));
        assert_eq!(
            message(&folder, "test"),
            format!(
                "image id `12` is mapped to `{name}` (line 1 of `DIR/id_mapping.json`), not to a path inside the image \
                 folder"
            )
        );
    }
    write(folder.path(), "id_mapping.json", r#"{"3": 4}"#);
    let error = message(&folder, "test");
    assert!(error.starts_with("`DIR/id_mapping.json` cannot be used\n  expected: a JSON object from"), "{error}");
    fs::remove_file(folder.path().join("id_mapping.json")).unwrap();
    assert!(message(&folder, "test").contains("DIR/id_mapping.json"));
}

#[test]
fn byte_order_marks_and_line_ends_are_not_content() {
    let folder = folder();
    let plain = Split::open(folder.path(), "test").unwrap();
    for name in ["test_ids.txt", "test_caps.txt", "id_mapping.json"] {
        let text = fs::read_to_string(folder.path().join(name)).unwrap();
        let text = text.replace("\r\n", "\n").replace('\n', "\r");
        write(folder.path(), name, format!("\u{feff}{text}"));
        assert_eq!(Split::open(folder.path(), "test").unwrap(), plain, "{name}");
    }
    write(folder.path(), "test_ids.txt", b"\xff\xfe7\0\n\0");
    assert!(message(&folder, "test").ends_with("expected: text in UTF-8\n  found: text in UTF-16"));
}

#[test]
fn ids_are_numbers_with_or_without_leading_zeros() {
    let folder = folder();
    let plain = Split::open(folder.path(), "test").unwrap();
    write(folder.path(), "test_ids.txt", "0000000007\n7\n012\n12\n03\n07\n");
    assert_eq!(Split::open(folder.path(), "test").unwrap(), plain);
    write(folder.path(), "test_ids.txt", "7a\n7\n12\n12\n3\n7\n");
    assert_eq!(
        message(&folder, "test"),
        "image id `7a` (line 1 of `DIR/test_ids.txt`) is not in `DIR/id_mapping.json`"
    );
}

#[test]
fn one_id_stands_for_five_captions() {
    let folder = folder();
    write(folder.path(), "test_ids.txt", "12\n7\n");
    write(folder.path(), "test_caps.txt", (0..10).map(|number| format!("a {number}\n")).collect::<String>());
    let split = Split::open(folder.path(), "test").unwrap();
    assert_eq!(split.image_of(), [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]);
    assert_eq!(
        split.images().iter().map(|image| (&*image.id, image.line.line)).collect::<Vec<_>>(),
        [("12", 1), ("7", 2)]
    );
    write(folder.path(), "test_caps.txt", "a\n".repeat(8));
    assert!(message(&folder, "test").contains("or one id for five captions\n  found: 2 ids and 8 captions"));
}

#[cfg(unix)]
#[test]
fn mapping_that_is_a_fifo_is_not_waited_for() {
    let folder = folder();
    fs::remove_file(folder.path().join("id_mapping.json")).unwrap();
    let mkfifo = std::process::Command::new("mkfifo").arg(folder.path().join("id_mapping.json")).status();
    assert!(mkfifo.unwrap().success());
    assert_eq!(message(&folder, "test"), "cannot read `DIR/id_mapping.json`: it is a FIFO, not a regular file");
}

#[test]
fn all_ids_that_cannot_be_used_are_listed() {
    let folder = folder();
    write(folder.path(), "id_mapping.json", "{\n\"3\": \"../c.png\", \"12\": \"b.png\"}");
    assert_eq!(
        message(&folder, "test"),
        "4 image ids cannot be used\n  image id `7` (line 1 of `DIR/test_ids.txt`) is not in `DIR/id_mapping.json`\n  \
         image id `7` (line 2 of `DIR/test_ids.txt`) is not in `DIR/id_mapping.json`\n  \
         image id `3` is mapped to `../c.png` (line 2 of `DIR/id_mapping.json`), not to a path inside the image \
         folder\n  image id `7` (line 6 of `DIR/test_ids.txt`) is not in `DIR/id_mapping.json`"
    );
}

/// Python's `json` reads any surrogate, and its `open` takes U+DC80 to U+DCFF for bytes.
#[cfg(unix)]
#[test]
fn lone_surrogates_of_the_mapping_are_bytes_of_file_names() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

    let folder = folder();
    let mapping = r#"{"3": "caf\udce9\udcbf.png", "7": "\ud83d\ude00.png", "12": "b.png", "\ud800": "\ud800.png", "99": "\udfff"}"#;
    write(folder.path(), "id_mapping.json", mapping);
    let split = Split::open(folder.path(), "test").unwrap();
    let files = split.image_files(Path::new(""));
    let expected: [&[u8]; 3] = ["\u{1f600}.png".as_bytes(), b"b.png", b"caf\xe9\xbf.png"];
    assert_eq!(files.iter().map(|file| file.path.as_os_str()).collect::<Vec<_>>(), expected.map(OsStr::from_bytes));
    assert_eq!(split.images()[2].name, r"caf\xe9\xbf.png");
    for name in [r"\ud800", r"\udc7f", r"\udd00", r"\udcaf/../../x", r"\udc00"] {
        write(folder.path(), "id_mapping.json", format!(r#"{{"3": "{name}", "7": "a", "12": "b"}}"#));
        let error = message(&folder, "test");
        assert!(error.ends_with("not to a path inside the image folder"), "{name}: {error}");
    }
}

/// One name is four letters after a backslash, the other one byte.
#[cfg(unix)]
#[test]
fn names_with_a_backslash_and_names_of_bytes_have_distinct_texts() {
    let folder = folder();
    write(folder.path(), "id_mapping.json", r#"{"3": "\\xff.png", "7": "\udcff.png", "12": "Bücher/b.png"}"#);
    let split = Split::open(folder.path(), "test").unwrap();
    let names: Vec<&str> = split.images().iter().map(|image| image.name.as_str()).collect();
    assert_eq!(names, [r"\xff.png", "Bücher/b.png", r"\\xff.png"]);
    for (name, file) in names.into_iter().zip(split.image_files(Path::new(""))) {
        assert_eq!(laps_files::text_to_path(name), file.path);
    }
}

#[test]
fn every_unusable_caption_is_reported_with_file_and_line() {
    let folder = folder();
    write(folder.path(), "test_caps.txt", "a\nb\n \nc\n\u{200b}\na a a a\n");
    write(folder.path(), "vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n");
    let tokenizer = laps_data::Tokenizer::open(&folder.path().join("vocab.txt")).unwrap();
    let split = Split::open(folder.path(), "test").unwrap();
    let message = |split: &Split| {
        let error = split.tokenize(&tokenizer, 5).unwrap_err();
        assert!(error.hint().unwrap().starts_with("shorten or remove captions"));
        error.to_string().replace(&folder.path().display().to_string(), "DIR")
    };
    let [empty, long] = ["empty", "too long: 6 tokens, where 5 are allowed"];
    assert_eq!(
        message(&split),
        format!(
            "3 of 6 captions cannot be used\n  caption in line 3 of `DIR/test_caps.txt`: {empty}\n  \
             caption in line 5 of `DIR/test_caps.txt`: {empty}\n  caption in line 6 of `DIR/test_caps.txt`: {long}"
        )
    );
    // Captions of images that are left out do not shift the lines of the others.
    assert_eq!(
        message(&split.clone().limit(NonZeroUsize::new(1).unwrap())),
        format!("1 of 3 captions cannot be used\n  caption in line 6 of `DIR/test_caps.txt`: {long}")
    );
    // Without a vocabulary, only captions without text are known to be unusable.
    let error = split.check_captions().unwrap_err().to_string();
    assert!(error.starts_with("1 of 6 captions cannot be used\n  caption in line 3 of"), "{error}");
}
