//! Frozen backbones: their features are computed once and cached for the next run.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

use laps_data::scenes::{self, DrawnConfig, DrawnSplit};
use tempfile::TempDir;

use crate::{
    distributed::{finish, start_commands},
    files::repository_file,
    support::finished,
    training::{arguments, data, steps, tensors},
};

const FROZEN: [&str; 4] = [
    "--set=train.freeze_backbones=true",
    "--set=train.image_augmentation=false",
    "--set=train.text_augmentation=false",
    "--set=train.epochs=1",
];

/// Prepares a training of the heads of a checkpoint with frozen backbones; the run folder is `name`.
fn prepare(command: &mut Command, folder: &Path, name: &str, cache: &str) {
    let out = folder.join(name);
    let checkpoint = repository_file("checkpoints/shapes_vit.safetensors");
    let more = [&FROZEN[..], &["--checkpoint", checkpoint.to_str().unwrap()]].concat();
    command.env("LAPS_ZOO_CACHE", folder.join(cache)).args(arguments(folder, &out, &more));
}

/// Trains in one process.
fn train(folder: &TempDir, name: &str) -> PathBuf {
    let mut command = Command::new(crate::PROGRAM);
    prepare(&mut command, folder.path(), name, "cache");
    let run = finished(command.output().unwrap());
    assert_eq!(run.status, 0, "{}", run.stderr);
    for split in ["train", "dev"] {
        assert!(run.stderr.contains(&format!("note: features of split `{split}`: 1 MiB")), "{}", run.stderr);
    }
    folder.path().join(name)
}

/// The shards of each split, and when they were written.
fn shards(folder: &TempDir, cache: &str) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let mut shards = BTreeMap::new();
    let cache = folder.path().join(cache);
    for split in fs_err::read_dir(&cache).unwrap() {
        for file in fs_err::read_dir(split.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            let written = fs_err::metadata(&path).unwrap().modified().unwrap();
            shards.insert(path.strip_prefix(&cache).unwrap().to_owned(), (fs_err::read(&path).unwrap(), written));
        }
    }
    shards
}

#[test]
fn features_are_cached_and_backbones_do_not_change() {
    let folder = data();
    let first = train(&folder, "first");
    let before = shards(&folder, "cache");
    let names = before.keys().map(|path| path.file_name().unwrap().to_str().unwrap());
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    // 8 and 4 images, 40 and 20 captions: batches of 16.
    let expected =
        ["captions-00", "captions-00", "captions-01", "captions-01", "captions-02", "images-00", "images-00"];
    assert_eq!(names, expected.map(|name| format!("{name}.safetensors")));
    let after = tensors(&first.join("last.safetensors"));
    for (name, bytes) in &tensors(&repository_file("checkpoints/shapes_vit.safetensors")) {
        let backbone = name.starts_with("img_enc.visual_encoder.") || name.starts_with("txt_enc.bert.");
        // Of the heads, the gradient of the bias of the group logits is rounding only.
        let moves = !backbone && name != "cross_net.aggr_net.weight.3.bias";
        assert!(!backbone || after[name] == *bytes, "`{name}` has moved");
        assert!(!moves || after[name] != *bytes, "`{name}` has not moved");
    }

    // A second run reads the cache, and rewrites shards that are damaged or missing.
    let [damaged, removed] = [0, 3].map(|index| before.keys().nth(index).unwrap());
    let cached = |path: &Path| folder.path().join("cache").join(path);
    fs_err::write(cached(damaged), &before[damaged].0[..100]).unwrap();
    fs_err::remove_file(cached(removed)).unwrap();
    let second = train(&folder, "second");
    assert_eq!(tensors(&second.join("last.safetensors")), after);
    let again = shards(&folder, "cache");
    assert_eq!(again.len(), before.len());
    for (path, (bytes, written)) in &again {
        assert!(*bytes == before[path].0, "{}", path.display());
        assert_eq!(*written != before[path].1, path == damaged || path == removed, "{}", path.display());
    }

    // A changed image changes the features of its split only.
    let image = |index: usize| folder.path().join("images").join(format!("train_{index:05}.png"));
    fs_err::copy(image(0), image(1)).unwrap();
    train(&folder, "third");
    assert_eq!(fs_err::read_dir(folder.path().join("cache")).unwrap().count(), 3);

    let cache = |arguments: &[&str]| {
        let mut command = Command::new(crate::PROGRAM);
        command.env("LAPS_ZOO_CACHE", folder.path().join("cache")).arg("cache").args(arguments);
        finished(command.output().unwrap()).stdout
    };
    assert_eq!(cache(&["list"]).matches(" bytes, features of frozen backbones\n").count(), 3);
    assert_eq!(cache(&["prune"]), "nothing to delete\n");
    assert_eq!(cache(&["prune", "--features"]).matches(": features of frozen backbones\n").count(), 3);
    assert_eq!(fs_err::read_dir(folder.path().join("cache")).unwrap().count(), 0);
}

/// With a cache folder in common, and with one each as on two machines. 40 images are three shards.
#[test]
fn ranks_compute_the_shards_of_a_single_process() {
    let folder = tempfile::tempdir().unwrap();
    scenes::write(folder.path(), &DrawnConfig { seed: 7, train: 40, dev: 4, test: 4 }, &DrawnSplit::ALL).unwrap();
    let one = train(&folder, "one");
    let bytes = |cache| shards(&folder, cache).into_iter().map(|(path, (bytes, _))| (path, bytes)).collect::<Vec<_>>();
    let expected = bytes("cache");
    for (name, caches) in [("shared", ["both", "both"]), ("own", ["left", "right"])] {
        let ranks = start_commands(2, |rank, command| prepare(command, folder.path(), name, caches[rank]));
        for run in finish(ranks) {
            assert_eq!(run.status, 0, "{}", run.stderr);
        }
        for cache in caches {
            assert!(bytes(cache) == expected, "{cache}");
        }
        assert_eq!(steps(&folder.path().join(name)).len(), steps(&one).len());
    }
}
