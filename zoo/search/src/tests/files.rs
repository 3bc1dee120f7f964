//! The index file format.

use half::f16;
use safetensors::{Dtype, SafeTensors};

use super::{captions, description, images, write};
use crate::{
    Error, Index, IndexItem, IndexKind, IndexPrecision, IndexWriter, SearchError, Store,
    pool::{ItemPooling, pool},
    staged_file::numpy_header,
};

/// The safetensors crate reads every value of an index.
#[test]
fn index_is_a_valid_safetensors_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let items = images(7);
    write(&path, IndexKind::Images, IndexPrecision::Half, &items);
    let bytes = fs_err::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor("embeddings").unwrap();
    assert_eq!((view.dtype(), view.shape()), (Dtype::F16, &[7, 10, 16][..]));
    let stored = view.data().chunks_exact(2).map(|word| f16::from_le_bytes(word.try_into().unwrap()));
    let expected = items.iter().flat_map(|item| item.values()).map(|&value| f16::from_f32(value));
    assert!(stored.eq(expected));
    assert_eq!(file.tensor("pooled").unwrap().shape(), [7, 16]);
    let names: serde_json::Value = serde_json::from_slice(file.tensor("items").unwrap().data()).unwrap();
    assert_eq!(names[6]["name"], "item 6");

    write(&path, IndexKind::Captions, IndexPrecision::Single, &captions(4));
    let bytes = fs_err::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let lengths = file.tensor("lengths").unwrap();
    assert_eq!(lengths.data(), [3u32, 4, 5, 6].map(u32::to_le_bytes).concat());
    assert_eq!(file.tensor("embeddings").unwrap().shape(), [18, 16]);
}

#[test]
fn written_rows_and_pooled_vectors_are_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    for (kind, items, pooling) in [
        (IndexKind::Images, images(5), ItemPooling::ClassTokenAndMean),
        (IndexKind::Captions, captions(5), ItemPooling::Mean),
    ] {
        write(&path, kind, IndexPrecision::Single, &items);
        let index = Index::open(&path).unwrap();
        for (number, item) in items.iter().enumerate() {
            assert_eq!(index.embeddings(&[number]).unwrap()[0].values(), item.values());
            assert_eq!(index.stored(number).unwrap().pooled, pool(item.values(), 16, pooling));
        }
        assert_eq!(index.item(4).unwrap(), IndexItem { name: "item 4".to_owned(), stamp: None });
    }
}

/// The definition in f64.
#[test]
fn pooling_matches_its_definition() {
    let item = &images(1)[0];
    let normalised = |row: &[f64]| -> Vec<f64> {
        let norm = row.iter().map(|value| value * value).sum::<f64>().sqrt();
        row.iter().map(|value| value / norm).collect()
    };
    let sum =
        |rows: &[Vec<f64>]| -> Vec<f64> { (0..16).map(|column| rows.iter().map(|row| row[column]).sum()).collect() };
    let rows: Vec<Vec<f64>> = item
        .values()
        .chunks_exact(16)
        .map(|row| normalised(&row.iter().map(|&value| f64::from(value)).collect::<Vec<_>>()))
        .collect();
    let of_patches = normalised(&sum(&rows[1..]));
    for (pooling, expected) in [
        (ItemPooling::Mean, normalised(&sum(&rows))),
        (ItemPooling::ClassTokenAndMean, normalised(&sum(&[rows[0].clone(), of_patches]))),
    ] {
        for (found, expected) in pool(item.values(), 16, pooling).iter().zip(expected) {
            // Sums of 16 values below 1 in single precision.
            assert!((f64::from(*found) - expected).abs() < 1e-6, "{pooling:?}");
        }
        assert_eq!(pool(&[0.0; 32], 16, pooling), [0.0; 16]);
    }
}

#[test]
fn truncated_and_foreign_files_are_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    write(&path, IndexKind::Captions, IndexPrecision::Half, &captions(6));
    let whole = fs_err::read(&path).unwrap();
    for length in (0..whole.len()).step_by(97).chain([whole.len() - 1]) {
        fs_err::write(&path, &whole[..length]).unwrap();
        let error = Index::open(&path).unwrap_err();
        let refused = matches!(&error, Error::Search(SearchError::Damaged { .. } | SearchError::Foreign { .. }));
        assert!(refused, "{length}: {error:?}");
        let damaged = matches!(error, Error::Search(SearchError::Damaged { .. }));
        assert!(damaged || length < 512, "{length} bytes are enough to identify an index");
    }
    for (content, found) in [(&b"photos"[..], "a file of another kind"), (b"", "a file of another kind")] {
        fs_err::write(&path, content).unwrap();
        let error = Index::open(&path).unwrap_err();
        assert!(matches!(&error, Error::Search(SearchError::Foreign { found: own, .. }) if own == found), "{error:?}");
        assert!(error.hint().is_some());
    }
    assert!(matches!(Index::open(folder.path()), Err(Error::Search(SearchError::Foreign { .. }))));
}

/// A changed byte of the header is an error or another name, and never a panic.
#[test]
fn corrupt_header_bytes_do_not_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    write(&path, IndexKind::Captions, IndexPrecision::Half, &captions(3));
    let whole = fs_err::read(&path).unwrap();
    // Padding and values follow the last brace.
    let end = whole[..1 << 15].iter().rposition(|&byte| byte == b'}').unwrap() + 1;
    for position in (0..end).step_by(3) {
        for change in [1, 0x10] {
            let mut changed = whole.clone();
            changed[position] ^= change;
            fs_err::write(&path, &changed).unwrap();
            if let Ok(index) = Index::open(&path) {
                let items: Vec<usize> = index.numbers().take(100).collect();
                let _ = (index.embeddings(&items), index.names(&items));
                let _ = index.nearest(&vec![0.5; index.description().width], items.len(), None);
            }
        }
    }
}

#[test]
fn fp16_overflow_and_invalid_embeddings_are_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let mut writer = IndexWriter::create(&path, description(IndexKind::Images, IndexPrecision::Half)).unwrap();
    let mut values = images(1)[0].values().to_vec();
    values[3] = 7e4;
    let item = || IndexItem { name: "bright".to_owned(), stamp: None };
    let error = writer.push(item(), &values).unwrap_err();
    assert!(matches!(&error, Error::Search(SearchError::Overflow { name, .. }) if name == "bright"), "{error:?}");
    values[3] = f32::NAN;
    assert!(matches!(writer.push(item(), &values), Err(Error::Model(laps_model::Error::Operation { .. }))));
    assert!(matches!(writer.push(item(), &values[1..]), Err(Error::Model(laps_model::Error::Operation { .. }))));
    let second = IndexWriter::create(&path, description(IndexKind::Images, IndexPrecision::Half)).unwrap_err();
    let holder = Some(std::process::id());
    assert!(matches!(&second, Error::Files(laps_files::Error::Held { pid, .. }) if *pid == holder), "{second:?}");
    drop(writer);
    assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 0);
}

/// Format version 1.0 of `numpy/lib/format.py`.
#[test]
fn numpy_header_has_a_multiple_of_64_bytes() {
    let header = numpy_header(&[1_000_000, 197, 512], 128);
    assert_eq!(
        (header.len(), &header[..8], u16::from_le_bytes([header[8], header[9]])),
        (128, &b"\x93NUMPY\x01\0"[..], 118)
    );
    let text = std::str::from_utf8(&header[10..]).unwrap();
    assert!(text.starts_with("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 197, 512,), }"), "{text}");
    assert!(text.ends_with(" \n"));
}
