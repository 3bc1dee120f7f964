//! Archives of images, and the look at a whole data set.

use std::{
    collections::BTreeMap,
    io::{Cursor, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use insta::assert_snapshot;
use laps_data::{SplitSize, scenes, survey};
use laps_files::Expected;
use laps_hub::{
    fetch::{Fetcher, missing_images},
    registry,
    store::{Source, Store, StoreError, unpack},
};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use crate::{
    server::{End, Reply, Server},
    support::{One, random_bytes},
};

fn archive(files: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(method);
    for (name, bytes) in files {
        writer.start_file(*name, options).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// Unpacks into a folder inside another one, and sees that nothing was written elsewhere.
fn unpacked(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.zip");
    fs_err::write(&path, bytes).unwrap();
    let target = folder.path().join("deep/target");
    fs_err::create_dir_all(&target).unwrap();
    let outcome = unpack(&path, &target, |_| {});
    let mut names: Vec<_> = fs_err::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["a.zip", "deep"], "written outside");
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
fn files_are_unpacked_stored_or_deflated() {
    let bytes = random_bytes(60, 100_000);
    for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
        let files = unpacked(&archive(&[("train/b.jpg", &bytes), ("train/a.jpg", b"x")], method)).unwrap();
        assert_eq!(files, [("train/a.jpg".to_owned(), b"x".to_vec()), ("train/b.jpg".to_owned(), bytes.to_vec())]);
    }
}

#[test]
fn names_that_lead_out_are_refused_before_anything_is_written() {
    for name in ["../x", "/x", "a/../../x", "a\\x", "C:\\x", "C:x", "a/NUL", "con.jpg", "a/./b", "a//b", "x\n", "a. "] {
        let error = unpacked(&archive(&[("good", b"1"), (name, b"2")], CompressionMethod::Stored)).unwrap_err();
        assert!(error.to_string().contains("expected: names that stay inside the folder"), "{name}: {error}");
    }
    let error = unpacked(&archive(&[("a", b"1"), ("A", b"2")], CompressionMethod::Stored)).unwrap_err();
    assert!(error.to_string().contains("a name twice"), "{error}");
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    writer.add_symlink("link", "/etc", SimpleFileOptions::default()).unwrap();
    let error = unpacked(&writer.finish().unwrap().into_inner()).unwrap_err();
    assert!(error.to_string().contains("expected: regular files"), "{error}");
}

#[test]
fn bombs_and_damaged_archives_are_refused() {
    // 100 MB of zeros in 100 kB.
    let zeros = vec![0; 100_000_000];
    let error = unpacked(&archive(&[("zeros", &zeros)], CompressionMethod::Deflated)).unwrap_err();
    assert!(error.to_string().contains("expected: contents of at most 4 times"), "{error}");
    // A size that lies: the file holds more than it says.
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
fn unpacking_goes_on_where_it_was_broken_off() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.zip");
    let files: Vec<(String, Arc<Vec<u8>>)> =
        (0..20).map(|index| (format!("t/{index}.jpg"), random_bytes(index, 1000))).collect();
    let list: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    fs_err::write(&path, archive(&list, CompressionMethod::Stored)).unwrap();
    assert_eq!(unpack(&path, folder.path(), |_| {}).unwrap().kept, 0);
    // What a process leaves that is killed: some files whole, one under another name.
    for index in 7..20 {
        fs_err::remove_file(folder.path().join(format!("t/{index}.jpg"))).unwrap();
    }
    fs_err::write(folder.path().join("t/7.jpg.part"), b"half").unwrap();
    let done = unpack(&path, folder.path(), |_| {}).unwrap();
    assert_eq!((done.files, done.kept, done.bytes), (20, 7, 20_000));
    for (name, bytes) in &files {
        assert!(fs_err::read(folder.path().join(name)).unwrap() == **bytes);
    }
}

#[test]
fn an_archive_is_fetched_unpacked_and_removed() {
    let bytes = Arc::new(archive(&[("val/1.jpg", &random_bytes(61, 300_000))], CompressionMethod::Stored));
    let (served, count) = (Arc::clone(&bytes), AtomicUsize::new(0));
    let server = Server::start(move |request| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::file(request, &served, "\"x\"").ending(End::Cut(200_000)),
        _ => Reply::file(request, &served, "\"x\""),
    });
    let mut one = One::new(server, Expected::default());
    one.item.source = Source::Coco("zips/val.zip".to_owned());
    let fetcher = Fetcher::new(one.settings.clone());
    assert_eq!(fetcher.images(&one.item, &()).unwrap().files, 1);
    assert!(!one.is_here());
    assert_eq!(fs_err::read(one.folder.path().join("val/1.jpg")).unwrap().len(), 300_000);
    let again = fetcher.images(&one.item, &()).unwrap();
    assert_eq!((again.files, again.kept), (1, 1));
    assert_eq!(one.server.log().len(), 2);
    assert_eq!(one.server.log()[0].path, "/zips/val.zip");
}

#[test]
fn a_data_set_is_looked_at_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let config = scenes::DrawnConfig { seed: 7, train: 1, dev: 3, test: 4 };
    scenes::write(root, &config, &[scenes::Split::Dev, scenes::Split::Test]).unwrap();
    let size = |images| SplitSize { images, captions: 5 * images };
    let known =
        BTreeMap::from([("dev".to_owned(), size(3)), ("test".to_owned(), size(4)), ("train".to_owned(), size(1))]);
    let [captions, images] = ["captions", "images"].map(|name| root.join(name));
    let look = |known: &BTreeMap<String, SplitSize>| survey(&captions, &images, known, 2, || {}).unwrap();
    let good = look(&known);
    assert_eq!((good.absent.as_slice(), good.is_good()), (&["train".to_owned()][..], false));
    assert_eq!(good.splits.iter().map(|split| (split.images, split.captions)).collect::<Vec<_>>(), [(3, 15), (4, 20)]);
    assert!(good.splits.iter().all(|split| split.is_good()) && good.unexpected.is_empty(), "{good:?}");
    let preflight = {
        let split = laps_data::Split::open(&captions, "test").unwrap();
        laps_data::preflight(&split, &images, 1, |_| {}).unwrap()
    };
    assert_eq!(good.splits[1].sha256, Some(preflight.sha256), "the hash that results carry");

    let test = laps_data::Split::open(&captions, "test").unwrap();
    let names: Vec<_> = test.images().iter().map(|image| image.name.clone()).collect();
    fs_err::remove_file(images.join(&names[0])).unwrap();
    fs_err::write(images.join(&names[1]), b"no image").unwrap();
    fs_err::write(images.join("other.txt"), b"x").unwrap();
    let bad = look(&BTreeMap::from([("dev".to_owned(), size(4)), ("test".to_owned(), size(4))]));
    assert!(!bad.is_good() && !bad.splits[0].is_good());
    assert_eq!(bad.splits[1].missing, names[..1]);
    assert_eq!(bad.splits[1].unreadable[0].0, names[1]);
    assert_eq!((bad.splits[1].sha256.clone(), bad.unexpected), (None, vec!["other.txt".to_owned()]));
    assert_snapshot!(bad.splits[1].unreadable[0].1, @"not a JPEG, PNG, GIF, BMP or WebP file");
}

#[test]
fn the_archives_that_a_split_names_files_of_are_missing_until_their_folders_are_there() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let entry = registry::find("coco_vit").unwrap();
    let paths = entry.data_paths(Some(root)).unwrap();
    fs_err::create_dir_all(&paths.captions).unwrap();
    for (name, text) in [
        ("id_mapping.json", r#"{"1": "val2014/a.jpg", "2": "train2014/b.jpg"}"#),
        ("testall_ids.txt", "1\n"),
        ("testall_caps.txt", "a\n"),
        ("train_ids.txt", "1\n2\n"),
        ("train_caps.txt", "a\nb\n"),
    ] {
        fs_err::write(paths.captions.join(name), text).unwrap();
    }
    let store = Store::at(root.join("cache"));
    let missing = |splits: &[&str]| -> Vec<String> {
        let items = missing_images(&store, &entry, (root, &paths), splits).unwrap();
        items.into_iter().map(|item| item.key).collect()
    };
    assert_eq!(missing(&["testall"]), ["images/val2014.zip"]);
    assert_eq!(missing(&["train", "testall"]), ["images/train2014.zip", "images/val2014.zip"]);

    fs_err::create_dir_all(paths.images.join("val2014")).unwrap();
    assert_eq!(missing(&["testall"]), [""; 0]);
    assert_eq!(missing(&["train"]), ["images/train2014.zip"]);
    // An archive that lies there was not unpacked to its end.
    fs_err::write(paths.images.join("val2014.zip"), "").unwrap();
    assert_eq!(missing(&["testall"]), ["images/val2014.zip"]);

    let unknown = missing_images(&store, &entry, (root, &paths), &["dev"]);
    assert!(unknown.unwrap_err().to_string().contains("dev"));
    let flickr = registry::find("f30k_vit").unwrap();
    let paths = flickr.data_paths(Some(root)).unwrap();
    assert_eq!(missing_images(&store, &flickr, (root, &paths), &["test"]).unwrap(), []);
}
