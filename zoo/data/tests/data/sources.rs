//! Every layout of the same data gives the same items and the same hash; hostile files are refused.

use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use laps_data::{
    DataError, Split, hash_data,
    scenes::{self, DrawnConfig},
    sources::{ImageTransfer, Imported, KnownIds, Source, SourceKind, import, traps, unpack_images},
};
use tempfile::TempDir;

use crate::tar_header::tar_header;

/// The drawn data set of the files in the repository.
const SMALL: DrawnConfig = DrawnConfig { seed: 7, train: 1, dev: 1, test: 2 };
const SPLITS: [&str; 3] = ["train", "dev", "test"];

fn draw(config: &DrawnConfig) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("laps");
    scenes::write(&root, config, &scenes::DrawnSplit::ALL).unwrap();
    (folder, root)
}

fn committed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sources/files")
}

/// Imports a source and compares ids, names, captions, order and data hash with the LAPS layout in `laps`.
fn check(source: &Source, laps: &Path) -> Imported {
    let folder = tempfile::tempdir().unwrap();
    let imported = import(source, folder.path(), ImageTransfer::Keep).unwrap();
    let images = if imported.has_images { folder.path().join("images") } else { source.images.clone() };
    for name in SPLITS {
        let expected = Split::open(&laps.join("captions"), name).unwrap();
        let found = Split::open(&folder.path().join("captions"), name).unwrap();
        let images_of = |split: &Split| -> Vec<(String, String, usize)> {
            split.images().iter().map(|image| (image.id.clone(), image.name.clone(), image.line.line)).collect()
        };
        assert_eq!(images_of(&found), images_of(&expected), "{source:?} {name}");
        assert_eq!(found.captions(), expected.captions(), "{source:?} {name}");
        assert_eq!(found.image_of(), expected.image_of(), "{source:?} {name}");
        let hash = |split: &Split, images: &Path| hash_data(split, images, 1, || ()).unwrap();
        assert_eq!(hash(&found, &images), hash(&expected, &laps.join("images")), "{source:?} {name}");
    }
    imported
}

/// The layouts below `root`, with the image folder of those that need one, and whether a list of splits is needed.
fn layouts() -> Vec<(SourceKind, &'static str, bool)> {
    vec![
        (SourceKind::Karpathy, "karpathy", false),
        (SourceKind::Coco, "coco", false),
        (SourceKind::Parquet, "parquet_snappy", false),
        (SourceKind::Parquet, "parquet_zstd", false),
        (SourceKind::Parquet, "parquet_gzip", false),
        (SourceKind::Parquet, "parquet_paths", false),
        (SourceKind::Parquet, "parquet_rows", false),
        (SourceKind::Parquet, "hub", false),
        (SourceKind::Kaggle, "kaggle", true),
        (SourceKind::Webdataset, "webdataset", false),
        (SourceKind::Webdataset, "tar_texts", true),
        (SourceKind::Folder, "folder", true),
    ]
}

#[test]
fn committed_files_of_every_package_give_the_same_data() {
    let (_folder, laps) = draw(&SMALL);
    let root = committed();
    for (kind, name, listed) in layouts().into_iter().filter(|&(kind, ..)| kind != SourceKind::Folder) {
        let list = root.join("karpathy/dataset_flickr30k.json");
        let images = laps.join("images");
        let source = Source::below(kind, &root.join(name), &[], Some(&images), listed.then_some(&list)).unwrap();
        assert_eq!(check(&source, &laps).notes, [""; 0], "{name}");
    }
}

#[test]
fn generated_files_of_every_package_give_the_same_data() {
    let venv = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.runtime/sources");
    if !venv.join("installed").is_file() {
        println!("skipped: there is no `{}`; `.ci/run sources` makes it", venv.display());
        return;
    }
    let (folder, laps) = draw(&DrawnConfig { seed: 3, train: 4, dev: 4, test: 12 });
    let root = folder.path().join("other");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sources/make.py");
    let made = Command::new(venv.join("bin/python")).arg(script).args([&laps, &root]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    for (kind, name, listed) in layouts() {
        let list = root.join("karpathy/dataset_flickr30k.json");
        // The usual names of files and of the image folder are found.
        let source = Source::below(kind, &root.join(name), &[], None, listed.then_some(&list)).unwrap();
        check(&source, &laps);
        let before = source.identity().unwrap();
        assert_eq!(source.identity().unwrap(), before);
    }
    let source = Source::below(SourceKind::Karpathy, &root.join("karpathy"), &[], None, None).unwrap();
    for transfer in [ImageTransfer::Link, ImageTransfer::Copy] {
        let out = folder.path().join(format!("{transfer:?}"));
        assert!(import(&source, &out, transfer).unwrap().has_images);
        let name = Split::open(&out.join("captions"), "test").unwrap().images()[0].name.clone();
        assert_eq!(out.join("images").join(&name).is_symlink(), transfer == ImageTransfer::Link);
        assert_eq!(
            std::fs::read(out.join("images").join(&name)).unwrap(),
            std::fs::read(laps.join("images").join(&name)).unwrap()
        );
    }
}

#[test]
fn files_are_a_path_a_glob_or_a_list() {
    let (_folder, laps) = draw(&SMALL);
    let root = committed().join("parquet_snappy");
    let below = |files: &[&str]| {
        let files: Vec<String> = files.iter().map(|&file| file.to_owned()).collect();
        Source::below(SourceKind::Parquet, &root, &files, None, None)
    };
    let all = below(&["data/*.parquet"]).unwrap();
    assert_eq!(all.files.len(), 2);
    check(&all, &laps);
    check(&below(&["data/TEST-00000-of-00002.parquet", "data/TEST-00001-of-00002.parquet"]).unwrap(), &laps);
    assert_eq!(below(&["data/TEST-00001*"]).unwrap().files, [root.join("data/TEST-00001-of-00002.parquet")]);
    let error = below(&["none/*.parquet"]).unwrap_err().to_string();
    assert!(
        error.ends_with("has no files of the layout `parquet`\n  expected: `none/*.parquet`\n  found: no such file"),
        "{error}"
    );
}

/// Karpathy's JSON with `images`: split, id, name and number of captions.
fn karpathy(images: &[(&str, usize, &str, usize)]) -> (TempDir, Source) {
    let folder = tempfile::tempdir().unwrap();
    let image = |&(split, id, name, captions): &(&str, usize, &str, usize)| {
        let sentences: Vec<String> = (0..captions).map(|k| format!("{{\"raw\": \"caption {k} of {id}\"}}")).collect();
        format!(
            "{{\"split\": \"{split}\", \"cocoid\": {id}, \"filename\": \"{name}\", \"filepath\": \"val2014\", \
             \"sentences\": [{}]}}",
            sentences.join(", ")
        )
    };
    let images: Vec<String> = images.iter().map(image).collect();
    std::fs::write(folder.path().join("dataset.json"), format!("{{\"images\": [{}]}}", images.join(", "))).unwrap();
    let source = Source::below(SourceKind::Karpathy, folder.path(), &[], None, None).unwrap();
    (folder, source)
}

fn imported(source: &Source) -> (TempDir, Imported) {
    let out = tempfile::tempdir().unwrap();
    let imported = import(source, out.path(), ImageTransfer::Keep).unwrap();
    (out, imported)
}

#[test]
fn restval_is_training_and_names_have_the_folder() {
    let (_folder, source) = karpathy(&[("restval", 9, "b.jpg", 5), ("val", 3, "a.jpg", 5), ("test", 4, "c.jpg", 5)]);
    let (out, imported) = imported(&source);
    assert_eq!(imported.splits.keys().collect::<Vec<_>>(), ["dev", "test", "train"]);
    let split = Split::open(&out.path().join("captions"), "train").unwrap();
    assert_eq!((split.images()[0].id.as_str(), split.images()[0].name.as_str()), ("9", "val2014/b.jpg"));
}

#[test]
fn sixth_captions_are_left_out_and_four_are_named() {
    let (_folder, mut source) =
        karpathy(&[("test", 1, "a.jpg", 5), ("test", 2, "b.jpg", 7), ("test", 3, "c.jpg", 5), ("test", 4, "d.jpg", 4)]);
    let (out, taken) = imported(&source);
    insta::assert_snapshot!(taken.notes.join("\n"), @"images with more than 5 captions: 1; further captions, which are left out as in the published protocols: 2");
    assert_eq!(taken.dropped_captions, BTreeMap::from([("test".to_owned(), 2)]));
    let split = |out: &TempDir| Split::open(&out.path().join("captions"), "test").unwrap();
    insta::assert_snapshot!(traps(&split(&out), &Default::default()).join("\n"), @"images with 4 instead of 5 captions: 1");
    source.max_captions = 9.try_into().unwrap();
    let (out, all) = imported(&source);
    assert_eq!((all.splits["test"].captions, all.notes.len()), (21, 0));
    insta::assert_snapshot!(traps(&split(&out), &Default::default()).join("\n"), @r"
    images with 4 instead of 5 captions: 1
    images with 7 instead of 5 captions: 1
    ");
}

#[test]
fn known_images_in_another_order_are_named() {
    let (_folder, source) = karpathy(&[("test", 1, "a.jpg", 5), ("test", 20, "b.jpg", 5), ("test", 3, "c.jpg", 5)]);
    let (out, _) = imported(&source);
    let split = Split::open(&out.path().join("captions"), "test").unwrap();
    let mut ids = KnownIds { id_file_sha256: None, ..KnownIds::of(&split, 1) };
    let mut known = std::collections::BTreeMap::new();
    known.insert("coco".to_owned(), [("testall".to_owned(), ids.clone())].into());
    insta::assert_snapshot!(traps(&split, &known).join("\n"), @"the images are those of `coco` `testall`, in the published order");
    ids.ordered_ids_sha256 = Some("another".to_owned());
    known.insert("coco".to_owned(), [("testall".to_owned(), ids)].into());
    insta::assert_snapshot!(traps(&split, &known).join("\n"), @"the images are those of `coco` `testall`, in another order: the folds of `coco_1k` have other images");
}

#[test]
fn known_images_are_recognised_by_the_authors_file_of_ids() {
    let (_folder, source) = karpathy(&[("test", 1, "a.jpg", 5), ("test", 20, "b.jpg", 5)]);
    let (out, _) = imported(&source);
    let split = Split::open(&out.path().join("captions"), "test").unwrap();
    for (file, note) in [
        ("1\n1\n1\n1\n1\n20\n20\n20\n20\n20\n", "the images are those of `f30k` `test`, in the published order"),
        ("1\n20\n", "the images are those of `f30k` `test`, in the published order"),
        ("20\n1\n", ""),
    ] {
        let ids = KnownIds { id_file_sha256: Some(laps_files::sha256_hex(file.as_bytes())), ..KnownIds::default() };
        let known = [("f30k".to_owned(), [("test".to_owned(), ids)].into())].into();
        assert_eq!(traps(&split, &known).join("\n"), note, "{file}");
    }
}

#[test]
fn sizes_of_coco_and_of_a_whole_set_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let write = |images: usize, captions: &dyn Fn(usize) -> usize| {
        let rows: Vec<(String, usize)> = (0..images).map(|id| (format!("{id}.jpg"), captions(id))).collect();
        let ids: String = rows.iter().enumerate().map(|(id, &(_, count))| format!("{id}\n").repeat(count)).collect();
        let texts: String = rows.iter().enumerate().map(|(id, &(_, count))| format!("c{id}\n").repeat(count)).collect();
        let mapping: std::collections::BTreeMap<String, String> =
            rows.into_iter().enumerate().map(|(id, (name, _))| (id.to_string(), name)).collect();
        std::fs::write(folder.path().join("t_ids.txt"), ids).unwrap();
        std::fs::write(folder.path().join("t_caps.txt"), texts).unwrap();
        std::fs::write(folder.path().join("id_mapping.json"), serde_json::to_string(&mapping).unwrap()).unwrap();
        traps(&Split::open(folder.path(), "t").unwrap(), &Default::default()).join("\n")
    };
    insta::assert_snapshot!(write(5000, &|id| if id < 191 { 4 } else { 5 }), @r"
    images with 4 instead of 5 captions: 191
    24,809 captions instead of the 25,000 of the published protocol: captions are missing, as in copies without repeated texts, and recalls cannot be compared
    ");
    insta::assert_snapshot!(write(5000, &|id| if id < 10 { 6 } else { 5 }), @r"
    images with 6 instead of 5 captions: 10
    25,010 captions instead of the 25,000 of the published protocol: all captions are there, also the sixth and seventh ones of some images, and recalls cannot be compared
    ");
    assert_eq!(write(5000, &|_| 5), "");
    let images: Vec<(String, usize)> = (0..31_014).map(|id| (format!("{id}.jpg"), 1)).collect();
    let images: Vec<(&str, usize, &str, usize)> =
        images.iter().enumerate().map(|(id, (name, captions))| ("test", id, name.as_str(), *captions)).collect();
    let (_folder, source) = karpathy(&images);
    insta::assert_snapshot!(imported(&source).1.notes.join("\n"), @"all 31014 images are in the split `test`: they are the training, validation and test images of Flickr30K, and recalls in all of them cannot be compared with published ones; give a list of splits");
}

#[test]
fn list_of_text_files_says_split_and_order() {
    let (folder, mut source) = karpathy(&[("test", 1, "a.jpg", 1), ("test", 20, "b.jpg", 1), ("test", 3, "c.jpg", 1)]);
    let list = folder.path().join("splits");
    std::fs::create_dir(&list).unwrap();
    std::fs::write(list.join("val.txt"), "c.jpg\n1\nmissing.jpg\n").unwrap();
    source.splits = Some(list);
    let (out, imported) = imported(&source);
    let split = Split::open(&out.path().join("captions"), "dev").unwrap();
    let ids: Vec<&str> = split.images().iter().map(|image| image.id.as_str()).collect();
    assert_eq!(ids, ["3", "1"]);
    insta::assert_snapshot!(imported.notes.join("\n"), @r"
    images that are not in the list of splits and are left out: 1
    images of the list of splits that are not in the data: 1
    ");
}

fn write_files(folder: &Path, files: &[(&str, &[u8])]) {
    for (name, bytes) in files {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

/// Name of a split, ids with the names of their images, and captions.
type SplitContents = (String, Vec<(String, String)>, Vec<String>);

/// The splits of `files`, which are in the layout `kind`.
fn read_layout(kind: SourceKind, files: &[(&str, &[u8])]) -> Vec<SplitContents> {
    let folder = tempfile::tempdir().unwrap();
    write_files(folder.path(), files);
    let source = Source::below(kind, folder.path(), &[], None, None).unwrap();
    let (out, imported) = imported(&source);
    let read = |name: &String| {
        let split = Split::open(&out.path().join("captions"), name).unwrap();
        for image in split.images() {
            assert!(source.images.join(&image.name).is_file(), "{image:?}");
        }
        let images = split.images().iter().map(|image| (image.id.clone(), image.name.clone())).collect();
        (name.clone(), images, split.captions().to_vec())
    };
    imported.splits.keys().map(read).collect()
}

#[cfg(unix)]
#[test]
fn files_whose_names_are_not_utf8_are_counted_and_named() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

    let folder = tempfile::tempdir().unwrap();
    write_files(folder.path(), &[("a.jpg", b"x"), ("a.txt", b"A square.")]);
    for name in [&b"\xffb.jpg"[..], b"\xffb.txt"] {
        std::fs::write(folder.path().join(OsStr::from_bytes(name)), "x").unwrap();
    }
    let (_out, found) = imported(&Source::below(SourceKind::Folder, folder.path(), &[], None, None).unwrap());
    assert_eq!(found.splits["test"].images, 1);
    assert_eq!(found.notes[0], r"files whose names are not UTF-8, which are left out: 2: `\xffb.jpg`, `\xffb.txt`");
    // As the file of a source, such a name is like any other.
    let archives = [&b"test-\xff.tar"[..], b"train-\xfe.tar"].map(|name| folder.path().join(OsStr::from_bytes(name)));
    for archive in &archives {
        let members = tar(&[("a.jpg", b'0', 1, b"x"), ("a.txt", b'0', 9, b"A square.")], true);
        std::fs::write(archive, members).unwrap();
    }
    let source = Source::below(SourceKind::Webdataset, folder.path(), &[], None, None).unwrap();
    assert_eq!(source.files, archives);
    let source = Source::below(SourceKind::Webdataset, &archives[0], &[], None, None).unwrap();
    assert_eq!(imported(&source).1.splits.keys().collect::<Vec<_>>(), ["test"]);
}

fn texts(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|&(one, other)| (one.to_owned(), other.to_owned())).collect()
}

#[test]
fn docci_has_the_splits_of_its_file() {
    let lines = concat!(
        r#"{"split": "test", "type": "Test", "description": "A long text.\nOf two lines.", "image_file": "test_00000.jpg", "example_id": "test_00000"}"#,
        "\n",
        r#"{"split": "qual_dev", "type": "Qual", "description": "Another text.", "image_file": "qual_dev_00001.jpg", "example_id": "qual_dev_00001"}"#,
        "\n",
    );
    let images = [("images/test_00000.jpg", &b"x"[..]), ("images/qual_dev_00001.jpg", b"x")];
    let files = [("docci_descriptions.jsonlines", lines.as_bytes()), images[0], images[1]];
    assert_eq!(
        read_layout(SourceKind::Docci, &files),
        [
            (
                "qual_dev".to_owned(),
                texts(&[("qual_dev_00001", "qual_dev_00001.jpg")]),
                vec!["Another text.".to_owned()]
            ),
            (
                "test".to_owned(),
                texts(&[("test_00000", "test_00000.jpg")]),
                vec!["A long text. Of two lines.".to_owned()],
            ),
        ]
    );
    insta::assert_snapshot!(refusal(SourceKind::Docci, &[("docci_descriptions.jsonlines", b"{\"split\": \"test\"}")]), @r"
    `DATA/docci_descriptions.jsonlines` cannot be used
      expected: an object with `example_id`, `split`, `image_file` and `description` in line 1
      found: missing field `example_id` at line 1 column 17
    ");
}

#[test]
fn urban1k_is_in_the_order_of_its_numbers() {
    let files = [
        ("image/10.jpg", &b"x"[..]),
        ("image/9.jpg", b"x"),
        ("caption/10.txt", b"A street.\n\nWith cars.\n"),
        ("caption/9.txt", b"A square."),
    ];
    let expected = ["A square.".to_owned(), "A street. With cars.".to_owned()];
    assert_eq!(
        read_layout(SourceKind::Urban1k, &files),
        [("test".to_owned(), texts(&[("9", "9.jpg"), ("10", "10.jpg")]), expected.to_vec())]
    );
    let text = refusal(SourceKind::Urban1k, &files[1..]);
    assert!(text.contains("expected: an image `10` in `DATA/image`"), "{text}");
    let text = refusal(SourceKind::Urban1k, &[files[0], files[1], files[2]]);
    assert!(text.contains("expected: a caption `9.txt` of the image"), "{text}");
}

#[test]
fn dci_has_the_short_and_the_extra_caption_and_its_list_of_splits() {
    let annotation = |image: &str| {
        format!(
            "{{\"image\": \"{image}\", \"short_caption\": \"Short.\", \"extra_caption\": \"Long {image}.\", \"mask_data\": {{}}}}"
        )
    };
    let [one, other] = ["sa_1.jpg", "sa_2.jpg"].map(annotation);
    let list = br#"{"train": [], "valid": ["b.json"], "test": ["a.json"]}"#;
    let files = [
        ("densely_captioned_images/annotations/a.json", one.as_bytes()),
        ("densely_captioned_images/annotations/b.json", other.as_bytes()),
        ("densely_captioned_images/photos/sa_1.jpg", b"x"),
        ("densely_captioned_images/photos/sa_2.jpg", b"x"),
        ("densely_captioned_images/splits.json", list),
    ];
    assert_eq!(
        read_layout(SourceKind::Dci, &files),
        [
            ("dev".to_owned(), texts(&[("sa_2", "sa_2.jpg")]), vec!["Short. Long sa_2.jpg.".to_owned()]),
            ("test".to_owned(), texts(&[("sa_1", "sa_1.jpg")]), vec!["Short. Long sa_1.jpg.".to_owned()]),
        ]
    );
    let both = texts(&[("sa_1", "sa_1.jpg"), ("sa_2", "sa_2.jpg")]);
    assert_eq!(read_layout(SourceKind::Dci, &files[..4])[0].1, both);
    let mut unlisted = files;
    unlisted[4].1 = br#"{"test": ["a.json"]}"#;
    assert!(refusal(SourceKind::Dci, &unlisted).contains("found: no `b.json`"));
    unlisted[4].1 = br#"{"test": ["a.json", "b.json", "../c.json"]}"#;
    assert!(refusal(SourceKind::Dci, &unlisted).contains("found: `../c.json`"));
}

/// The file has 1.2 million items, of which the first 1,000 are evaluated.
#[test]
fn sharegpt4v_is_read_to_its_thousandth_item() {
    let item = |number: usize| {
        format!(
            "{{\"id\": \"{number}\", \"image\": \"coco/train2017/{number}.jpg\", \"conversations\": [{{\"from\": \"human\", \
             \"value\": \"<image>\"}}, {{\"from\": \"gpt\", \"value\": \"Text {number}.\"}}]}}"
        )
    };
    let folder = tempfile::tempdir().unwrap();
    let items: Vec<String> = (0..1000).map(item).collect();
    // What comes after is not parsed.
    let text = format!("[{}, {{\"image\": 7", items.join(", "));
    let name = "share-captioner_coco_lcs_sam_1246k_1107.json";
    write_files(folder.path(), &[(name, text.as_bytes())]);
    let source = Source::below(SourceKind::Sharegpt4v, folder.path(), &[], None, None).unwrap();
    let (out, _) = imported(&source);
    let split = Split::open(&out.path().join("captions"), "test").unwrap();
    assert_eq!((split.images().len(), split.captions().len()), (1000, 1000));
    let last = split.images().last().unwrap();
    assert_eq!((last.id.as_str(), last.name.as_str()), ("coco/train2017/999", "coco/train2017/999.jpg"));
    assert_eq!(split.captions()[999], "Text 999.");
    assert_eq!(source.images, folder.path());
    write_files(folder.path(), &[(name, ["\u{feff}", &text].concat().as_bytes())]);
    assert_eq!(imported(&source).1.splits["test"].images, 1000);
    let text = refusal(SourceKind::Sharegpt4v, &[(name, b"[{\"image\": \"a.jpg\", \"conversations\": []}]")]);
    assert!(text.contains("expected: a caption as the second of `conversations` of item 0"), "{text}");
    assert!(refusal(SourceKind::Sharegpt4v, &[(name, b"[{\"image\": 7")]).contains("`image` and `conversations`"));
}

fn refusal(kind: SourceKind, files: &[(&str, &[u8])]) -> String {
    let folder = tempfile::tempdir().unwrap();
    write_files(folder.path(), files);
    let out = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    let error = Source::below(kind, &root, &[], None, None)
        .and_then(|source| import(&source, out.path(), ImageTransfer::Keep))
        .unwrap_err();
    assert!(matches!(error, DataError::Content { .. }), "{error}");
    error.to_string().replace(&root.display().to_string(), "DATA")
}

/// A tar file with members of these names, types, claimed sizes and contents.
fn tar(members: &[(&str, u8, u64, &[u8])], end: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    for &(name, kind, size, content) in members {
        bytes.write_all(&tar_header(name, kind, size)).unwrap();
        bytes.write_all(content).unwrap();
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    if end {
        bytes.resize(bytes.len() + 1024, 0);
    }
    bytes
}

#[test]
fn byte_order_mark_in_a_member_is_not_content() {
    let texts = ["\u{feff}{\"id\": 7}", "\u{feff}A square."];
    let [json, text] = texts.map(str::as_bytes);
    let members: [(&str, u8, u64, &[u8]); 3] =
        [("a.jpg", b'0', 1, b"x"), ("a.json", b'0', json.len() as u64, json), ("a.txt", b'0', text.len() as u64, text)];
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("test.tar"), tar(&members, true)).unwrap();
    let (out, _) = imported(&Source::below(SourceKind::Webdataset, folder.path(), &[], None, None).unwrap());
    let split = Split::open(&out.path().join("captions"), "test").unwrap();
    assert_eq!((split.images()[0].id.as_str(), split.captions()), ("7", &["A square.".to_owned()][..]));
}

#[test]
fn hostile_tar_files_are_refused() {
    let good: [(&str, u8, u64, &[u8]); 2] = [("a.png", b'0', 3, b"abc"), ("a.txt", b'0', 2, b"hi")];
    let refused = |bytes: Vec<u8>| refusal(SourceKind::Webdataset, &[("x.tar", &bytes)]);
    let member =
        |name: &str| refused(tar(&[(name, b'0', 3, b"abc"), (&name.replace("png", "txt"), b'0', 2, b"hi")], true));
    insta::assert_snapshot!(member("../a.png"), @r"
    `DATA/x.tar` cannot be used
      expected: a name inside the image folder in sample `../a`
      found: `../a.png`
    ");
    insta::assert_snapshot!(member("/etc/a.png"), @r"
    `DATA/x.tar` cannot be used
      expected: a name inside the image folder in sample `/etc/a`
      found: `/etc/a.png`
    ");
    insta::assert_snapshot!(refused(tar(&[("a.png", b'0', 1 << 32, b"abc")], true)), @r"
    `DATA/x.tar` cannot be used
      expected: at most 268435456 bytes in `a.png`
      found: 4294967296 bytes
    ");
    insta::assert_snapshot!(refused(tar(&[("././@LongLink", b'L', 1 << 32, b"abc")], true)), @r"
    `DATA/x.tar` cannot be used
      expected: at most 1048576 bytes in `a long name`
      found: 4294967296 bytes
    ");
    insta::assert_snapshot!(refused(tar(&[("pax", b'x', 18, b"18 size=999999999\n"), good[0]], true)), @r"
    `DATA/x.tar` cannot be used
      expected: regular files
      found: a member with `size` in an extended header
    ");
    insta::assert_snapshot!(refused(tar(&[("a.png", b'S', 3, b"abc")], true)), @r"
    `DATA/x.tar` cannot be used
      expected: regular files
      found: `a.png`, a link, device or sparse file
    ");
    insta::assert_snapshot!(refused(tar(&[("a.png", b'2', 0, b"")], true)), @r"
    `DATA/x.tar` cannot be used
      expected: regular files
      found: `a.png`, a link, device or sparse file
    ");
    insta::assert_snapshot!(refused(tar(&good, false)), @r"
    `DATA/x.tar` cannot be used
      expected: a complete tar file
      found: no end-of-archive marker: it is cut
    ");
    insta::assert_snapshot!(refused(tar(&good[..1], true)), @r"
    `DATA/x.tar` cannot be used
      expected: captions (`.txt`, or `caption` in `.json`) with the key `a`
      found: none
    ");
    insta::assert_snapshot!(refused(b"\x1f\x8b\x08".to_vec()), @r"
    `DATA/x.tar` cannot be used
      expected: an uncompressed tar file
      found: a gzip file
    ");
    let whole = tar(&good, true);
    for length in 0..1600 {
        // Whatever is cut off the members is noticed.
        refused(whole[..length].to_vec());
    }
}

#[test]
fn hostile_json_and_csv_are_refused() {
    let name = |name: &str| {
        let text = format!(
            "{{\"images\": [{{\"filename\": \"{name}\", \"imgid\": 1, \"sentences\": [{{\"raw\": \"x\"}}]}}]}}"
        );
        refusal(SourceKind::Karpathy, &[("d.json", text.as_bytes())])
    };
    insta::assert_snapshot!(name("../x.jpg"), @r"
    `DATA/d.json` cannot be used
      expected: a name inside the image folder in image 0
      found: `../x.jpg`
    ");
    name("/x.jpg");
    name("a\\nb.jpg");
    insta::assert_snapshot!(refusal(SourceKind::Karpathy, &[("d.json", b"{\"images\": [{\"id\": 1}]}")]), @r"
    `DATA/d.json` cannot be used
      expected: an object with `images`, each with `filename`, `split` and `sentences`
      found: missing field `filename` at line 1 column 21
    ");
    let orphan = br#"{"images": [], "annotations": [{"image_id": 7, "id": 1, "caption": "x"}]}"#;
    insta::assert_snapshot!(refusal(SourceKind::Coco, &[("captions_val2014.json", orphan)]), @r"
    `DATA/captions_val2014.json` cannot be used
      expected: an image for each annotation
      found: an annotation of image 7
    ");
    insta::assert_snapshot!(refusal(SourceKind::Kaggle, &[("results.csv", b"image,caption\na.jpg,x\n")]), @r"
    `DATA/results.csv` cannot be used
      expected: the header `image_name| comment_number| comment`
      found: `image,caption`
    ");
    let cut = b"image_name| comment_number| comment\na.jpg| 0| x\nb.j";
    insta::assert_snapshot!(refusal(SourceKind::Kaggle, &[("results.csv", cut)]), @r"
    `DATA/results.csv` cannot be used
      expected: `image_name| comment_number| comment` in line 3
      found: `b.j`
    ");
    insta::assert_snapshot!(refusal(SourceKind::Folder, &[("a.png", b"x")]), @r"
    `DATA/a.png` cannot be used
      expected: a file of captions `a.txt`
      found: none
    ");
}

#[test]
fn hostile_parquet_files_are_refused() {
    let refused = |bytes: &[u8]| refusal(SourceKind::Parquet, &[("x.parquet", bytes)]);
    let good = std::fs::read(committed().join("hub/test-00000-of-00001.parquet")).unwrap();
    insta::assert_snapshot!(refused(&good[..good.len() - 9]), @r"
    `DATA/x.parquet` cannot be used
      expected: a Parquet file, which ends with `PAR1`
      found: another or a cut file
    ");
    let mut footer = good.clone();
    let at = footer.len() - 8;
    footer[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    let error = refused(&footer);
    assert!(error.contains("found: 4294967295 bytes"), "{error}");
    // The start of the file is lost: the footer is as it was.
    let mut missing = good.clone();
    missing.drain(4..1000);
    refused(&missing);
    for (name, reason) in [
        ("rows", "expected: 1000000000 rows in the column"),
        ("page", "expected: pages of at most 536870912 bytes"),
        ("gzip", "expected: a page of"),
        ("schema", "expected: the columns `image` and `caption`"),
        ("names", "expected: a name inside the image folder in row 0"),
        ("captions", "expected: at most 1048576 bytes of captions in row 0\n  found: 524288000 bytes"),
        ("values", "expected: at most 1024 values of a row group of 1 rows in column `caption.list.element`"),
        ("batch", "expected: at most 32768 values of 32 rows in the column `caption.list.element`"),
        ("images", "expected: at most 16777216 bytes of images in a file of this size"),
    ] {
        let bytes = std::fs::read(committed().join("hostile").join(format!("{name}.parquet"))).unwrap();
        let error = refused(&bytes);
        assert!(error.contains(reason), "{name}: {error}");
    }
}

#[test]
fn images_that_fill_the_disk_are_not_unpacked() {
    let folder = tempfile::tempdir().unwrap();
    let error = unpack_images(&committed().join("hostile/images.parquet"), folder.path()).unwrap_err().to_string();
    assert!(error.contains("expected: at most 16777216 bytes of images in a file of this size"), "{error}");
    let written = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len());
    assert_eq!(written.sum::<u64>(), 16_777_216);
}

#[test]
fn rows_without_names_and_ids_are_images_of_their_own() {
    let source = Source::below(SourceKind::Parquet, &committed().join("parquet_bare"), &[], None, None).unwrap();
    let (out, found) = imported(&source);
    assert_eq!((found.splits["test"].images, found.splits["test"].captions), (2, 10));
    let split = Split::open(&out.path().join("captions"), "test").unwrap();
    let names: Vec<&str> = split.images().iter().map(|image| image.name.as_str()).collect();
    assert_eq!(names, ["row_0.png", "row_1.png"]);
}

/// Files with a few changed bytes are read or refused, and nothing else happens.
#[test]
fn damaged_files_are_read_or_refused() {
    let root = committed();
    let files = [
        (SourceKind::Parquet, "hub/test-00000-of-00001.parquet", "x.parquet"),
        (SourceKind::Parquet, "parquet_gzip/data/TEST-00000-of-00002.parquet", "x.parquet"),
        (SourceKind::Webdataset, "webdataset/test-000000.tar", "x.tar"),
        (SourceKind::Karpathy, "karpathy/dataset_flickr30k.json", "x.json"),
    ];
    let mut random = laps_model::random::SplitMix64::new(5);
    let (mut refused, mut read) = (0, 0);
    for (kind, from, name) in files {
        let good = std::fs::read(root.join(from)).unwrap();
        for round in 0..120 {
            let mut bytes = good.clone();
            for _ in 0..=round % 4 {
                // Half of the changes are in the last tenth, where the footer is.
                let range = if round % 2 == 0 { bytes.len() } else { bytes.len() / 10 };
                let at = bytes.len() - 1 - random.below(range);
                bytes[at] = random.below(256) as u8;
            }
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join(name), bytes).unwrap();
            let source = Source::below(kind, folder.path(), &[], None, None).unwrap();
            match import(&source, &folder.path().join("out"), ImageTransfer::Keep) {
                Ok(_) => read += 1,
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > 100 && read > 20, "{refused} {read}");
}
