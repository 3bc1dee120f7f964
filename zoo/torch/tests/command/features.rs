//! Frozen backbones: their features are computed once and cached for the next run.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::{
    files::repository_file,
    support::{command, finished},
    training::{arguments, data, tensors},
};

const FROZEN: [&str; 4] = [
    "--set=train.freeze_backbones=true",
    "--set=train.image_augmentation=false",
    "--set=train.text_augmentation=false",
    "--set=train.epochs=1",
];

/// Trains the heads of a checkpoint with frozen backbones; the run folder is `name`.
fn train(folder: &TempDir, name: &str, checkpoint: &Path) -> PathBuf {
    let out = folder.path().join(name);
    let more = [&FROZEN[..], &["--checkpoint", checkpoint.to_str().unwrap()]].concat();
    let mut command = command();
    command.env("LAPS_ZOO_CACHE", folder.path().join("cache")).args(arguments(folder.path(), &out, &more));
    let run = finished(command.output().unwrap());
    assert_eq!(run.status, 0, "{}", run.stderr);
    for split in ["train", "dev"] {
        assert!(run.stderr.contains(&format!("note: features of split `{split}`: 1 MiB")), "{}", run.stderr);
    }
    out
}

/// The cached feature files, sorted by name.
fn kept(folder: &TempDir) -> Vec<PathBuf> {
    let files = fs_err::read_dir(folder.path().join("cache")).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<PathBuf> = files.collect();
    files.sort();
    assert!(files.iter().all(|path| path.extension().is_some_and(|kind| kind == "safetensors")), "{files:?}");
    files
}

#[test]
fn features_are_cached_and_backbones_do_not_change() {
    let folder = data();
    let checkpoint = repository_file("checkpoints/shapes_vit.safetensors");
    let first = train(&folder, "first", &checkpoint);
    let files = kept(&folder);
    assert_eq!(files.len(), 2, "{files:?}");
    let (before, after) = (tensors(&checkpoint), tensors(&first.join("last.safetensors")));
    for (name, bytes) in &before {
        let backbone = name.starts_with("img_enc.visual_encoder.") || name.starts_with("txt_enc.bert.");
        // Of the heads, the gradient of the bias of the group logits is rounding only.
        let moves = !backbone && name != "cross_net.aggr_net.weight.3.bias";
        assert!(!backbone || after[name] == *bytes, "`{name}` has moved");
        assert!(!moves || after[name] != *bytes, "`{name}` has not moved");
    }

    // A second run reads the cache and rewrites damaged files.
    let whole = fs_err::read(&files[1]).unwrap();
    let written = |path: &PathBuf| fs_err::metadata(path).unwrap().modified().unwrap();
    let times = [written(&files[0]), written(&files[1])];
    fs_err::write(&files[1], &whole[..whole.len() / 2]).unwrap();
    let second = train(&folder, "second", &checkpoint);
    assert_eq!(tensors(&second.join("last.safetensors")), after);
    assert_eq!((kept(&folder), written(&files[0])), (files.clone(), times[0]));
    assert!(fs_err::read(&files[1]).unwrap() == whole && written(&files[1]) > times[1]);

    // A changed image changes the features of its split only.
    let image = |index: usize| folder.path().join("images").join(format!("train_{index:05}.png"));
    fs_err::copy(image(0), image(1)).unwrap();
    train(&folder, "third", &checkpoint);
    assert_eq!(kept(&folder).len(), 3);
}
