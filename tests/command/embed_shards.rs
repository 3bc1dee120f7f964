//! `embed --shard-size` and `index --shard-size`: shards of folders, tar and Parquet files.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use laps_model::random::SplitMix64;
use safetensors::SafeTensors;
use serde_json::Value;

use crate::{
    files::{repository_file, scenes},
    support::{Run, command, finished, laps_zoo},
};

fn arguments(inputs: &[&str], out: &Path, more: &[&str]) -> Vec<String> {
    let model = ["--entry", "shapes_vit", "--engine", "rust", "--device", "cpu", "--threads", "1", "--batch-size", "4"];
    let out = ["--out", out.to_str().unwrap(), "--shard-size", "8"];
    ["embed"].iter().chain(inputs).chain(&model).chain(&out).chain(more).map(|&argument| argument.to_owned()).collect()
}

/// The files of a folder of shards; nothing else is there.
fn files(out: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs_err::read_dir(out).unwrap().map(|file| file.unwrap().path());
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    files
        .filter(|path| name(path).starts_with("shard-"))
        .map(|path| (name(&path), fs_err::read(&path).unwrap()))
        .collect()
}

fn items(file: &[u8]) -> Vec<String> {
    let file = SafeTensors::deserialize(file).unwrap();
    serde_json::from_slice(file.tensor("items").unwrap().data()).unwrap()
}

/// Rank `rank` of two, which do not communicate.
fn rank_of_two(rank: &str, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Run {
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
    assert_eq!(expected.len(), 2 * (2 + 4));
    let tar_items = items(&expected["shard-00000.safetensors"]);
    assert!(tar_items.iter().all(|item| item.contains("test-000000.tar/")) && tar_items.len() == 2, "{tar_items:?}");
    let skipped = String::from_utf8(expected["shard-00002.json"].clone()).unwrap();
    assert!(skipped.contains("test_00003.png") && skipped.contains("not a JPEG"), "{skipped}");

    let mut random = SplitMix64::new(4);
    let mut kills = 0;
    for _ in 0..20 {
        let mut child = Command::new(crate::PROGRAM)
            .env("LAPS_ZOO_CACHE", concat!(env!("CARGO_TARGET_TMPDIR"), "/cache"))
            .args(arguments(&inputs, &broken, &[]))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A seeded number of lines of progress, then SIGKILL.
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let wanted = random.below(6);
        let seen = (0..wanted).take_while(|_| stderr.read_line(&mut String::new()).unwrap() > 0).count();
        kills += usize::from(seen == wanted);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(kills >= 3, "{kills}");
    assert_eq!(laps_zoo(arguments(&inputs, &broken, &["--quiet"])).status, 0);
    assert_eq!(files(&broken), expected);

    // Job arrays write the same files, and the last one sees all of them.
    let shared = folder.path().join("shared");
    let first = laps_zoo(arguments(&inputs, &shared, &["--quiet", "--shard", "2/2"]));
    assert!(first.stdout.contains("3 shards of other processes are not finished"), "{}", first.stdout);
    let second = laps_zoo(arguments(&inputs, &shared, &["--quiet", "--shard", "1/2"]));
    assert!(second.stdout.contains("6 of 6 shards") && second.stdout.contains("35 embedded"), "{}", second.stdout);
    assert_eq!(files(&shared), expected);

    // So do the ranks of a distributed run, which need no communication.
    let ranks = folder.path().join("ranks");
    for (rank, shards) in [("0", "3 of 6 shards"), ("1", "6 of 6 shards")] {
        let run = rank_of_two(rank, arguments(&inputs, &ranks, &["--quiet"]));
        assert!(run.status == 0 && run.stdout.contains(shards), "{}{}", run.stdout, run.stderr);
    }
    assert_eq!(files(&ranks), expected);
    let one_file = ["embed", "--entry", "shapes_vit", "--caption", "a red circle", "--out", "x.npy"];
    let refused = rank_of_two("0", one_file);
    assert!(refused.status == 2 && refused.stderr.contains("found: none, with WORLD_SIZE=2"), "{}", refused.stderr);
}

/// The results of a search, without the name of the index.
fn found(index: &Path) -> Value {
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
    let expected = found(&one);
    assert!(!expected.as_array().unwrap().is_empty());

    let sized = index(&ranks, &["--shard-size", "5"]);
    let first = rank_of_two("0", &sized);
    assert!(first.status == 0 && first.stdout.contains("1 of 3 shards are not finished"), "{first:?}");
    let search = laps_zoo(["search", ranks.to_str().unwrap(), "a red circle", "--quiet"]);
    assert!(search.status == 2 && search.stderr.contains("shard-00001.index"), "{search:?}");
    let second = rank_of_two("1", &sized);
    assert!(second.status == 0 && !second.stdout.contains("not finished"), "{second:?}");
    assert_eq!(found(&ranks), expected);

    for shard in ["3/3", "1/3", "2/3"] {
        assert_eq!(laps_zoo(index(&array, &["--shard-size", "4", "--shard", shard])).status, 0);
    }
    assert_eq!(found(&array), expected);
    let again = laps_zoo(index(&array, &["--shard-size", "4"]));
    assert!(again.stdout.contains("0 encoded, 12 unchanged"), "{again:?}");

    for (more, message) in
        [(&[][..], "found: none, with WORLD_SIZE=2"), (&["--shard-size", "5", "--evaluate"], "WORLD_SIZE=2")]
    {
        let refused = rank_of_two("0", index(&one, more));
        assert!(refused.status == 2 && refused.stderr.contains(message), "{refused:?}");
    }
}
