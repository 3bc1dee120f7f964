//! Suites: results are kept, interrupted suites resume, and committed results are compared.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use laps_model::random::SplitMix64;

use crate::{
    files::{foreign_embeddings, npy, repository_file},
    support::{json, kill_repeatedly, laps_zoo},
};

/// A suite of an entry with two sizes, the same evaluation under another name, and a matrix.
fn suite(folder: &Path) -> PathBuf {
    let mut random = SplitMix64::new(1);
    let matrix: Vec<f32> = (0..20 * 100).map(|_| random.below(1000) as f32).collect();
    fs_err::write(folder.join("other.npy"), npy(&matrix, [20, 100], false)).unwrap();
    let path = folder.join("suite.yaml");
    let text = "runs:\n\
        - { entry: shapes_vit, limit: 48, engine: rust }\n\
        - { name: again, entry: shapes_vit, limit: 48, engine: rust }\n\
        - { sims: other.npy, protocol: [f30k] }\n\
        - { entry: shapes_vit, limit: 16, engine: rust }\n";
    fs_err::write(&path, text).unwrap();
    path
}

fn arguments(suite: &Path, out: &Path, more: &[&str]) -> Vec<String> {
    let fixed = ["suite", suite.to_str().unwrap(), "--out", out.to_str().unwrap(), "--device", "cpu", "--threads", "1"];
    fixed.iter().chain(more).map(|&argument| argument.to_owned()).collect()
}

/// A result without times and without the notes of an interruption.
fn contents(out: &Path) -> BTreeMap<String, serde_json::Value> {
    let files = fs_err::read_dir(out.join("results")).unwrap().map(|file| file.unwrap().path());
    let result = |path: PathBuf| {
        let result = json(&path);
        let kept =
            ["entry", "evaluations", "ranks", "failures", "provenance", "verdict"].map(|key| result[key].clone());
        (path.file_name().unwrap().to_str().unwrap().to_owned(), serde_json::json!(kept))
    };
    files.map(result).collect()
}

#[test]
fn killed_suite_is_complete_and_identical_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let suite = suite(folder.path());
    let [whole, broken] = ["whole", "broken"].map(|name| folder.path().join(name));
    let run = laps_zoo(arguments(&suite, &whole, &[]));
    assert_eq!(run.status, 0, "{}", run.stderr);
    assert_eq!(contents(&whole).len(), 4);
    // The same evaluation is not computed again.
    assert_eq!(run.stderr.matches("hash images: 48 to do").count(), 1, "{}", run.stderr);

    kill_repeatedly(&arguments(&suite, &broken, &[]), 11, 12, || {
        assert_eq!(contents(&broken), contents(&whole));
        fs_err::remove_dir_all(&broken).unwrap();
    });
    let run = laps_zoo(arguments(&suite, &broken, &["--quiet"]));
    assert_eq!(run.status, 0, "{}", run.stderr);
    assert_eq!(contents(&broken), contents(&whole));
    let table = |out: &Path| fs_err::read_to_string(out.join("table.md")).unwrap();
    assert_eq!(table(&broken), table(&whole));
    assert!(fs_err::read_to_string(broken.join("report.html")).unwrap().contains("</html>"));

    // Nothing is computed a second time.
    let again = laps_zoo(arguments(&suite, &broken, &[]));
    assert_eq!((again.status, again.stderr.as_str()), (0, ""));
}

#[test]
fn shards_share_a_suite_and_the_gate_compares_recalls() {
    let folder = tempfile::tempdir().unwrap();
    let suite = suite(folder.path());
    let out = folder.path().join("out");
    let first = laps_zoo(arguments(&suite, &out, &["--quiet", "--shard", "1/2"]));
    assert_eq!(first.status, 0, "{}", first.stderr);
    // `again` is run 2 of 4, and has the result of run 1.
    assert!(
        first.stdout.contains("3 of 4 runs are finished; these belong to other shards than 1/2: shapes_vit-16-rust"),
        "{}",
        first.stdout
    );
    assert!(!out.join("table.md").exists());
    let second = laps_zoo(arguments(&suite, &out, &["--quiet", "--shard", "2/2"]));
    assert_eq!(second.status, 0, "{}", second.stderr);
    assert!(out.join("table.md").exists());

    let committed = folder.path().join("committed");
    fs_err::rename(out.join("results"), &committed).unwrap();
    let gate = ["--quiet", "--gate", committed.to_str().unwrap()];
    let same = laps_zoo(arguments(&suite, &out, &gate));
    assert_eq!(same.status, 0, "{}{}", same.stdout, same.stderr);
    // The other program's matrix changes: its hash is another one, and so are its recalls.
    let matrix: Vec<f32> = (0..20 * 100).map(|index| if index / 100 == index % 100 / 5 { 1.0 } else { 0.0 }).collect();
    fs_err::write(folder.path().join("other.npy"), npy(&matrix, [20, 100], false)).unwrap();
    let other = laps_zoo(arguments(&suite, &out, &gate));
    assert_eq!(other.status, 1, "{}{}", other.stdout, other.stderr);
    assert!(other.stdout.contains("other: rSum is 600.00, committed "), "{}", other.stdout);
}

/// Lower precisions of the engine `ort`, and a result that is used as it is.
#[test]
fn suite_has_precisions_and_results() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let given = root.join("given.json");
    let arguments_of_given = ["reproduce", "shapes_vit", "--limit", "12", "--engine", "rust", "--quiet", "--json"];
    let run = laps_zoo(arguments_of_given.into_iter().chain([given.to_str().unwrap()]));
    assert_eq!(run.status, 0, "{}", run.stderr);
    let path = root.join("suite.yaml");
    let runs = |precisions: &[&str]| {
        let entry = |precision: &&str| {
            format!("- {{ entry: shapes_vit, limit: 12, engine: ort, precision: {precision}, truncate: true }}\n")
        };
        let entries: String = precisions.iter().map(entry).collect();
        fs_err::write(&path, format!("runs:\n- {{ result: given.json }}\n{entries}")).unwrap();
    };
    runs(&[]);
    let out = root.join("out");
    let run = laps_zoo(arguments(&path, &out, &["--quiet"]));
    assert_eq!(run.status, 0, "{}", run.stderr);
    let only = contents(&out);
    assert_eq!(only.values().next().unwrap()[1], json(&given)["evaluations"]);

    if !crate::graphs::runtime() {
        return;
    }
    runs(&["fp32", "fp16", "int8"]);
    let run = laps_zoo(arguments(&path, &out, &["--quiet"]));
    assert_eq!(run.status, 0, "{}", run.stderr);
    let found = contents(&out);
    let engine = |name: &str| {
        let (_, result) =
            found.iter().find(|(file, _)| file.starts_with(&format!("shapes_vit-12-ort-{name}."))).unwrap();
        result[4]["engine"].to_string()
    };
    for precision in ["fp16", "int8"] {
        assert!(engine(precision).contains(precision), "{}", engine(precision));
    }
    assert_ne!(engine("fp32"), engine("fp16"));
}

/// The evaluations of a run by its name.
fn evaluations(out: &Path, name: &str) -> serde_json::Value {
    let contents = contents(out);
    let (_, result) = contents.iter().find(|(file, _)| file.starts_with(&format!("{name}."))).unwrap();
    result[1].clone()
}

#[test]
fn protocols_of_an_entry_are_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (folder.path().join("suite.yaml"), folder.path().join("out"));
    let text = "runs:\n\
        - { name: own, entry: shapes_vit, limit: 12, engine: rust }\n\
        - { name: other, entry: shapes_vit, limit: 12, engine: rust, protocol: [coco_5k] }\n";
    fs_err::write(&path, text).unwrap();
    let run = laps_zoo(arguments(&path, &out, &["--quiet"]));
    assert_eq!(run.status, 0, "{}", run.stderr);
    let [own, other] = ["own", "other"].map(|name| evaluations(&out, name));
    assert_eq!((&own[0]["protocol"], &other[0]["protocol"]), (&"f30k".into(), &"coco_5k".into()));
    // Both rank the whole matrix.
    assert_eq!([&other[0]["i2t"], &other[0]["t2i"]], [&own[0]["i2t"], &own[0]["t2i"]]);
}

#[test]
fn suite_has_embeddings_heads_and_transposed_matrices() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let file = |name: &str| root.join(name).to_str().unwrap().to_owned();
    let mut random = SplitMix64::new(3);
    let mut values = |count: usize| -> Vec<f32> { (0..count).map(|_| random.normal() as f32).collect() };
    let lengths: Vec<usize> = (0..20).map(|caption| 1 + caption % 6).collect();
    let (images, captions) = (values(4 * 10 * 32), values(20 * 6 * 32));
    let path = root.join("tokens.safetensors");
    foreign_embeddings(&path, (&[4, 10, 32], &images), (&[20, 6, 32], &captions), &lengths);
    fs_err::write(root.join("images.npy"), npy(&values(4 * 32), [4, 32], false)).unwrap();
    fs_err::write(root.join("captions.npy"), npy(&values(20 * 32), [20, 32], false)).unwrap();
    fs_err::write(root.join("turned.npy"), npy(&values(20 * 4), [20, 4], false)).unwrap();
    fs_err::write(root.join("head.yaml"), "{ type: vsepp, pooling: gpo }").unwrap();
    let golden = repository_file("tests/golden/head_vsepp_gpo_swin.safetensors");
    fs_err::copy(golden, root.join("head.safetensors")).unwrap();
    let (suite, out) = (root.join("suite.yaml"), root.join("out"));
    let text = "runs:\n\
        - { name: pooled, embeddings: [images.npy, captions.npy] }\n\
        - { embeddings: [tokens.safetensors], head: scan_t2i }\n\
        - { name: gpo, embeddings: [tokens.safetensors], head: head.yaml, checkpoint: head.safetensors }\n\
        - { name: turned, sims: turned.npy, transposed: true }\n";
    fs_err::write(&suite, text).unwrap();
    let run = laps_zoo(arguments(&suite, &out, &["--quiet"]));
    assert_eq!(run.status, 0, "{}", run.stderr);
    assert_eq!(contents(&out).len(), 4);
    let result = file("result.json");
    let [tokens, images, captions] = ["tokens.safetensors", "images.npy", "captions.npy"].map(file);
    let [head, checkpoint, turned] = ["head.yaml", "head.safetensors", "turned.npy"].map(file);
    let evaluated = |arguments: &[&str]| {
        let run = laps_zoo(["evaluate"].iter().chain(arguments).chain(&["--json", &result, "--quiet"]));
        assert_eq!(run.status, 0, "{}", run.stderr);
        json(Path::new(&result))["evaluations"].clone()
    };
    assert_eq!(evaluations(&out, "pooled"), evaluated(&[&images, &captions]));
    assert_eq!(evaluations(&out, "tokens-scan_t2i"), evaluated(&[&tokens, "--head", "scan_t2i"]));
    let gpo = evaluated(&[&tokens, "--head", &head, "--checkpoint", &checkpoint]);
    assert_eq!(evaluations(&out, "gpo"), gpo);
    assert_eq!(evaluations(&out, "turned"), evaluated(&["--sims", &turned, "--transposed"]));

    // A run whose head changed is computed again, and no other.
    fs_err::write(root.join("head.yaml"), "{ type: vsepp, pooling: mean }").unwrap();
    fs_err::write(&suite, text.replace(", checkpoint: head.safetensors", "")).unwrap();
    assert_eq!(laps_zoo(arguments(&suite, &out, &["--quiet"])).status, 0);
    assert_eq!(contents(&out).len(), 5);
}

#[test]
fn invalid_suites_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("suite.yaml");
    let refusal = |text: &str| {
        fs_err::write(&path, text).unwrap();
        let run = laps_zoo(arguments(&path, &folder.path().join("out"), &[]));
        assert_eq!(run.status, 2);
        run.stderr.split_once("expected: ").unwrap().1.to_owned()
    };
    insta::assert_snapshot!(refusal("runs: []"), @r"
    at least one run
      found: none
    ");
    insta::assert_snapshot!(refusal("runs: [{ entry: a, sims: b }]"), @r"
    one of `entry`, `sims`, `embeddings` and `result` in each run
      found: 2 of them in run 1
    ");
    insta::assert_snapshot!(refusal("runs: [{ sims: a.npy }, { sims: b/a.npy }]"), @r"
    a `name` of its own for each run
      found: `a` twice, in run 2
    ");
    insta::assert_snapshot!(refusal("runs: [{ sims: a.npy, engine: rust }]"), @r"
    `engine` in runs with an `entry`
      found: it in run 1
    ");
    insta::assert_snapshot!(refusal("runs: [{ embeddings: [a.npy, b.npy], checkpoint: c.pth }]"), @r"
    `checkpoint` in runs with an `entry` or a `head`
      found: it in run 1
    ");
    insta::assert_snapshot!(refusal("runs: [{ sims: a.npy, head: scan_t2i }]"), @r"
    `head` in runs with `embeddings`
      found: it in run 1
    ");
    insta::assert_snapshot!(refusal("runs: [{ sims: a.npy, name: ../a }]"), @r"
    a `name` that can be the name of a file
      found: `../a` in run 1
    ");
}
