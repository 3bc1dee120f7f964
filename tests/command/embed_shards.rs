//! `embed --shard-size`: shards of folders, tar and Parquet files.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use laps_model::random::SplitMix64;
use safetensors::SafeTensors;

use crate::{
    files::{repository_file, scenes},
    support::{command, finished, laps_zoo},
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
    let of_rank = |rank: &str, arguments: Vec<String>| {
        let mut rank_of_two = command();
        rank_of_two.env("WORLD_SIZE", "2").env("RANK", rank).env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", "1");
        finished(rank_of_two.args(arguments).output().unwrap())
    };
    for (rank, shards) in [("0", "3 of 6 shards"), ("1", "6 of 6 shards")] {
        let run = of_rank(rank, arguments(&inputs, &ranks, &["--quiet"]));
        assert!(run.status == 0 && run.stdout.contains(shards), "{}{}", run.stdout, run.stderr);
    }
    assert_eq!(files(&ranks), expected);
    let one_file = ["embed", "--entry", "shapes_vit", "--caption", "a red circle", "--out", "x.npy"];
    let refused = of_rank("0", one_file.map(str::to_owned).to_vec());
    assert!(refused.status == 2 && refused.stderr.contains("found: none, with WORLD_SIZE=2"), "{}", refused.stderr);
}
