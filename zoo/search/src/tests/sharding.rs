//! An index as shards, against the index in one file.

use std::{num::NonZeroUsize, path::Path, sync::atomic::AtomicBool};

use super::{
    building::{Fixture, write_image},
    captions, description, engine,
};
use crate::{
    Error, Exclusions, ImageFolder, Index, IndexItem, IndexKind, IndexPrecision, SearchError, SearchScope, Searcher,
    ShardedIndex, Store as _, evaluate,
};

const IMAGES: usize = 300;

/// Different images, in folders, of which one in ten cannot be used.
fn photos(folder: &Path) {
    for image in 0..IMAGES {
        let path = folder.join(format!("{}/{image:03}.bmp", image % 3));
        match image % 10 {
            7 => fs_err::write(path, "<html>").unwrap(),
            _ => write_image(&path, (image % 251) as u8),
        }
    }
}

fn list(folder: &Path) -> ImageFolder {
    ImageFolder::list(folder, &Exclusions::default()).unwrap()
}

fn start<'a>(path: &'a Path, folder: &'a ImageFolder, size: usize) -> ShardedIndex<'a> {
    let description = crate::IndexDescription {
        source: crate::absolute(&folder.path),
        ..description(IndexKind::Images, IndexPrecision::Half)
    };
    ShardedIndex::create(path, folder, NonZeroUsize::new(size).unwrap(), description).unwrap()
}

/// Writes some shards, and returns how many images were encoded.
fn write(fixture: &Fixture, shards: &ShardedIndex<'_>, numbers: impl Iterator<Item = usize>) -> usize {
    numbers.map(|number| shards.write(number, &fixture.pipeline(&|_| ()), &|_| ()).unwrap().encoded).sum()
}

fn items(index: &Index) -> Vec<IndexItem> {
    index.numbers().map(|number| index.item(number).unwrap()).collect()
}

/// Shards of 280 images are longer than the chunk of a scan, and those of 1 image are empty if it cannot be used.
#[test]
fn shards_are_searched_like_an_index_in_one_file() {
    let root = tempfile::tempdir().unwrap();
    let [folder, whole] = ["photos", "whole.index"].map(|name| root.path().join(name));
    photos(&folder);
    let fixture = Fixture::new();
    let summary = fixture.index(&folder, &whole).unwrap();
    assert_eq!((summary.items, summary.skipped.len()), (270, 30));
    let (whole, engine, stop) = (Index::open(&whole).unwrap(), engine(), AtomicBool::new(false));
    let images = list(&folder);
    for size in [280, 37, 1] {
        let path = root.path().join(size.to_string());
        let shards = start(&path, &images, size);
        assert_eq!(shards.shards(), IMAGES.div_ceil(size));
        assert!(ShardedIndex::exists(&path) && !ShardedIndex::exists(&folder));
        // Every process starts the index; the shards are written in any order.
        let other = start(&path, &images, size);
        let encoded = write(&fixture, &other, (1..shards.shards()).step_by(2).rev());
        assert_eq!(encoded + write(&fixture, &shards, (0..shards.shards()).step_by(2)), 270);
        let index = Index::open(&path).unwrap();
        assert_eq!((items(&index), index.description()), (items(&whole), whole.description()));
        for item in whole.numbers() {
            assert_eq!(index.stored(item).unwrap(), whole.stored(item).unwrap());
        }
        let queries = captions(3);
        let [found, expected] =
            [&index, &whole].map(|index| Searcher { index, filter: None, engine: &engine, stop: &stop });
        for query in &queries {
            for scope in [SearchScope::All, SearchScope::Candidates(20)] {
                assert_eq!(found.search(query, scope, 10).unwrap(), expected.search(query, scope, 10).unwrap());
            }
        }
        let [found, expected] = [found, expected].map(|searcher| evaluate(&searcher, &queries, &|_| ()).unwrap());
        assert_eq!(found, expected);
        let after = items(&index).len();
        assert!(matches!(index.stored(after), Err(Error::Search(SearchError::NoItem { item })) if item == after));
        assert!(index.embeddings(&[after]).is_err());
    }
}

#[test]
fn missing_shard_is_named() {
    let root = tempfile::tempdir().unwrap();
    let [folder, path] = ["photos", "photos.index"].map(|name| root.path().join(name));
    photos(&folder);
    let (fixture, images) = (Fixture::new(), list(&folder));
    let shards = start(&path, &images, 100);
    write(&fixture, &shards, [0, 2].into_iter());
    assert_eq!([0, 1, 2].map(|number| shards.is_finished(number)), [true, false, true]);
    let error = Index::open(&path).unwrap_err();
    let place = path.display().to_string();
    insta::assert_snapshot!(error.to_string().replace(&place, "photos.index"), @r"
    the index `photos.index` is incomplete
      expected: the shard `photos.index/shard-00001.index`
      found: no such file
    ");
    write(&fixture, &shards, 1..2);
    assert_eq!(items(&Index::open(&path).unwrap()).len(), 270);
}

/// After an image is added, each shard has one other image at most; until all are written again, the index is not opened.
#[test]
fn update_of_shards_encodes_what_changed() {
    let root = tempfile::tempdir().unwrap();
    let [folder, path, whole] = ["photos", "photos.index", "whole.index"].map(|name| root.path().join(name));
    photos(&folder);
    let fixture = Fixture::new();
    let images = list(&folder);
    let shards = start(&path, &images, 50);
    assert_eq!(write(&fixture, &shards, 0..6), 270);
    assert_eq!(write(&fixture, &shards, 0..6), 0);

    write_image(&folder.join("0/0.bmp"), 9);
    let images = list(&folder);
    let shards = start(&path, &images, 50);
    assert_eq!(shards.shards(), 7);
    let encoded = write(&fixture, &shards, 0..3);
    let error = Index::open(&path).unwrap_err().to_string();
    assert!(error.contains("shard-00003.index") && error.contains("found: a shard of other images"), "{error}");
    assert!((1..=7).contains(&(encoded + write(&fixture, &shards, 3..7))));
    fixture.index(&folder, &whole).unwrap();
    assert_eq!(items(&Index::open(&path).unwrap()), items(&Index::open(&whole).unwrap()));

    // Larger shards are fewer, and the files of the others are gone.
    let shards = start(&path, &images, 151);
    write(&fixture, &shards, 0..2);
    assert_eq!(items(&Index::open(&path).unwrap()), items(&Index::open(&whole).unwrap()));
    let mut files: Vec<_> = fs_err::read_dir(&path).unwrap().map(|file| file.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["index.json", "shard-00000.index", "shard-00001.index"]);
}

#[test]
fn shards_of_another_precision_or_version_are_not_joined() {
    let root = tempfile::tempdir().unwrap();
    let [folder, path] = ["photos", "photos.index"].map(|name| root.path().join(name));
    photos(&folder);
    let (fixture, images) = (Fixture::new(), list(&folder));
    write(&fixture, &start(&path, &images, 150), 0..2);
    let single = description(IndexKind::Images, IndexPrecision::Single);
    let single = ShardedIndex::create(&path, &images, NonZeroUsize::new(150).unwrap(), single).unwrap();
    write(&fixture, &single, 1..2);
    let error = Index::open(&path).unwrap_err().to_string();
    assert!(error.contains("found: a shard with `precision` \"fp32\" instead of \"fp16\""), "{error}");

    fs_err::write(path.join("index.json"), r#"{"schema": 2, "shards": []}"#).unwrap();
    assert!(Index::open(&path).unwrap_err().to_string().contains("format version 2, and 1 is expected"));
    fs_err::write(path.join("index.json"), r#"{"schema": 1, "shards": []}"#).unwrap();
    assert!(Index::open(&path).unwrap_err().to_string().contains("it has no shards"));
}

/// A page of photos often has an `index.json` of its own.
#[test]
fn folder_with_another_list_is_no_index() {
    let folder = tempfile::tempdir().unwrap();
    for text in ["", "[]", r#"{"photos":["a.jpg"]}"#, r#"{"schema":2,"shards":["a"]}"#] {
        fs_err::write(folder.path().join("index.json"), text).unwrap();
        assert!(!ShardedIndex::exists(folder.path()), "{text}");
    }
    fs_err::write(folder.path().join("index.json"), r#"{"schema":1,"shards":["a"]}"#).unwrap();
    assert!(ShardedIndex::exists(folder.path()));
    // A list of another version beside a shard: opening it says so.
    fs_err::write(folder.path().join("index.json"), r#"{"schema":2,"shards":["a"]}"#).unwrap();
    fs_err::write(folder.path().join("shard-00000.index"), "").unwrap();
    assert!(ShardedIndex::exists(folder.path()));
}
