//! Peak memory for hostile files. The only test of its process, so that it measures its own memory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed assertion in a test may panic")]

#[path = "data/tar_header.rs"]
mod tar_header;

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use laps_data::sources::{ImageTransfer, Source, SourceKind, import};
use tar_header::tar_header;

/// Peak memory of this process in MiB.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? / 1024)
}

/// A tar file whose only member claims `size` bytes and has none; the file is sparse and as long as it claims.
fn tar_bomb(path: &Path, name: &str, kind: u8, size: u64) {
    std::fs::write(path, tar_header(name, kind, size)).unwrap();
    File::options().write(true).open(path).unwrap().set_len(512 + size + 1024).unwrap();
}

/// Files that claim 10^9 rows, pages of gigabytes, pages that unpack to more than they claim, millions of references to one
/// value, and members of gigabytes.
#[test]
fn hostile_files_are_refused_in_bounded_memory() {
    let Some(before) = peak() else { return println!("skipped: this system does not report the memory of a process") };
    let folder = tempfile::tempdir().unwrap();
    let hostile = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/sources/files/hostile");
    let mut files = Vec::new();
    for name in ["rows", "page", "gzip", "schema", "names", "captions", "values", "batch", "images"] {
        files.push((SourceKind::Parquet, hostile.join(format!("{name}.parquet"))));
    }
    for (name, member, kind, size) in [
        ("image.tar", "a.png", b'0', 6 << 30),
        ("text.tar", "a.txt", b'0', 6 << 30),
        ("name.tar", "././@LongLink", b'L', 6 << 30),
        ("header.tar", "pax", b'x', 6 << 30),
    ] {
        let path = folder.path().join(name);
        tar_bomb(&path, member, kind, size);
        files.push((SourceKind::Webdataset, path));
    }
    for (kind, path) in files {
        let source = Source::below(kind, &path, &[], None, None).unwrap();
        let error = import(&source, &folder.path().join("out"), ImageTransfer::Keep).unwrap_err();
        let added = peak().unwrap() - before;
        println!("{}: {added} MiB; {}", path.file_name().unwrap().display(), error.to_string().replace('\n', ";"));
        // The largest limit is that of an image, 256 MiB, of which nothing is reserved before it is read.
        assert!(added < 64, "{}: {added} MiB", path.display());
    }
}
