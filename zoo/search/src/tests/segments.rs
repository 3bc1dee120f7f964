//! Index files that grow.

use std::path::Path;

use safetensors::SafeTensors;

use super::{SIZES, captions, description, images, write};
use crate::{
    Error, Index, IndexDescription, IndexItem, IndexKind, IndexPrecision, IndexWriter, Neighbor, SearchError, Store,
    staged_file::{TensorEntry, safetensors_header},
};
use laps_model::array::Array;

fn item(name: &str) -> IndexItem {
    IndexItem { name: name.to_owned(), stamp: None }
}

/// Removes items of the index, and adds others.
fn change(path: &Path, removed: &[usize], added: &[(&str, &Array)]) {
    let mut writer = IndexWriter::append(&Index::open(path).unwrap(), removed).unwrap();
    for (name, embeddings) in added {
        writer.push(item(name), embeddings.values()).unwrap();
    }
    writer.finish().unwrap();
}

/// Name and embeddings of each item.
fn contents(path: &Path) -> Vec<(String, Vec<f32>)> {
    let index = Index::open(path).unwrap();
    let numbers: Vec<usize> = index.numbers().collect();
    assert_eq!(index.item_count(None).unwrap(), numbers.len());
    let embeddings = index.embeddings(&numbers).unwrap();
    let embeddings = embeddings.iter().map(|item| item.values().to_vec());
    index.names(&numbers).unwrap().into_iter().zip(embeddings).collect()
}

fn expected(items: &[(&str, &Array)]) -> Vec<(String, Vec<f32>)> {
    items.iter().map(|(name, item)| ((*name).to_owned(), item.values().to_vec())).collect()
}

fn damage(path: &Path, bytes: &[u8]) -> String {
    fs_err::write(path, bytes).unwrap();
    match Index::open(path) {
        Err(Error::Search(SearchError::Damaged { reason, .. })) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn items_are_added_removed_and_replaced_without_rewriting_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let [path, again] = ["index", "again"].map(|name| folder.path().join(name));
    for (kind, items) in [(IndexKind::Images, images(9)), (IndexKind::Captions, captions(9))] {
        for path in [&path, &again] {
            write(path, kind, IndexPrecision::Single, &items[..4]);
            let first = fs_err::read(path).unwrap();
            change(path, &[], &[("new", &items[4])]);
            let second = fs_err::read(path).unwrap();
            assert!(second.starts_with(&first) && second.len() > first.len());
            // `item 1` is replaced, `new` and `item 3` are removed.
            change(path, &[4, 1, 3], &[("item 1", &items[5]), ("newer", &items[6])]);
            assert!(fs_err::read(path).unwrap().starts_with(&second));
            change(path, &[0], &[]);
            change(path, &[], &[("last", &items[7])]);
        }
        let live = [("item 2", &items[2]), ("item 1", &items[5]), ("newer", &items[6]), ("last", &items[7])];
        assert_eq!(contents(&path), expected(&live), "{kind}");
        assert!(fs_err::read(&path).unwrap() == fs_err::read(&again).unwrap(), "the same changes give the same bytes");

        let index = Index::open(&path).unwrap();
        assert_eq!(index.numbers().collect::<Vec<_>>(), [2, 5, 6, 7]);
        for gone in [0, 4, 8] {
            let error = index.names(&[gone]).unwrap_err();
            assert!(matches!(error, Error::Search(SearchError::NoItem { item }) if item == gone), "{error:?}");
            assert!(index.stored(gone).is_err() && index.embeddings(&[gone]).is_err());
            assert!(IndexWriter::append(&index, &[gone]).is_err());
        }
        // The nearest items are those of an index that was written at once.
        fs_err::remove_file(&again).unwrap();
        let live: Vec<Array> = live.iter().map(|(_, item)| (*item).clone()).collect();
        write(&again, kind, IndexPrecision::Single, &live);
        let fresh = Index::open(&again).unwrap();
        let query: Vec<f32> = (0..SIZES.width).map(|value| (value as f32).cos()).collect();
        for count in [0, 1, 3, 4, usize::MAX] {
            let numbers = [2, 5, 6, 7];
            let of_fresh = fresh.nearest(&query, count, None).unwrap();
            let of_fresh: Vec<Neighbor> =
                of_fresh.into_iter().map(|near| Neighbor { item: numbers[near.item], ..near }).collect();
            assert_eq!(index.nearest(&query, count, None).unwrap(), of_fresh, "{kind} {count}");
        }
        fs_err::remove_file(&again).unwrap();
    }
}

/// More items than a scan keeps at once, in several segments.
#[test]
fn nearest_of_a_long_scan_are_those_of_sorting_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let items = images(40);
    write(&path, IndexKind::Images, IndexPrecision::Half, &items);
    for removed in [[0, 1], [2, 40]] {
        let mut writer = IndexWriter::append(&Index::open(&path).unwrap(), &removed).unwrap();
        for number in 0..3000 {
            let values: Vec<f32> =
                items[number % 40].values().iter().map(|value| value + (number % 97) as f32).collect();
            writer.push(item(&format!("{number}")), &values).unwrap();
        }
        writer.finish().unwrap();
    }
    let index = Index::open(&path).unwrap();
    let query: Vec<f32> = (0..SIZES.width).map(|value| (value as f32).sin()).collect();
    let all = index.nearest(&query, usize::MAX, None).unwrap();
    assert_eq!(all.len(), 40 + 6000 - 4);
    assert!(all.is_sorted_by(|a, b| a.pooled > b.pooled || (a.pooled == b.pooled && a.item < b.item)));
    for near in all.iter().step_by(301) {
        let stored = index.stored(near.item).unwrap().pooled;
        assert_eq!(crate::dot(&stored, &query), near.pooled);
    }
    for count in [1, 10, 200, 2000] {
        assert_eq!(index.nearest(&query, count, None).unwrap(), all[..count]);
    }
}

/// The states of the file that a killed writer can leave.
#[test]
fn killed_or_failed_writer_leaves_the_old_contents() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let items = images(3);
    write(&path, IndexKind::Images, IndexPrecision::Half, &items[..2]);
    let old = fs_err::read(&path).unwrap();
    change(&path, &[0], &[("new", &items[2])]);
    let new = fs_err::read(&path).unwrap();
    let names = |path: &Path| contents(path).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names(&path), ["item 1", "new"]);

    let mut unfinished = new.clone();
    unfinished[old.len()..old.len() + 8].fill(0);
    for length in (old.len()..new.len()).step_by(61).chain([new.len()]) {
        fs_err::write(&path, &unfinished[..length]).unwrap();
        assert_eq!(names(&path), ["item 0", "item 1"], "{length}");
        // The next writer overwrites it.
        change(&path, &[0], &[("new", &items[2])]);
        assert!(fs_err::read(&path).unwrap() == new, "{length}");
    }
    // A complete segment that is cut off later is damage.
    for length in (old.len() + 8..new.len()).step_by(61).chain([new.len() - 1]) {
        let reason = damage(&path, &new[..length]);
        assert!(reason.starts_with(&format!("segment at byte {}: ", old.len())), "{reason}");
    }
    // A writer that is dropped removes what it has written.
    fs_err::write(&path, &old).unwrap();
    let mut writer = IndexWriter::append(&Index::open(&path).unwrap(), &[1]).unwrap();
    writer.push(item("new"), items[2].values()).unwrap();
    drop(writer);
    assert!(fs_err::read(&path).unwrap() == old);
    assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn one_process_writes_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let items = images(3);
    write(&path, IndexKind::Images, IndexPrecision::Half, &items[..2]);
    let before = Index::open(&path).unwrap();
    let writer = IndexWriter::append(&before, &[]).unwrap();
    for second in [IndexWriter::append(&before, &[]), IndexWriter::create(&path, before.description().clone())] {
        assert!(matches!(second, Err(Error::Files(laps_files::Error::Held { .. }))), "{second:?}");
    }
    drop(writer);
    change(&path, &[0], &[("new", &items[2])]);
    // Its numbers are those of the file before the change; it still reads that state.
    let error = IndexWriter::append(&before, &[0]).unwrap_err();
    assert_eq!(before.names(&[0, 1]).unwrap(), ["item 0", "item 1"]);
    let message = error.to_string().replace(path.to_str().unwrap(), "INDEX");
    insta::assert_snapshot!(message, @r"
    the index `INDEX` was changed meanwhile
      expected: the index as it was read
      found: an index that another process wrote
    ");
    // Another file at the same path.
    let before = Index::open(&path).unwrap();
    fs_err::remove_file(&path).unwrap();
    write(&path, IndexKind::Images, IndexPrecision::Half, &items);
    let error = IndexWriter::append(&before, &[]).unwrap_err();
    assert!(matches!(error, Error::Search(SearchError::Changed { .. })), "{error:?}");
}

/// A file as earlier versions wrote it: without `item_ends` and `row_ends`, and of any length.
fn write_earlier(path: &Path, description: &IndexDescription, items: &[Array], names: &str) {
    let stored: Vec<_> = items.iter().map(|item| description.encode_item("", item.values()).unwrap()).collect();
    let bytes = |values: Vec<Vec<u8>>| values.concat();
    let embeddings = bytes(stored.iter().map(|item| item.embeddings.clone()).collect());
    let pooled = bytes(stored.iter().map(|item| description.precision.encode(&item.pooled, "").unwrap()).collect());
    let rows: usize = items.iter().map(|item| item.dims()[0]).sum();
    let (dtype, count) = (description.precision.safetensors(), items.len());
    let mut tensors = match description.kind {
        IndexKind::Images => vec![("embeddings", dtype, vec![count, SIZES.tokens(), SIZES.width], embeddings)],
        IndexKind::Captions => {
            let lengths = items.iter().flat_map(|item| (item.dims()[0] as u32).to_le_bytes()).collect();
            let rows = ("embeddings", dtype, vec![rows, SIZES.width], embeddings);
            vec![rows, ("lengths", "U32", vec![count], lengths)]
        }
    };
    tensors.push(("pooled", dtype, vec![count, SIZES.width], pooled));
    tensors.push(("items", "U8", vec![names.len()], names.as_bytes().to_vec()));
    let headers: Vec<TensorEntry> = tensors
        .iter()
        .map(|(name, dtype, shape, values)| TensorEntry { name, dtype, shape: shape.clone(), bytes: values.len() })
        .collect();
    let metadata = [("laps_zoo.index", description.to_json())].into();
    let mut file = safetensors_header(&headers, &metadata, 1 << 12);
    tensors.iter().for_each(|(.., values)| file.extend(values));
    fs_err::write(path, file).unwrap();
}

#[test]
fn file_of_an_earlier_version_is_read_and_grows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    for (kind, items) in [(IndexKind::Images, images(3)), (IndexKind::Captions, captions(3))] {
        // Lengths with every remainder.
        for padding in 0..8 {
            let names = format!(r#"[{{"name":"first"}},{{"name":"{}"}}]"#, "s".repeat(padding));
            let second = "s".repeat(padding);
            write_earlier(&path, &description(kind, IndexPrecision::Single), &items[..2], &names);
            assert_eq!(contents(&path), expected(&[("first", &items[0]), (&second, &items[1])]));
            change(&path, &[0], &[("third", &items[2])]);
            assert_eq!(contents(&path), expected(&[(&second, &items[1]), ("third", &items[2])]));
        }
    }
    write_earlier(&path, &description(IndexKind::Images, IndexPrecision::Single), &images(2), r#"[{"name":"one"}]"#);
    let reason = damage(&path, &fs_err::read(&path).unwrap());
    assert_eq!(reason, "1 names of 2 items");
}

/// Byte range of a tensor of the safetensors file at `start`.
fn values_of(bytes: &[u8], start: usize, name: &str) -> std::ops::Range<usize> {
    let length = usize::from_le_bytes(bytes[start..start + 8].try_into().unwrap());
    let values = start + 8 + length;
    let header: serde_json::Value = serde_json::from_slice(&bytes[start + 8..values]).unwrap();
    let [first, end] = [0, 1].map(|side| header[name]["data_offsets"][side].as_u64().unwrap() as usize);
    values + first..values + end
}

#[test]
fn damaged_items_and_segments_are_errors_that_name_the_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let items = captions(4);
    write(&path, IndexKind::Captions, IndexPrecision::Half, &items[..3]);
    let base = fs_err::read(&path).unwrap();
    change(&path, &[1], &[("new", &items[3])]);
    let whole = fs_err::read(&path).unwrap();
    let start = base.len();
    let patched = |at: usize, values: &[u8]| {
        let mut bytes = whole.clone();
        bytes[at..at + values.len()].copy_from_slice(values);
        bytes
    };

    // Names and rows are checked when they are read. The others are not affected.
    let list = values_of(&whole, 0, "items").start;
    for (value, reason) in [
        (
            u64::MAX,
            format!("item 0 at byte {} is invalid: {} bytes that end at byte {}", list + 1, u64::MAX - 1, u64::MAX),
        ),
        (0, format!("item 0 at byte {} is invalid: EOF while parsing", list + 1)),
        (3, format!("item 0 at byte {} is invalid: EOF while parsing", list + 1)),
    ] {
        fs_err::write(&path, patched(values_of(&whole, 0, "item_ends").start, &value.to_le_bytes())).unwrap();
        let index = Index::open(&path).unwrap();
        let error = index.item(0).unwrap_err().to_string();
        assert!(error.contains(&reason), "{error}");
        assert_eq!(index.item(2).unwrap(), item("item 2"));
    }
    for (value, found) in [(u64::MAX, format!("0..{}", u64::MAX)), (0, "0..0".to_owned())] {
        fs_err::write(&path, patched(values_of(&whole, 0, "row_ends").start, &value.to_le_bytes())).unwrap();
        let index = Index::open(&path).unwrap();
        let error = index.embeddings(&[0]).unwrap_err().to_string();
        assert!(error.contains(&format!("item 0 has the rows {found} of 12")), "{error}");
        assert_eq!(index.embeddings(&[2]).unwrap()[0].dims(), items[2].dims());
    }

    // Segments are checked when the file is opened.
    let removed = values_of(&whole, start, "removed").start;
    let at = format!("segment at byte {start}: ");
    for number in [3, u32::MAX] {
        let reason = damage(&path, &patched(removed, &number.to_le_bytes()));
        assert_eq!(reason, format!("{at}it removes others than the 3 items before it"));
    }
    for prefix in [1, 1 << 11, u64::MAX] {
        let reason = damage(&path, &patched(start, &prefix.to_le_bytes()));
        assert!(reason.starts_with(&at), "{reason}");
    }
    let twice = [&whole[..], &whole[start..]].concat();
    let reason = damage(&path, &twice);
    assert!(reason.ends_with(": it removes an item that was removed before"), "{reason}");
    let garbage = [&whole[..], b"something"].concat();
    assert!(damage(&path, &garbage).starts_with(&format!("segment at byte {}: ", whole.len())));

    // No changed byte of the segment's header or tables ends in a panic.
    let query = vec![0.5; SIZES.width];
    for position in (start..start + 900).step_by(3).chain(removed..whole.len()) {
        for change in [1, 0x10, 0x80] {
            fs_err::write(&path, patched(position, &[whole[position] ^ change])).unwrap();
            if let Ok(index) = Index::open(&path) {
                let numbers: Vec<usize> = index.numbers().collect();
                let _ = (index.embeddings(&numbers), index.names(&numbers), index.nearest(&query, 2, None));
            }
        }
    }
}

/// Only headers and the numbers of removed items are read: an index opens although no name and no vector can be read.
#[test]
fn opening_does_not_read_items() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    write(&path, IndexKind::Captions, IndexPrecision::Half, &captions(3));
    let mut bytes = fs_err::read(&path).unwrap();
    let (length, _) = SafeTensors::read_metadata(&bytes).unwrap();
    bytes[8 + length..].fill(0xff);
    fs_err::write(&path, &bytes).unwrap();
    let index = Index::open(&path).unwrap();
    assert_eq!(index.item_count(None).unwrap(), 3);
    assert!((0..3).all(|number| index.item(number).is_err() && index.stored(number).is_err()));
}

/// The seed of the fuzz target was written by a program of its own from the documented format.
#[test]
fn file_written_from_the_documented_format_is_read() {
    let index = Index::open(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds/index/grown").as_ref()).unwrap();
    assert_eq!(index.numbers().collect::<Vec<_>>(), [1, 2]);
    assert_eq!(index.names(&[1, 2]).unwrap(), ["b", "c"]);
    assert!(index.stored(2).unwrap().pooled.iter().all(|&value| value == 0.5));
}
