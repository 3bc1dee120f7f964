//! Image archives, and the survey of a data set.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use insta::assert_snapshot;
use laps_data::{SplitSize, scenes, survey};
use laps_files::ExpectedDigest;
use laps_hub::{
    fetch::{Fetcher, missing_images},
    registry,
    store::{FileSource, FileStore},
};
use zip::CompressionMethod;

use crate::{
    contents::archive,
    server::{End, Reply, TestServer},
    support::{Setup, random_bytes},
};

#[test]
fn archive_is_fetched_unpacked_and_deleted() {
    let bytes = Arc::new(archive(&[("val/1.jpg", &random_bytes(61, 300_000))], CompressionMethod::Stored));
    let (served, count) = (Arc::clone(&bytes), AtomicUsize::new(0));
    let server = TestServer::start(move |request| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::file(request, &served, "\"x\"").ending(End::Cut(200_000)),
        _ => Reply::file(request, &served, "\"x\""),
    });
    let mut setup = Setup::new(server, ExpectedDigest::default());
    setup.file.source = FileSource::Coco("zips/val.zip".to_owned());
    let fetcher = Fetcher::new(setup.settings.clone());
    assert_eq!(fetcher.images(&setup.file, &()).unwrap().files, 1);
    assert!(!setup.exists());
    assert_eq!(fs_err::read(setup.folder.path().join("val/1.jpg")).unwrap().len(), 300_000);
    let again = fetcher.images(&setup.file, &()).unwrap();
    assert_eq!((again.files, again.existing), (1, 1));
    assert_eq!(setup.server.log().len(), 2);
    assert_eq!(setup.server.log()[0].path, "/zips/val.zip");
}

#[test]
fn survey_reports_missing_unreadable_and_unexpected_files() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let config = scenes::DrawnConfig { seed: 7, train: 1, dev: 3, test: 4 };
    scenes::write(root, &config, &[scenes::DrawnSplit::Dev, scenes::DrawnSplit::Test]).unwrap();
    let size = |images| SplitSize { images, captions: 5 * images };
    let known =
        BTreeMap::from([("dev".to_owned(), size(3)), ("test".to_owned(), size(4)), ("train".to_owned(), size(1))]);
    let [captions, images] = ["captions", "images"].map(|name| root.join(name));
    let survey_with = |known: &BTreeMap<String, SplitSize>| survey(&captions, &images, known, None, 2, || {}).unwrap();
    let good = survey_with(&known);
    assert_eq!((good.absent.as_slice(), good.is_good()), (&["train".to_owned()][..], false));
    assert_eq!(good.splits.iter().map(|split| (split.images, split.captions)).collect::<Vec<_>>(), [(3, 15), (4, 20)]);
    assert!(good.splits.iter().all(|split| split.is_good()) && good.unexpected.is_empty(), "{good:?}");
    let data = {
        let split = laps_data::Split::open(&captions, "test").unwrap();
        laps_data::hash_data(&split, &images, 1, || ()).unwrap()
    };
    assert_eq!(good.splits[1].sha256, Some(data.sha256), "the hash in results");

    let test = laps_data::Split::open(&captions, "test").unwrap();
    let names: Vec<_> = test.images().iter().map(|image| image.name.clone()).collect();
    fs_err::remove_file(images.join(&names[0])).unwrap();
    fs_err::write(images.join(&names[1]), b"no image").unwrap();
    fs_err::write(images.join("other.txt"), b"x").unwrap();
    let bad = survey_with(&BTreeMap::from([("dev".to_owned(), size(4)), ("test".to_owned(), size(4))]));
    assert!(!bad.is_good() && !bad.splits[0].is_good());
    let [missing] = bad.splits[1].missing.as_slice() else { panic!("{bad:?}") };
    let [unreadable] = bad.splits[1].unreadable.as_slice() else { panic!("{bad:?}") };
    assert_eq!(
        [(&missing.name, missing.line.line), (&unreadable.name, unreadable.line.line)],
        [(&names[0], 1), (&names[1], 6)]
    );
    assert_eq!((&bad.splits[1].sha256, bad.unexpected.as_slice()), (&None, &["other.txt".to_owned()][..]));
    assert_snapshot!(unreadable.reason, @"not a JPEG, PNG, GIF, BMP or WebP file");
}

#[test]
fn archives_of_a_split_are_missing_until_they_are_unpacked() {
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
    let store = FileStore::at(root.join("cache"));
    let missing = |splits: &[&str]| -> Vec<String> {
        let files = missing_images(&store, &entry, (root, &paths), splits).unwrap();
        files.into_iter().map(|file| file.key).collect()
    };
    assert_eq!(missing(&["testall"]), ["images/val2014.zip"]);
    assert_eq!(missing(&["train", "testall"]), ["images/train2014.zip", "images/val2014.zip"]);

    fs_err::create_dir_all(paths.images.join("val2014")).unwrap();
    assert_eq!(missing(&["testall"]), [""; 0]);
    assert_eq!(missing(&["train"]), ["images/train2014.zip"]);
    // An archive that still exists was not unpacked completely.
    fs_err::write(paths.images.join("val2014.zip"), "").unwrap();
    assert_eq!(missing(&["testall"]), ["images/val2014.zip"]);

    let unknown = missing_images(&store, &entry, (root, &paths), &["dev"]);
    assert!(unknown.unwrap_err().to_string().contains("dev"));
    let flickr = registry::find("f30k_vit").unwrap();
    let paths = flickr.data_paths(Some(root)).unwrap();
    assert_eq!(missing_images(&store, &flickr, (root, &paths), &["test"]).unwrap(), []);
}
