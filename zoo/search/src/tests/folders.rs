//! Folders with odd files: what is skipped, what is named, and what is indexed again.

use std::{
    ffi::OsStr,
    os::unix::{ffi::OsStrExt, fs::symlink, net::UnixListener},
    path::Path,
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use laps_data::image::{RgbImage, jpeg};

use super::{
    SIZES,
    building::{Fixture, lines, names, write_image},
    description, engine,
};
use crate::{
    Error, Exclusions, ImageFolder, Index, IndexKind, IndexPrecision, IndexSummary, Result, SearchError, Searcher,
    SkippedItem, index_captions, index_images,
};

fn list(folder: &Path, globs: &[&str]) -> ImageFolder {
    let globs: Vec<String> = globs.iter().map(|&glob| glob.to_owned()).collect();
    ImageFolder::list(folder, &Exclusions::new(&globs).unwrap()).unwrap()
}

fn listed(folder: &Path, globs: &[&str]) -> Vec<String> {
    list(folder, globs).images.into_iter().map(|(item, _)| item.name).collect()
}

fn skipped(items: &[SkippedItem]) -> Vec<(&str, &str)> {
    items.iter().map(|item| (item.name.as_str(), item.reason.as_str())).collect()
}

fn tiny_jpeg() -> Vec<u8> {
    jpeg(&RgbImage::new(2, 2, vec![128; 12]).unwrap(), 90).unwrap()
}

#[test]
fn files_that_cannot_be_read_are_skipped_and_named() {
    let root = tempfile::tempdir().unwrap();
    let [folder, path] = ["photos", "photos.index"].map(|name| root.path().join(name));
    write_image(&folder.join("a.bmp"), 10);
    write_image(&folder.join("sub/b.bmp"), 20);
    assert!(Command::new("mkfifo").arg(folder.join("fifo.jpg")).status().unwrap().success());
    let _listener = UnixListener::bind(folder.join("socket.png")).unwrap();
    symlink("/dev/zero", folder.join("device.gif")).unwrap();
    symlink("sub", folder.join("other")).unwrap();
    symlink("absent", folder.join("dangling.jpg")).unwrap();
    symlink("a.bmp", folder.join("link.bmp")).unwrap();
    // Content decides the format: JPEG under its rarer extensions is read, and HEIC is not.
    for name in ["c.jfif", "d.jpe", "e.tif"] {
        fs_err::write(folder.join(name), tiny_jpeg()).unwrap();
    }
    fs_err::write(folder.join("f.HEIC"), b"\0\0\0\x18ftypheic\0\0\0\0mif1heic").unwrap();
    fs_err::write(folder.join("notes.md"), "").unwrap();
    let fixture = Fixture::new();
    let first = fixture.index(&folder, &path).unwrap();
    assert_eq!(names(&path), ["a.bmp", "c.jfif", "d.jpe", "e.tif", "link.bmp", "sub/b.bmp"]);
    let expected = [
        ("dangling.jpg", "cannot be read: No such file or directory (os error 2)"),
        ("device.gif", "it is a device, not a regular file"),
        ("f.HEIC", "not a JPEG, PNG, GIF, BMP or WebP file"),
        ("fifo.jpg", "it is a FIFO, not a regular file"),
        ("other", "links to folders are not followed"),
        ("socket.png", "it is a socket, not a regular file"),
    ];
    assert_eq!(skipped(&first.skipped), expected);
    // An update without new images names them too.
    let second = fixture.index(&folder, &path).unwrap();
    assert_eq!(second, IndexSummary { items: 6, kept: 6, skipped: first.skipped, ..IndexSummary::default() });
}

#[test]
fn folder_that_cannot_be_read_is_skipped_and_named() {
    use std::os::unix::fs::PermissionsExt;
    let root = tempfile::tempdir().unwrap();
    let closed = root.path().join("closed");
    write_image(&root.path().join("a.bmp"), 10);
    write_image(&closed.join("b.bmp"), 20);
    fs_err::set_permissions(&closed, std::fs::Permissions::from_mode(0o000)).unwrap();
    if fs_err::read_dir(&closed).is_ok() {
        return println!("skipped: this user can read every folder; the tests of the command use another user");
    }
    let folder = list(root.path(), &[]);
    fs_err::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(folder.images.len(), 1);
    let reason = "the folder cannot be read: Permission denied (os error 13)";
    assert_eq!(skipped(&folder.skipped), [("closed", reason)]);
}

#[test]
fn folder_without_images_says_what_was_skipped() {
    let root = tempfile::tempdir().unwrap();
    fs_err::write(root.path().join("notes.md"), "").unwrap();
    symlink("/dev/null", root.path().join("a.png")).unwrap();
    let error = ImageFolder::list(root.path(), &Exclusions::default()).unwrap_err();
    let Error::Search(SearchError::Empty { found, .. }) = &error else { panic!("{error:?}") };
    assert_eq!(found, "1 other files\n  skipped: `a.png`: it is a device, not a regular file");
}

#[test]
fn names_of_any_bytes_are_distinct_and_lead_back_to_the_file() {
    let root = tempfile::tempdir().unwrap();
    let [folder, path] = ["photos", "photos.index"].map(|name| root.path().join(name));
    let files = [&b"\xfeone.bmp"[..], b"\xffone.bmp", b"back\\slash.bmp", "grün.bmp".as_bytes()];
    for (number, name) in (0..).zip(files) {
        write_image(&folder.join(OsStr::from_bytes(name)), 10 * number);
    }
    let fixture = Fixture::new();
    fixture.index(&folder, &path).unwrap();
    assert_eq!(names(&path), [r"\xfeone.bmp", r"\xffone.bmp", r"back\\slash.bmp", "grün.bmp"]);
    for name in names(&path) {
        assert!(folder.join(laps_files::text_to_path(&name)).is_file(), "{name}");
    }
    let again = fixture.index(&folder, &path).unwrap();
    assert_eq!((again.encoded, again.kept), (0, 4));
}

#[test]
fn excluded_files_and_folders_are_left_out() {
    let root = tempfile::tempdir().unwrap();
    for name in ["a.bmp", "b.gif", "thumbs/a.bmp", "2019/raw/c.bmp", "2019/d.bmp", "2020/raw/e.bmp"] {
        write_image(&root.path().join(name), 1);
    }
    let all = ["2019/d.bmp", "2019/raw/c.bmp", "2020/raw/e.bmp", "a.bmp", "b.gif", "thumbs/a.bmp"];
    assert_eq!(listed(root.path(), &[]), all);
    assert_eq!(listed(root.path(), &["*.gif", "thumbs/"]), &all[..4]);
    assert_eq!(listed(root.path(), &["raw", "a.bmp"]), ["2019/d.bmp", "b.gif"]);
    assert_eq!(listed(root.path(), &["./raw/", "./a.bmp"]), listed(root.path(), &["raw", "a.bmp"]));
    assert_eq!(listed(root.path(), &["2019/**/*.bmp", "/a.bmp"]), ["2020/raw/e.bmp", "b.gif", "thumbs/a.bmp"]);
    let error = Exclusions::new(&["a[".to_owned()]).unwrap_err();
    assert!(matches!(&error, SearchError::Option { option: "exclude", .. }), "{error:?}");
}

#[test]
fn sidecar_files_without_a_usable_caption_are_skipped_and_named() {
    let root = tempfile::tempdir().unwrap();
    for (name, captions) in [("a", &b"one\n\n two \n"[..]), ("b", b" \n"), ("c", b""), ("d", b"\xff\xfe"), ("e", b"3")]
    {
        write_image(&root.path().join(format!("{name}.bmp")), 1);
        fs_err::write(root.path().join(format!("{name}.txt")), captions).unwrap();
    }
    for name in ["f", "g", "h", "i"] {
        write_image(&root.path().join(format!("{name}.bmp")), 1);
    }
    assert!(Command::new("mkfifo").arg(root.path().join("g.txt")).status().unwrap().success());
    let _listener = UnixListener::bind(root.path().join("h.txt")).unwrap();
    fs_err::create_dir(root.path().join("i.txt")).unwrap();
    let (captions, items) = list(root.path(), &[]).sidecar_captions();
    let found: Vec<_> = captions.iter().map(|line| (line.file.as_str(), line.line, line.text.as_str())).collect();
    assert_eq!(found, [("a.txt", 1, "one"), ("a.txt", 3, "two"), ("e.txt", 1, "3")]);
    let names: Vec<_> = items.iter().map(|item| item.name.as_str()).collect();
    assert_eq!(names, ["b.txt", "c.txt", "d.txt", "g.txt", "h.txt"]);
    assert_eq!(items[0].reason, "it has no caption");
    assert!(items[2].reason.contains("UTF-8"), "{}", items[2].reason);
    assert_eq!(items[3].reason, "it is a FIFO, not a regular file");
    assert_eq!(items[4].reason, "it is a socket, not a regular file");
}

#[test]
fn images_of_any_date_are_unchanged_until_they_change() {
    let root = tempfile::tempdir().unwrap();
    let [folder, path] = ["photos", "photos.index"].map(|name| root.path().join(name));
    let dates = [
        UNIX_EPOCH - Duration::from_secs(30 * 365 * 86400),
        UNIX_EPOCH - Duration::from_millis(1500),
        // A date in 2604; a file system without it stores the latest that it has.
        UNIX_EPOCH + Duration::from_secs(20_000_000_000),
    ];
    let set = |image: &Path, date: SystemTime| {
        fs_err::File::options().write(true).open(image).unwrap().file().set_modified(date).unwrap();
    };
    for (number, &date) in dates.iter().enumerate() {
        let image = folder.join(format!("{number}.bmp"));
        write_image(&image, 7);
        set(&image, date);
    }
    let fixture = Fixture::new();
    fixture.index(&folder, &path).unwrap();
    let again = fixture.index(&folder, &path).unwrap();
    assert_eq!((again.encoded, again.kept), (0, 3));
    set(&folder.join("1.bmp"), UNIX_EPOCH - Duration::from_millis(1499));
    let changed = fixture.index(&folder, &path).unwrap();
    assert_eq!((changed.encoded, changed.kept), (1, 2));
}

#[test]
fn index_keeps_its_choice_of_orientation() {
    let root = tempfile::tempdir().unwrap();
    let [folder, path] = ["photos", "photos.index"].map(|name| root.path().join(name));
    write_image(&folder.join("a.bmp"), 10);
    let fixture = Fixture::new();
    let index = |exif_orientation: bool| -> Result<IndexSummary> {
        let mut wanted = description(IndexKind::Images, IndexPrecision::Half);
        wanted.exif_orientation = exif_orientation;
        index_images(&list(&folder, &[]), &path, wanted, &fixture.pipeline(&|_| ()), &|_| ())
    };
    index(false).unwrap();
    // The setting changes embeddings, so turning it on encodes all images again.
    assert_eq!(index(true).unwrap().encoded, 1);
    assert!(Index::open(&path).unwrap().description().exif_orientation);
    write_image(&folder.join("b.bmp"), 20);
    assert_eq!((index(false).unwrap().encoded, index(false).unwrap().kept), (1, 2));
    assert!(Index::open(&path).unwrap().description().exif_orientation);
}

#[test]
fn too_long_captions_are_skipped_and_named() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("captions.index");
    let long = "circle ".repeat(600);
    let captions = lines(&["a red square".to_owned(), long.clone(), "a circle".to_owned()]);
    let fixture = Fixture::new();
    let index = |captions: &[_]| {
        let wanted = description(IndexKind::Captions, IndexPrecision::Half);
        index_captions(captions, &path, &path, wanted, &fixture.pipeline(&|_| ()), &|_| ())
    };
    let summary = index(&captions).unwrap();
    assert_eq!((summary.items, names(&path)), (2, vec!["a red square".to_owned(), "a circle".to_owned()]));
    let reason = "too long: 602 tokens, where 64 are allowed".to_owned();
    assert_eq!(summary.skipped, [SkippedItem { name: "captions.txt".to_owned(), line: Some(2), reason }]);
    let error = index(&lines(&[long])).unwrap_err();
    let expected = "can be used\n  first: line 1: too long: 602 tokens, where 64 are allowed";
    assert!(error.to_string().ends_with(expected), "{error}");
}

#[test]
fn neighbors_are_sorted_by_the_cosine_of_pooled_vectors() {
    let root = tempfile::tempdir().unwrap();
    let [folder, path] = ["photos", "photos.index"].map(|name| root.path().join(name));
    for number in 0..5 {
        write_image(&folder.join(format!("{number}.bmp")), 50 * number);
    }
    let fixture = Fixture::new();
    fixture.index(&folder, &path).unwrap();
    let index = Index::open(&path).unwrap();
    let (engine, stop) = (engine(), std::sync::atomic::AtomicBool::new(false));
    let searcher = Searcher { filter: None, index: &index, engine: &engine, stop: &stop };
    let pipeline = fixture.pipeline(&|_| ());
    let query = pipeline.encode_images(&[folder.join("3.bmp")], index.description().orientation()).unwrap();
    let neighbors = searcher.neighbors(&query[0], 3).unwrap();
    assert_eq!((neighbors.len(), neighbors[0].item), (3, 3));
    // The image itself: fp16 has 11 bits, and the vectors have a norm of 1.
    assert!((neighbors[0].pooled - 1.0).abs() < 2e-3, "{neighbors:?}");
    assert!(neighbors.windows(2).all(|pair| pair[0].pooled >= pair[1].pooled));
    assert_eq!(query[0].dims(), [SIZES.tokens(), SIZES.width]);
}

/// The header states the version as one digit, so a file of version 1 is made by replacing it.
#[test]
fn index_of_format_version_1_is_read_and_updated() {
    let root = tempfile::tempdir().unwrap();
    let [folder, path] = ["photos", "photos.index"].map(|name| root.path().join(name));
    write_image(&folder.join("a.bmp"), 10);
    let fixture = Fixture::new();
    fixture.index(&folder, &path).unwrap();
    let mut bytes = fs_err::read(&path).unwrap();
    let key = br#"\"schema\":2"#;
    let position = bytes.windows(key.len()).position(|window| window == key).unwrap();
    bytes[position + key.len() - 1] = b'1';
    fs_err::write(&path, bytes).unwrap();
    assert_eq!(Index::open(&path).unwrap().description().schema, 1);
    write_image(&folder.join("b.bmp"), 20);
    let summary = fixture.index(&folder, &path).unwrap();
    assert_eq!((summary.encoded, summary.kept), (1, 1));
    assert_eq!(Index::open(&path).unwrap().description().schema, 2);
}
