//! Indexing folders and captions, with a fake encoder that counts what it encodes.

use std::{
    cell::{Cell, RefCell},
    num::NonZeroUsize,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use super::{ENCODED, SIZES, description};
use crate::{
    CaptionLine, EmbeddingFormat, EmbeddingGranularity, EmbeddingPipeline, Error, Exclusions, ImageFolder, Index,
    IndexKind, IndexPrecision, IndexSummary, Result, SearchError, Store, embed_captions, index_captions, index_images,
};
use laps_data::{Tokenizer, TokenizerConfig, Vocabulary, image::Preprocessing, scenes};
use laps_model::{array::Array, encoder::Encoder};

/// An encoder whose embeddings depend only on the pixels or tokens.
#[derive(Default)]
pub(super) struct FakeEncoder {
    pub(super) images: Cell<usize>,
    batches: RefCell<Vec<Vec<usize>>>,
}

fn rows(count: usize, seed: f32) -> Vec<f32> {
    (0..count * SIZES.width).map(|index| 0.5 + (seed + index as f32).sin()).collect()
}

impl Encoder for FakeEncoder {
    fn encode_images(&self, pixels: &Array) -> laps_model::Result<Array> {
        let count = pixels.dims()[0];
        self.images.set(self.images.get() + count);
        let images = pixels.values().chunks_exact(pixels.values().len() / count);
        let values = images.flat_map(|image| rows(SIZES.tokens(), image.iter().sum())).collect();
        Array::new(&[count, SIZES.tokens(), SIZES.width], values)
    }

    fn encode_captions(&self, captions: &[&[u32]]) -> laps_model::Result<Vec<Array>> {
        self.batches.borrow_mut().push(captions.iter().map(|caption| caption.len()).collect());
        let words = |caption: &&[u32]| {
            Array::new(&[caption.len(), SIZES.width], rows(caption.len(), caption.iter().sum::<u32>() as f32))
        };
        captions.iter().map(words).collect()
    }

    fn encode_padded(&self, captions: &[&[u32]]) -> laps_model::Result<Vec<Array>> {
        self.encode_captions(captions)
    }
}

pub(super) struct Fixture {
    pub(super) encoder: FakeEncoder,
    tokenizer: Tokenizer,
    stop: AtomicBool,
}

impl Fixture {
    pub(super) fn new() -> Self {
        let vocabulary = scenes::vocabulary().join("\n").into_bytes();
        let tokenizer = Tokenizer::new(&Vocabulary {
            path: "vocab.txt".into(),
            bytes: vocabulary,
            config: TokenizerConfig::default(),
        })
        .unwrap();
        Self { encoder: FakeEncoder::default(), tokenizer, stop: AtomicBool::new(false) }
    }

    pub(super) fn pipeline<'a>(&'a self, progress: &'a dyn Fn(usize)) -> EmbeddingPipeline<'a> {
        EmbeddingPipeline {
            encoder: &self.encoder,
            sizes: ENCODED,
            preprocessing: Preprocessing::imagenet(4),
            tokenizer: &self.tokenizer,
            max_tokens: 64,
            batch_size: NonZeroUsize::new(3).unwrap(),
            threads: 2,
            stop: &self.stop,
            progress,
        }
    }

    pub(super) fn index(&self, folder: &Path, path: &Path) -> Result<IndexSummary> {
        index_images(
            &ImageFolder::list(folder, &Exclusions::default())?,
            path,
            description(IndexKind::Images, IndexPrecision::Half),
            &self.pipeline(&|_| ()),
            &|_| (),
        )
    }
}

/// Writes a BMP image of one pixel.
pub(super) fn write_image(path: &Path, red: u8) {
    let mut bytes = vec![0; 54 + 4];
    bytes[..2].copy_from_slice(b"BM");
    [bytes[10], bytes[14], bytes[18], bytes[22], bytes[26], bytes[28]] = [54, 40, 1, 1, 1, 24];
    bytes[56] = red;
    fs_err::create_dir_all(path.parent().unwrap()).unwrap();
    fs_err::write(path, bytes).unwrap();
}

pub(super) fn lines(captions: &[String]) -> Vec<CaptionLine> {
    let line =
        |(line, text): (usize, &String)| CaptionLine { file: "captions.txt".to_owned(), line, text: text.clone() };
    (1..).zip(captions).map(line).collect()
}

pub(super) fn names(path: &Path) -> Vec<String> {
    let index = Index::open(path).unwrap();
    index.numbers().map(|number| index.item(number).unwrap().name).collect()
}

#[test]
fn unchanged_images_are_not_encoded_again() {
    let root = tempfile::tempdir().unwrap();
    let [folder, path, fresh] = ["photos", "photos.index", "fresh.index"].map(|name| root.path().join(name));
    for (name, red) in [("b.bmp", 10), ("a.bmp", 60), ("sub/c.BMP", 110), ("d.bmp", 160), ("e.bmp", 210)] {
        write_image(&folder.join(name), red);
    }
    write_image(&folder.join(".hidden.bmp"), 1);
    fs_err::write(folder.join("notes.txt"), "a red square").unwrap();
    fs_err::write(folder.join("broken.png"), "<html>").unwrap();
    let fixture = Fixture::new();
    let first = fixture.index(&folder, &path).unwrap();
    assert_eq!((first.items, first.encoded, first.kept), (5, 5, 0));
    assert_eq!(first.skipped[0].name, "broken.png");
    assert_eq!(first.skipped[0].reason, "not a JPEG, PNG, GIF, BMP or WebP file");
    assert_eq!(names(&path), ["a.bmp", "b.bmp", "d.bmp", "e.bmp", "sub/c.BMP"]);
    assert_eq!(fixture.encoder.images.get(), 5);

    let original = fs_err::read(&path).unwrap();
    // One image is changed, one removed, one added, and the broken one is replaced.
    write_image(&folder.join("b.bmp"), 99);
    let before = std::time::SystemTime::UNIX_EPOCH;
    fs_err::File::options().write(true).open(folder.join("b.bmp")).unwrap().file().set_modified(before).unwrap();
    fs_err::remove_file(folder.join("d.bmp")).unwrap();
    write_image(&folder.join("aa.bmp"), 200);
    write_image(&folder.join("broken.png"), 30);
    let second = fixture.index(&folder, &path).unwrap();
    assert_eq!(second, IndexSummary { items: 6, encoded: 3, kept: 3, ..IndexSummary::default() });
    assert_eq!(fixture.encoder.images.get(), 8);
    assert_eq!(names(&path), ["a.bmp", "e.bmp", "sub/c.BMP", "aa.bmp", "b.bmp", "broken.png"]);
    // The file grows, and the items that stay are as computed anew.
    assert!(fs_err::read(&path).unwrap().starts_with(&original));
    fixture.index(&folder, &fresh).unwrap();
    let [grown, computed] = [&path, &fresh].map(|path| Index::open(path).unwrap());
    let by_name = |index: &Index| {
        let item =
            |number| (index.item(number).unwrap().name, (index.item(number).unwrap(), index.stored(number).unwrap()));
        index.numbers().map(item).collect::<std::collections::BTreeMap<_, _>>()
    };
    assert_eq!(by_name(&grown), by_name(&computed));

    // A file of which more than half would be removed items is written anew.
    for name in ["aa.bmp", "b.bmp", "broken.png"] {
        fs_err::remove_file(folder.join(name)).unwrap();
    }
    let less = fixture.index(&folder, &path).unwrap();
    assert_eq!(less, IndexSummary { items: 3, encoded: 0, kept: 3, ..IndexSummary::default() });
    fs_err::remove_file(&fresh).unwrap();
    fixture.index(&folder, &fresh).unwrap();
    assert!(fs_err::read(&path).unwrap() == fs_err::read(&fresh).unwrap());
    fixture.encoder.images.set(8);

    let written = fs_err::metadata(&path).unwrap().modified().unwrap();
    let third = fixture.index(&folder, &path).unwrap();
    assert_eq!((third.encoded, third.kept), (0, 3));
    assert_eq!(fs_err::metadata(&path).unwrap().modified().unwrap(), written, "the file is not rewritten");

    // Another engine computes other embeddings.
    let mut other = description(IndexKind::Images, IndexPrecision::Half);
    other.model.engine = "int8".to_owned();
    let listed = ImageFolder::list(&folder, &Exclusions::default()).unwrap();
    let fourth = index_images(&listed, &path, other, &fixture.pipeline(&|_| ()), &|_| ()).unwrap();
    assert_eq!((fourth.encoded, fourth.kept), (3, 0));
}

#[test]
fn invalid_input_and_foreign_indexes_are_rejected() {
    let root = tempfile::tempdir().unwrap();
    let [folder, path] = ["photos", "photos.index"].map(|name| root.path().join(name));
    fs_err::create_dir(&folder).unwrap();
    fs_err::write(folder.join("notes.txt"), "a red square").unwrap();
    let fixture = Fixture::new();
    let error = fixture.index(&folder, &path).unwrap_err();
    assert!(matches!(&error, Error::Search(SearchError::Empty { found, .. }) if found == "1 other files"), "{error:?}");
    fs_err::write(folder.join("broken.png"), "").unwrap();
    let error = fixture.index(&folder, &path).unwrap_err();
    assert!(matches!(&error, Error::Search(SearchError::Unusable { count: 1, .. })), "{error:?}");
    assert!(!path.exists());

    write_image(&folder.join("a.bmp"), 10);
    fixture.index(&folder, &path).unwrap();
    let whole = fs_err::read(&path).unwrap();
    let mut other = description(IndexKind::Images, IndexPrecision::Half);
    other.model.checkpoint_sha256 = "c".repeat(64);
    let listed = ImageFolder::list(&folder, &Exclusions::default()).unwrap();
    let error = index_images(&listed, &path, other, &fixture.pipeline(&|_| ()), &|_| ()).unwrap_err();
    assert!(matches!(&error, Error::Search(SearchError::OtherModel { what: "checkpoint", .. })), "{error:?}");
    let words = lines(&["a red square".to_owned()]);
    let captions = description(IndexKind::Captions, IndexPrecision::Half);
    let error = index_captions(&words, &folder, &path, captions, &fixture.pipeline(&|_| ()), &|_| ()).unwrap_err();
    assert!(matches!(&error, Error::Search(SearchError::Kind { found: IndexKind::Images, .. })), "{error:?}");
    assert!(fs_err::read(&path).unwrap() == whole);
}

/// A stopped run leaves the previous index, or none, and no partial file.
#[test]
fn stopped_indexing_keeps_the_previous_index() {
    let root = tempfile::tempdir().unwrap();
    let [folder, path] = ["photos", "photos.index"].map(|name| root.path().join(name));
    for red in 0..7 {
        write_image(&folder.join(format!("{red}.bmp")), red);
    }
    let fixture = Fixture::new();
    let stopped = || {
        fixture.stop.store(false, Ordering::Relaxed);
        let stop = |_| fixture.stop.store(true, Ordering::Relaxed);
        let whole = description(IndexKind::Images, IndexPrecision::Half);
        let listed = ImageFolder::list(&folder, &Exclusions::default()).unwrap();
        let error = index_images(&listed, &path, whole, &fixture.pipeline(&stop), &|_| ()).unwrap_err();
        assert!(matches!(error, Error::Search(SearchError::Interrupted { .. })), "{error:?}");
        fixture.stop.store(false, Ordering::Relaxed);
    };
    stopped();
    assert_eq!(fs_err::read_dir(root.path()).unwrap().count(), 1, "only the image folder");
    fixture.index(&folder, &path).unwrap();
    let old = fs_err::read(&path).unwrap();
    write_image(&folder.join("7.bmp"), 7);
    stopped();
    assert!(fs_err::read(&path).unwrap() == old);
    assert_eq!(fs_err::read_dir(root.path()).unwrap().count(), 2);
}

#[test]
fn captions_are_encoded_by_length_and_stored_in_order() {
    let root = tempfile::tempdir().unwrap();
    let [path, npy] = ["captions.index", "captions.npy"].map(|name| root.path().join(name));
    let captions: Vec<String> = [
        "a red square",
        "a circle",
        "a small red circle to the left of a large blue square",
        "star",
        "a green star",
        "square",
    ]
    .map(str::to_owned)
    .to_vec();
    let fixture = Fixture::new();
    let whole = description(IndexKind::Captions, IndexPrecision::Single);
    let summary = index_captions(&lines(&captions), &path, &path, whole, &fixture.pipeline(&|_| ()), &|_| ()).unwrap();
    assert_eq!((summary.items, summary.encoded), (6, 6));
    assert_eq!(names(&path), captions);
    assert_eq!(*fixture.encoder.batches.borrow(), [vec![3, 3, 4], vec![5, 5, 14]]);
    let index = Index::open(&path).unwrap();
    let one = fixture.pipeline(&|_| ()).encode_captions(&captions[2..3]).unwrap();
    assert_eq!(index.embeddings(&[2]).unwrap()[0].values(), one[0].values());

    let model = &index.description().model;
    let (format, granularity) = (EmbeddingFormat::Numpy, EmbeddingGranularity::Tokens);
    let pipeline = fixture.pipeline(&|_| ());
    let embedded = embed_captions(captions, &npy, format, granularity, model, &pipeline).unwrap();
    assert_eq!((&embedded.shape[..], &embedded.lengths[..]), (&[6, 14, 16][..], &[5, 4, 14, 3, 5, 3][..]));
    let bytes = fs_err::read(&npy).unwrap();
    assert_eq!(bytes.len(), 128 + 4 * 6 * 14 * 16);
    // Padding is zeros.
    assert!(bytes[128 + 4 * 5 * 16..128 + 4 * 14 * 16].iter().all(|&byte| byte == 0));
}
