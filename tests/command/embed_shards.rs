//! `embed --shard-size` and `index --shard-size`: shards of folders, tar and Parquet files.

use std::{collections::BTreeMap, ffi::OsStr, path::Path};

use safetensors::SafeTensors;
use serde_json::Value;

use crate::{
    files::{repository_file, scenes},
    support::{ProgramOutput, command, finished, json, kill_repeatedly, laps_zoo},
};

fn arguments(inputs: &[&str], out: &Path, more: &[&str]) -> Vec<String> {
    let model = ["--entry", "shapes_vit", "--engine", "rust", "--device", "cpu", "--threads", "1", "--batch-size", "4"];
    let out = ["--out", out.to_str().unwrap(), "--shard-size", "8"];
    ["embed"].iter().chain(inputs).chain(&model).chain(&out).chain(more).map(|&argument| argument.to_owned()).collect()
}

/// The files of a folder of shards, without the hidden ones that a killed process leaves.
fn files(out: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs_err::read_dir(out).unwrap().map(|file| file.unwrap().path());
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    files.filter(|path| !name(path).starts_with('.')).map(|path| (name(&path), fs_err::read(&path).unwrap())).collect()
}

fn items(file: &[u8]) -> Vec<String> {
    let file = SafeTensors::deserialize(file).unwrap();
    serde_json::from_slice(file.tensor("items").unwrap().data()).unwrap()
}

/// Rank `rank` of two, which do not communicate.
fn rank_of_two(rank: &str, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> ProgramOutput {
    let mut command = command();
    command.env("WORLD_SIZE", "2").env("RANK", rank).env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", "1");
    finished(command.args(arguments).output().unwrap())
}

#[test]
fn killed_shards_are_complete_and_identical_in_the_end() {
    let folder = scenes(30);
    let images = folder.path().join("images");
    fs_err::write(images.join("test_00003.png"), "not an image").unwrap();
    let tar = repository_file("zoo/data/tests/data/sources/files/webdataset/test-000000.tar");
    let parquet = repository_file("zoo/data/tests/data/sources/files/hub/test-00000-of-00001.parquet");
    let inputs = [&tar, &parquet, &images].map(|path| path.to_str().unwrap());
    let [whole, broken] = ["whole", "broken"].map(|name| folder.path().join(name));
    let run = laps_zoo(arguments(&inputs, &whole, &["--quiet"]));
    assert_eq!(run.status, 0, "{}", run.stderr);
    assert!(run.stdout.contains("36 images, 35 embedded, 1 skipped, 0 missing"), "{}", run.stdout);
    let expected = files(&whole);
    assert_eq!(expected.len(), 2 * (2 + 4) + 1);
    assert!(expected.contains_key("embeddings.json"));
    let tar_items = items(&expected["shard-00000.safetensors"]);
    assert!(tar_items.iter().all(|item| item.contains("test-000000.tar/")) && tar_items.len() == 2, "{tar_items:?}");
    let skipped = String::from_utf8(expected["shard-00002.json"].clone()).unwrap();
    assert!(skipped.contains("test_00003.png") && skipped.contains("not a JPEG"), "{skipped}");

    kill_repeatedly(&arguments(&inputs, &broken, &[]), 4, 6, || {
        assert_eq!(files(&broken), expected);
        fs_err::remove_dir_all(&broken).unwrap();
    });
    assert_eq!(laps_zoo(arguments(&inputs, &broken, &["--quiet"])).status, 0);
    assert_eq!(files(&broken), expected);

    // Job arrays write the same files, and the last one sees all of them.
    let shared = folder.path().join("shared");
    let first = laps_zoo(arguments(&inputs, &shared, &["--quiet", "--shard", "2/2"]));
    assert!(first.stdout.contains("3 shards of other processes are not finished"), "{}", first.stdout);
    let second = laps_zoo(arguments(&inputs, &shared, &["--quiet", "--shard", "1/2"]));
    assert!(second.stdout.contains("6 of 6 shards") && second.stdout.contains("35 embedded"), "{}", second.stdout);
    assert_eq!(files(&shared), expected);

    // So do the ranks of a distributed run, which need no communication. Rank 0 alone prints.
    let ranks = folder.path().join("ranks");
    let first = rank_of_two("0", arguments(&inputs, &ranks, &[]));
    assert!(first.status == 0 && first.stdout.contains("3 of 6 shards"), "{first:?}");
    let second = rank_of_two("1", arguments(&inputs, &ranks, &[]));
    assert_eq!((second.status, second.stdout.as_str(), second.stderr.as_str()), (0, "", ""));
    assert_eq!(files(&ranks), expected);
    let last = rank_of_two("0", arguments(&inputs, &ranks, &["--quiet"]));
    assert!(last.stdout.contains("6 of 6 shards") && last.stdout.contains("35 embedded"), "{last:?}");
    let one_file = ["embed", "--entry", "shapes_vit", "--caption", "a red circle", "--out", "x.npy"];
    let refused = rank_of_two("0", one_file);
    assert!(refused.status == 2 && refused.stderr.contains("found: none, with WORLD_SIZE=2"), "{}", refused.stderr);
}

#[test]
fn missing_images_are_an_error_that_names_them() {
    let folder = scenes(3);
    let [image, gone, out] = ["images/test_00000.png", "gone.png", "out"].map(|name| folder.path().join(name));
    let inputs = [&image, &gone].map(|path| path.to_str().unwrap());
    let run = laps_zoo(arguments(&inputs, &out, &["--quiet"]));
    assert_eq!((run.status, run.stderr.as_str()), (1, ""));
    assert!(run.stdout.contains("2 images, 1 embedded, 1 skipped, 1 missing"), "{}", run.stdout);
    let named = format!("  skipped `{}`: cannot be read: No such file or directory", gone.display());
    assert!(run.stdout.contains(&named), "{}", run.stdout);
    let summary = json(&out.join("shard-00000.json"));
    assert_eq!((&summary["missing"], &summary["skipped"][0]["name"]), (&1.into(), &inputs[1].into()));
    // A rerun does not hide it, and neither does a shard without any embedding.
    assert_eq!(laps_zoo(arguments(&inputs, &out, &["--quiet"])).status, 1);
    let alone = laps_zoo(arguments(&inputs[1..], &folder.path().join("alone"), &["--quiet"]));
    assert!(alone.status == 1 && alone.stdout.contains("0 embedded, 1 skipped, 1 missing"), "{alone:?}");
}

#[test]
fn missing_images_of_another_rank_are_an_error_with_its_number() {
    let folder = scenes(1);
    let [images, gone, out] = ["images", "gone.png", "out"].map(|name| folder.path().join(name));
    let inputs = [&images, &gone].map(|path| path.to_str().unwrap());
    let run = rank_of_two("1", arguments(&inputs, &out, &["--shard", "1/1"]));
    assert_eq!((run.status, run.stdout.as_str()), (1, ""));
    let expected = format!("[rank 1] error: images that were listed and are gone: 1\n  skipped `{}`: ", gone.display());
    assert!(run.stderr.starts_with(&expected), "{}", run.stderr);
}

/// The folder has shards of an earlier command, with other images.
#[test]
fn shards_of_other_inputs_are_not_counted() {
    let folder = scenes(24);
    let images = folder.path().join("images");
    let (inputs, out) = ([images.to_str().unwrap()], folder.path().join("out"));
    let whole = laps_zoo(arguments(&inputs, &out, &["--quiet"]));
    assert!(whole.stdout.contains("3 of 3 shards") && whole.stdout.contains("24 images"), "{}", whole.stdout);
    // Every shard after the first has other images now.
    fs_err::remove_file(images.join("test_00008.png")).unwrap();
    let first = laps_zoo(arguments(&inputs, &out, &["--quiet", "--shard", "1/3"]));
    assert_eq!(first.status, 0, "{}", first.stderr);
    let counts = "1 of 3 shards in";
    assert!(first.stdout.contains(counts) && first.stdout.contains("8 images, 8 embedded"), "{}", first.stdout);
    assert!(first.stdout.contains("2 shards of other processes are not finished"), "{}", first.stdout);
    let rest = laps_zoo(arguments(&inputs, &out, &["--quiet"]));
    assert!(rest.stdout.contains("3 of 3 shards") && rest.stdout.contains("23 images, 23 embedded"), "{}", rest.stdout);
}

/// The process that finishes the last shard writes the list of them, and one that replaces a shard removes it before.
#[test]
fn list_of_shards_is_there_when_all_are_finished() {
    let folder = scenes(12);
    let images = folder.path().join("images");
    let (inputs, out) = ([images.to_str().unwrap()], folder.path().join("out"));
    let manifest = out.join("embeddings.json");
    let run = |shard: &str| assert_eq!(laps_zoo(arguments(&inputs, &out, &["--quiet", "--shard", shard])).status, 0);
    run("2/2");
    assert!(!manifest.exists());
    run("1/2");
    let list = json(&manifest);
    assert_eq!((&list["schema"], &list["model"]["entry"]), (&1.into(), &"shapes_vit".into()));
    let counts = |list: &Value| ["images", "embedded", "skipped", "missing"].map(|field| list[field].as_u64().unwrap());
    assert_eq!(counts(&list), [12, 12, 0, 0]);
    let shards = list["shards"].as_array().unwrap();
    assert_eq!(shards.iter().map(counts).collect::<Vec<_>>(), [[8, 8, 0, 0], [4, 4, 0, 0]]);
    assert_eq!(shards[1]["inputs_sha256"], json(&out.join("shard-00001.json"))["inputs_sha256"]);

    // Both shards have other images now.
    fs_err::remove_file(images.join("test_00000.png")).unwrap();
    run("2/2");
    assert!(!manifest.exists());
    run("1/2");
    assert_eq!(counts(&json(&manifest)), [11, 11, 0, 0]);
}

/// The results of a search, without the name of the index.
fn search_results(index: &Path) -> Value {
    let search =
        ["search", index.to_str().unwrap(), "a red circle", "--device", "cpu", "--threads", "1", "--json", "--quiet"];
    let run = laps_zoo(search);
    assert_eq!(run.status, 0, "{}", run.stderr);
    serde_json::from_str::<Value>(&run.stdout).unwrap()["results"].take()
}

#[test]
fn index_of_two_ranks_is_searched_like_one_file() {
    let data = scenes(12);
    let folder = data.path().join("images");
    let [one, ranks, array] = ["one", "ranks", "array"].map(|name| data.path().join(name));
    let index = |out: &Path, more: &[&str]| -> Vec<String> {
        let model = ["--entry", "shapes_vit", "--device", "cpu", "--threads", "1", "--batch-size", "2", "--quiet"];
        let paths = ["index", folder.to_str().unwrap(), "--out", out.to_str().unwrap()];
        paths.iter().chain(&model).chain(more).map(|&argument| argument.to_owned()).collect()
    };
    assert_eq!(laps_zoo(index(&one, &[])).status, 0);
    let expected = search_results(&one);
    assert!(!expected.as_array().unwrap().is_empty());

    let sized = index(&ranks, &["--shard-size", "5"]);
    let first = rank_of_two("0", &sized);
    assert!(first.status == 0 && first.stdout.contains("1 of 3 shards are not finished"), "{first:?}");
    let search = laps_zoo(["search", ranks.to_str().unwrap(), "a red circle", "--quiet"]);
    assert!(search.status == 2 && search.stderr.contains("shard-00001.index"), "{search:?}");
    // Rank 0 alone prints.
    let loud: Vec<&String> = sized.iter().filter(|argument| *argument != "--quiet").collect();
    let second = rank_of_two("1", loud);
    assert_eq!((second.status, second.stdout.as_str(), second.stderr.as_str()), (0, "", ""));
    let last = rank_of_two("0", &sized);
    assert!(last.status == 0 && !last.stdout.contains("not finished"), "{last:?}");
    assert_eq!(search_results(&ranks), expected);

    for shard in ["3/3", "1/3", "2/3"] {
        assert_eq!(laps_zoo(index(&array, &["--shard-size", "4", "--shard", shard])).status, 0);
    }
    assert_eq!(search_results(&array), expected);
    let again = laps_zoo(index(&array, &["--shard-size", "4"]));
    assert!(again.stdout.contains("0 encoded, 12 unchanged"), "{again:?}");

    for (more, message) in
        [(&[][..], "found: none, with WORLD_SIZE=2"), (&["--shard-size", "5", "--evaluate"], "WORLD_SIZE=2")]
    {
        let refused = rank_of_two("0", index(&one, more));
        assert!(refused.status == 2 && refused.stderr.contains(message), "{refused:?}");
    }
}
