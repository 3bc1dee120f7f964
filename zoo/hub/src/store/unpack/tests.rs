//! Tests of [`unpack`].

#[path = "../../../tests/fetch/contents.rs"]
mod contents;

use std::{io::Cursor, path::Path};

use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use self::contents::{archive, random_bytes};
use super::unpack;
use crate::store::FileStoreError;

/// Unpacks into a nested folder, and asserts that nothing was written elsewhere.
fn unpacked(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, FileStoreError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.zip");
    fs_err::write(&path, bytes).unwrap();
    let target = folder.path().join("deep/target");
    fs_err::create_dir_all(&target).unwrap();
    let outcome = unpack(&path, &target, |_| {});
    let mut names: Vec<_> = fs_err::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["a.zip", "deep"], "written outside of the folder");
    outcome?;
    let mut files = Vec::new();
    collect(&target, Path::new(""), &mut files);
    Ok(files)
}

fn collect(root: &Path, below: &Path, files: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs_err::read_dir(root.join(below)).unwrap() {
        let path = below.join(entry.unwrap().file_name());
        if root.join(&path).is_dir() {
            collect(root, &path, files);
        } else {
            files.push((path.display().to_string(), fs_err::read(root.join(&path)).unwrap()));
        }
    }
    files.sort();
}

#[test]
fn stored_and_deflated_files_are_unpacked() {
    let bytes = random_bytes(60, 100_000);
    for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
        let files = unpacked(&archive(&[("train/b.jpg", &bytes), ("train/a.jpg", b"x")], method)).unwrap();
        assert_eq!(files, [("train/a.jpg".to_owned(), b"x".to_vec()), ("train/b.jpg".to_owned(), bytes.clone())]);
    }
}

#[test]
fn unsafe_names_links_and_duplicates_are_rejected() {
    for name in ["../x", "/x", "a/../../x", "a\\x", "C:\\x", "C:x", "a/NUL", "con.jpg", "a/./b", "a//b", "x\n", "a. "] {
        let error = unpacked(&archive(&[("good", b"1"), (name, b"2")], CompressionMethod::Stored)).unwrap_err();
        assert!(error.to_string().contains("expected: names that stay inside the folder"), "{name}: {error}");
    }
    let error = unpacked(&archive(&[("a", b"1"), ("A", b"2")], CompressionMethod::Stored)).unwrap_err();
    assert!(error.to_string().contains("a duplicate name"), "{error}");
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    writer.add_symlink("link", "/etc", SimpleFileOptions::default()).unwrap();
    let error = unpacked(&writer.finish().unwrap().into_inner()).unwrap_err();
    assert!(error.to_string().contains("expected: regular files"), "{error}");
}

#[test]
fn bombs_and_damaged_archives_are_rejected() {
    // 100 MB of zeros in 100 kB.
    let zeros = vec![0; 100_000_000];
    let error = unpacked(&archive(&[("zeros", &zeros)], CompressionMethod::Deflated)).unwrap_err();
    assert!(error.to_string().contains("expected: contents of at most 4 times"), "{error}");
    // A file that is larger than its stated size.
    let mut small = archive(&[("zeros", &zeros[..1 << 20])], CompressionMethod::Deflated);
    let size = (1_u32 << 20).to_le_bytes();
    let places: Vec<_> = small.windows(4).enumerate().filter(|(_, window)| *window == size).map(|(at, _)| at).collect();
    for place in places {
        small[place..place + 4].copy_from_slice(&100_u32.to_le_bytes());
    }
    assert!(unpacked(&small).is_err());
    let whole = archive(&[("a", b"some bytes"), ("b", b"others")], CompressionMethod::Stored);
    for length in [0, 10, whole.len() / 2, whole.len() - 1] {
        assert!(unpacked(&whole[..length]).is_err(), "{length}");
    }
    let mut damaged = whole.clone();
    let place = damaged.windows(10).position(|window| window == b"some bytes").unwrap();
    damaged[place] ^= 1;
    assert!(unpacked(&damaged).is_err());
}

#[test]
fn interrupted_unpacking_is_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.zip");
    let files: Vec<(String, Vec<u8>)> =
        (0..20).map(|index| (format!("t/{index}.jpg"), random_bytes(index, 1000))).collect();
    let list: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    fs_err::write(&path, archive(&list, CompressionMethod::Stored)).unwrap();
    assert_eq!(unpack(&path, folder.path(), |_| {}).unwrap().existing, 0);
    // What a killed process leaves: complete files, and one under its temporary name.
    for index in 7..20 {
        fs_err::remove_file(folder.path().join(format!("t/{index}.jpg"))).unwrap();
    }
    fs_err::write(folder.path().join("t/.7.jpg.4711-0.part"), b"half").unwrap();
    let done = unpack(&path, folder.path(), |_| {}).unwrap();
    assert_eq!((done.files, done.existing, done.bytes), (20, 7, 20_000));
    for (name, bytes) in &files {
        assert!(fs_err::read(folder.path().join(name)).unwrap() == *bytes);
    }
}
