//! Cased vocabularies, end to end: `do_lower_case` in the entry, and in `tokenizer_config.json` beside the vocabulary.

use std::path::Path;

use tempfile::TempDir;

use crate::{
    files::{repository_file, scenes},
    graphs::runtime,
    support::{expect_error, laps_zoo},
};

const CONFIG: &str = r#"{"do_lower_case": false, "tokenizer_class": "BertTokenizer"}"#;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A data set whose vocabulary has `Red` in place of `red`, and `lower.txt`, the vocabulary without the change.
fn cased() -> TempDir {
    let data = scenes(2);
    let vocabulary = data.path().join("vocab.txt");
    let lower = fs_err::read_to_string(&vocabulary).unwrap();
    assert!(lower.contains("\nred\n"));
    fs_err::write(&vocabulary, lower.replace("\nred\n", "\nRed\n")).unwrap();
    fs_err::create_dir(data.path().join("lower")).unwrap();
    fs_err::write(data.path().join("lower/vocab.txt"), lower).unwrap();
    data
}

/// The embeddings of some captions, as bytes of a `.npy` file.
fn embed(data: &TempDir, captions: &[&str], model: &[&str]) -> Vec<u8> {
    let out = data.path().join("words.npy");
    let mut arguments = vec!["embed", "--out", text(&out), "--quiet", "--pooled"];
    arguments.extend(captions.iter().flat_map(|caption| ["--caption", caption]));
    let run = laps_zoo(arguments.iter().chain(model));
    assert_eq!(run.status, 0, "{}", run.stderr);
    fs_err::read(out).unwrap()
}

/// `shapes_vit` with `do_lower_case: false`, at `data`.
fn cased_entry(data: &TempDir) -> std::path::PathBuf {
    let entry = fs_err::read_to_string(repository_file("configs/shapes_vit.yaml")).unwrap();
    let drawn = "  drawn: { seed: 7, train: 20000, dev: 200, test: 200 }\n";
    assert!(entry.contains(drawn));
    let path = data.path().join("shapes_cased.yaml");
    let entry = entry.replace(drawn, "  do_lower_case: false\n").replace("name: shapes_vit", "name: shapes_cased");
    fs_err::write(&path, entry).unwrap();
    path
}

#[test]
fn cased_vocabulary_of_an_entry_and_of_a_configuration_keep_capital_letters() {
    let data = cased();
    let [vocabulary, lower, config] =
        ["vocab.txt", "lower/vocab.txt", "tokenizer_config.json"].map(|name| data.path().join(name));
    let checkpoint = repository_file("checkpoints/shapes_vit.safetensors");
    let rust = ["--entry", "shapes_vit", "--engine", "rust", "--vocab"];
    let plain = embed(&data, &["a red circle", "a zzz circle"], &[&rust[..], &[text(&lower)]].concat());

    let own = [&rust[..], &[text(&vocabulary)]].concat();
    let out = data.path().join("words.npy");
    let refused = [&["embed", "--caption", "Red", "--out", text(&out), "--quiet"], &own[..]].concat();
    let error = expect_error(data.path(), refused);
    assert!(error.starts_with("error: `DIR/vocab.txt` has capital letters, as in line "), "{error}");

    // `Red` of the cased vocabulary has the id of `red`, and `red` is unknown.
    let entry = cased_entry(&data);
    let of_entry = ["--entry", text(&entry), "--checkpoint", text(&checkpoint), "--engine", "rust"];
    assert!(embed(&data, &["a Red circle", "a red circle"], &of_entry) == plain);
    fs_err::write(&config, CONFIG).unwrap();
    assert!(embed(&data, &["a Red circle", "a red circle"], &own) == plain);
    // The entry comes before the configuration.
    fs_err::write(&config, CONFIG.replace("false", "true")).unwrap();
    assert!(embed(&data, &["a Red circle", "a red circle"], &of_entry) == plain);
    assert!(embed(&data, &["a Red circle", "a red circle"], &own) != plain);
}

#[test]
fn cased_reproduce_reads_the_setting_beside_the_vocabulary() {
    let data = cased();
    let reproduce = |json: &Path| {
        let arguments =
            ["reproduce", "shapes_vit", "--engine", "rust", "--quiet", "--data", text(data.path()), "--json"];
        laps_zoo(arguments.iter().chain(&[text(json)]))
    };
    let [first, second] = ["first.json", "second.json"].map(|name| data.path().join(name));
    let run = reproduce(&first);
    assert_eq!(run.status, 2);
    assert!(run.stderr.contains("has capital letters"), "{}", run.stderr);
    fs_err::write(data.path().join("tokenizer_config.json"), CONFIG).unwrap();
    assert_eq!(reproduce(&second).status, 0);
}

#[test]
fn cased_index_finds_captions_by_capital_letters() {
    let data = cased();
    let [captions, index] = ["captions.txt", "captions.index"].map(|name| data.path().join(name));
    fs_err::write(&captions, "a Red circle\na red circle\na zzz circle\n").unwrap();
    let entry = cased_entry(&data);
    let checkpoint = repository_file("checkpoints/shapes_vit.safetensors");
    let model = ["--entry", text(&entry), "--checkpoint", text(&checkpoint), "--engine", "rust", "--quiet"];
    let run = laps_zoo(
        ["index", "--captions", text(&captions), "--out", text(&index), "--precision", "fp32"].iter().chain(&model),
    );
    assert_eq!(run.status, 0, "{}", run.stderr);
    let bytes = fs_err::read(&index).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let pooled = file.tensor("pooled").unwrap();
    let rows: Vec<&[u8]> = pooled.data().chunks_exact(pooled.data().len() / 3).collect();
    assert!(rows[0] != rows[1] && rows[1] == rows[2]);
    // An index belongs to the configuration with its setting.
    let image = data.path().join("images/test_00000.png");
    let other =
        ["search", text(&index), "--image", text(&image), "--entry", "shapes_vit", "--engine", "rust", "--quiet"];
    let error = expect_error(data.path(), other);
    assert!(error.starts_with("error: the index `DIR/captions.index` was written by another configuration"), "{error}");
}

#[test]
fn cased_package_keeps_the_setting() {
    if !runtime() {
        return;
    }
    let data = cased();
    fs_err::write(data.path().join("tokenizer_config.json"), CONFIG).unwrap();
    let [vocabulary, lower, beside, package, of_entry] =
        ["vocab.txt", "lower/vocab.txt", "tokenizer_config.json", "package", "of_entry"]
            .map(|name| data.path().join(name));
    let export = |arguments: &[&str]| {
        let run = laps_zoo(["export", "--onnx", "--quiet"].iter().chain(arguments));
        assert_eq!(run.status, 0, "{}", run.stderr);
    };
    export(&["shapes_vit", "--vocab", text(&vocabulary), "--out", text(&package)]);
    fs_err::remove_file(beside).unwrap();
    let entry = cased_entry(&data);
    let checkpoint = repository_file("checkpoints/shapes_vit.safetensors");
    export(&[text(&entry), "--checkpoint", text(&checkpoint), "--out", text(&of_entry)]);
    for package in [package, of_entry] {
        let config: serde_json::Value =
            serde_json::from_slice(&fs_err::read(package.join("tokenizer_config.json")).unwrap()).unwrap();
        assert_eq!(config, serde_json::json!({"do_lower_case": false}));
        let captions =
            |pair: [&str; 2], more: &[&str]| embed(&data, &pair, &[&["--graphs", text(&package)], more].concat());
        let cased = captions(["a Red circle", "a red circle"], &[]);
        assert!(cased == captions(["a red circle", "a zzz circle"], &["--vocab", text(&lower)]));
        assert!(cased != captions(["a zzz circle", "a zzz circle"], &[]));
    }
}
