//! Fuzzes the readers of data sets in other layouts; the first byte says which.
#![no_main]

use laps_data::sources::{ImageTransfer, Source, SourceKind, import};
use libfuzzer_sys::fuzz_target;

const FILES: [(SourceKind, &str); 8] = [
    (SourceKind::Parquet, "test.parquet"),
    (SourceKind::Webdataset, "test.tar"),
    (SourceKind::Karpathy, "dataset.json"),
    (SourceKind::Coco, "captions_val2014.json"),
    (SourceKind::Kaggle, "results.csv"),
    (SourceKind::Docci, "docci_descriptions.jsonlines"),
    (SourceKind::Sharegpt4v, "share-captioner_coco_lcs_sam_1246k_1107.json"),
    (SourceKind::Dci, "annotations/a.json"),
];

fuzz_target!(|bytes: &[u8]| {
    let Some((&first, content)) = bytes.split_first() else { return };
    let (kind, name) = FILES[usize::from(first) % FILES.len()];
    let folder = tempfile::tempdir_in("/dev/shm").expect("no /dev/shm");
    std::fs::create_dir(folder.path().join("annotations")).expect("no room in /dev/shm");
    std::fs::write(folder.path().join(name), content).expect("no room in /dev/shm");
    if let Ok(source) = Source::below(kind, folder.path(), &[], None, None) {
        let _ = import(&source, &folder.path().join("out"), ImageTransfer::Keep);
    }
});
