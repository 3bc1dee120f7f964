//! Entries with a head other than LAPS's.

use std::{
    collections::BTreeSet,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use insta::assert_snapshot;
use laps_hub::registry;
use laps_model::{models, params_init::init_parameters};
use serde_json::{Value, json as value};
use tempfile::TempDir;

use crate::{
    NATIVE_ENGINE,
    files::{authors_checkpoint, repository_file, scenes, shapes_vit},
    graphs::runtime,
    matrix::{Direction, Matrix},
    running_server::RunningServer,
    search::{agrees, image_number},
    support::{expect_error, json, laps_zoo},
};

const HEADS: [&str; 13] = [
    "{ type: cosine, embed_size: 64 }",
    "vsepp",
    "{ type: vsepp, pooling: cls }",
    "{ type: vsepp, pooling: gpo }",
    "scan_t2i",
    "scan_i2t",
    "scan_all",
    "max_mean",
    "{ type: sgr, sim_dim: 16, steps: 2 }",
    "chan",
    "{ type: chan, aggregation: lse }",
    "{ type: d2s_vse, embed_size: 64, mlp_size: 16, prompt_tokens: 4, blocks: 1, heads: 4 }",
    // The others select patches, and rounding can change which.
    "{ type: laps_ablation, ablation: without_patch_selection }",
];

/// The entry `shapes_vit` with another head, at `NAME.yaml`. Only an ablation keeps the ratios.
fn entry(folder: &TempDir, name: &str, head: &str) -> PathBuf {
    let text = fs_err::read_to_string(repository_file("configs/shapes_vit.yaml")).unwrap();
    let ratios = "  sparse_ratio: 0.5\n  aggr_ratio: 0.4\n";
    assert!(text.contains(ratios));
    let path = folder.path().join(format!("{name}.yaml"));
    let kept = if head.contains("laps_ablation") { ratios } else { "" };
    fs_err::write(&path, text.replace(ratios, &format!("{kept}  head: {head}\n"))).unwrap();
    path
}

/// A checkpoint in the authors' container: the encoders of `shapes_vit`, and initial parameters of the entry's head.
fn checkpoint(folder: &TempDir, name: &str, entry: &Path) -> PathBuf {
    let model = registry::find(entry.to_str().unwrap()).unwrap().model;
    let parameters = models::parameters(&model).unwrap();
    let initial = init_parameters(&parameters, 7).unwrap();
    let trained = shapes_vit();
    let path = folder.path().join(format!("{name}.pth"));
    authors_checkpoint(&path, &parameters, &[("embed_size", 64.0)], |parameter, file: &mut dyn Write| {
        let trained = trained.iter().find(|(name, ..)| *name == parameter.name).map(|(.., values)| &values[..]);
        let initial = initial.iter().find(|(name, _)| *name == parameter.name).map(|(_, array)| array.values());
        for value in trained.or(initial).unwrap() {
            file.write_all(&value.to_le_bytes()).unwrap();
        }
    });
    path
}

/// Runs the program, which must succeed, and returns what it prints.
pub(crate) fn ok(arguments: &[&str]) -> String {
    let run = laps_zoo(arguments);
    assert_eq!((run.status, run.stderr.as_str()), (0, ""), "{arguments:?}");
    run.stdout
}

pub(crate) fn ok_json(arguments: &[&str]) -> Value {
    serde_json::from_str(&ok(&[arguments, &["--json", "--quiet"]].concat())).unwrap()
}

/// A checkpoint of each head in the authors' container is converted, evaluated, exported and searched.
#[test]
fn every_head_from_checkpoint_to_search() {
    let folder = scenes(4);
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let [data, images, image] = ["", "images", "images/test_00002.png"].map(path);
    let texts = fs_err::read_to_string(path("captions/test_caps.txt")).unwrap();
    let caption = texts.lines().nth(7).unwrap();
    let mut matrices = BTreeSet::new();
    for (number, head) in HEADS.into_iter().enumerate() {
        let name = format!("head_{number}");
        let entry = entry(&folder, &name, head);
        let original = checkpoint(&folder, &name, &entry);
        let [entry, original] = [&entry, &original].map(|path| path.to_str().unwrap());
        let [converted, sims, graphs, index] =
            ["safetensors", "sims", "graphs", "index"].map(|ending| path(&format!("{name}.{ending}")));
        ok(&["convert", original, &converted, "--entry", entry]);

        let evaluate = |checkpoint: &str, batch_size: &str| {
            let options = ["--checkpoint", checkpoint, "--sims", &sims, "--batch-size", batch_size];
            ok(&[&["reproduce", entry, "--quiet", "--data", &data], &options[..], &NATIVE_ENGINE].concat());
            let matrix = Matrix::open(sims.as_ref());
            fs_err::remove_file(&sims).unwrap();
            matrix
        };
        let matrix = evaluate(&converted, "16");
        assert_eq!((matrix.images, matrix.captions), (4, 20), "{head}");
        assert!(matrix.values.iter().all(|value| value.is_finite()), "{head}");
        // The padding of a batch reaches no caption; encoders in f32 differ by their order of sums.
        for (one, other) in matrix.values.iter().zip(evaluate(original, "3").values) {
            assert!((one - other).abs() < 1e-4, "{head}: {one} and {other}");
        }

        let model = ["--entry", entry, "--checkpoint", &converted, "--engine", "rust"];
        ok_json(&[&["index", &images, "--out", &index, "--precision", "fp32"], &model[..]].concat());
        let found = ok_json(&[&["search", &index, caption, "--top", "4", "--exact"], &model[..]].concat());
        assert_eq!(found["compared"], 4, "{head}");
        // `lse` divides cosines by 0.1.
        agrees(&found["results"], image_number, &matrix.scores(Direction::TextToImage, 7), 1e-4);

        ok(&["export", entry, "--onnx", "--checkpoint", &converted, "--out", &graphs, "--data", &data, "--quiet"]);
        let manifest = json(format!("{graphs}/manifest.json").as_ref());
        let kind = head.trim_start_matches("{ type: ").split([',', ' ']).next().unwrap();
        assert_eq!(manifest["head"]["type"], kind);
        assert!(manifest["graphs"]["score"]["outputs"][0]["shape"] == value!(["images", "captions"]));
        if runtime() {
            let scores = ok_json(&["score", &image, "--caption", caption, "--graphs", &graphs]);
            let similarity = scores["similarities"][0][0].as_f64().unwrap() as f32;
            assert!((similarity - matrix.at(2, 7)).abs() < 1e-4, "{head}: {similarity} and {}", matrix.at(2, 7));
        }
        matrices.insert(matrix.values.iter().map(|value| value.to_bits()).collect::<Vec<_>>());
    }
    assert_eq!(matrices.len(), HEADS.len(), "two heads have the same similarities");
}

#[test]
fn checkpoint_of_another_head_is_named() {
    let folder = scenes(2);
    let sgr = entry(&folder, "sgr", "{ type: sgr, sim_dim: 16, steps: 2 }");
    let scan = entry(&folder, "scan", "scan_t2i");
    let hint = |entry: &Path, checkpoint: &Path| {
        let [data, entry, checkpoint] = [folder.path(), entry, checkpoint].map(|path| path.to_str().unwrap());
        let arguments = ["reproduce", entry, "--quiet", "--data", data, "--checkpoint", checkpoint];
        let message = expect_error(folder.path(), arguments);
        message.lines().last().unwrap_or_default().to_owned()
    };
    let of_sgr = checkpoint(&folder, "of_sgr", &sgr);
    let of_scan = checkpoint(&folder, "of_scan", &scan);
    let of_laps = repository_file("checkpoints/shapes_vit.safetensors");
    assert_snapshot!(hint(&scan, &of_sgr), @"hint: the checkpoint is of another head: it has `sgr`, the model's head has no parameters");
    assert_snapshot!(hint(&sgr, &of_laps), @"hint: the checkpoint is of another head: it has `laps`, the model has `sgr`");
    assert_snapshot!(hint(&sgr, &of_scan), @"hint: the checkpoint has no parameters of a head, the model has `sgr`");
}

/// The entry of `head` and a checkpoint of it, as model options.
fn model(folder: &TempDir, name: &str, head: &str) -> [String; 6] {
    let entry = entry(folder, name, head);
    let checkpoint = checkpoint(folder, name, &entry);
    let [entry, checkpoint] = [entry, checkpoint].map(|path| path.to_str().unwrap().to_owned());
    ["--entry", &entry, "--checkpoint", &checkpoint, "--engine", "rust"].map(str::to_owned)
}

#[test]
fn heads_with_parts_are_explained() {
    let folder = scenes(1);
    let image = folder.path().join("images/test_00000.png");
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for (number, head) in ["scan_t2i", "scan_i2t", "{ type: chan, aggregation: lse }"].into_iter().enumerate() {
        let model = model(&folder, &format!("head_{number}"), head);
        let model: Vec<&str> = model.iter().map(String::as_str).collect();
        let [page, picture] = ["a.html", "a.png"].map(path);
        let arguments =
            ["explain", image.to_str().unwrap(), "--caption", "a red circle", "--out", &page, "--out", &picture];
        let document = ok_json(&[&arguments, &model[..]].concat());
        let number = |value: &Value| value.as_f64().unwrap();
        let parts: f64 =
            document["patches"].as_array().unwrap().iter().map(|patch| number(&patch["contribution"])).sum();
        assert!((parts + number(&document["class_token"]) - number(&document["similarity"])).abs() < 1e-6, "{head}");
        let score = ok_json(&[&["score", arguments[1], "--caption", "a red circle"], &model[..]].concat());
        // Similarities of `lse` are about 10, where neighbours of f32 are 1e-6 apart; the engine sums f32 cosines.
        assert!((number(&score["similarities"][0][0]) - number(&document["similarity"])).abs() < 1e-5, "{head}");
        assert_eq!(document["tokens"][1]["kind"], "patch");
        assert!(fs_err::read_to_string(&page).unwrap().contains("a red circle"));
        let map = laps_data::image::read(picture.as_ref()).unwrap().image;
        assert_ne!(map, laps_data::image::read(&image).unwrap().image, "{head}");
    }
    let refused = |name: &str, head: &str| {
        let model = model(&folder, name, head);
        let arguments = ["explain", image.to_str().unwrap(), "--caption", "a red circle"];
        expect_error(folder.path(), arguments.into_iter().chain(model.iter().map(String::as_str)))
    };
    assert_snapshot!(refused("pooled", "vsepp"), @r"
    error: a similarity of the head `vsepp, pooling mean` cannot be explained
      expected: a sum over patches and words
      found: one vector of each; no patch is compared with a word
    hint: explain a model with the head `laps`, `scan_*`, `max_mean` or `chan`
    ");
    assert_snapshot!(refused("sgr", "{ type: sgr, sim_dim: 16, steps: 2 }"), @r"
    error: a similarity of the head `sgr, sim_dim 16, steps 2` cannot be explained
      expected: a sum over patches and words
      found: a network over all words at once, whose output cannot be split into parts
    hint: explain a model with the head `laps`, `scan_*`, `max_mean` or `chan`
    ");
}

/// One head that pools and one that compares tokens, over HTTP.
#[test]
fn index_of_another_head_is_served_and_refused_by_name() {
    let folder = scenes(3);
    let images = folder.path().join("images");
    let image = BASE64_STANDARD.encode(fs_err::read(images.join("test_00001.png")).unwrap());
    let input = format!("data:image/png;base64,{image}");
    let mut indexes = Vec::new();
    for (name, head) in [("pooled", "vsepp"), ("scan", "scan_all")] {
        let model = model(&folder, name, head);
        let model: Vec<&str> = model.iter().map(String::as_str).collect();
        let index = folder.path().join(format!("{name}.index"));
        let [images, out] = [&images, &index].map(|path| path.to_str().unwrap());
        ok_json(&[&["index", images, "--out", out], &model[..]].concat());
        let mut command = Command::new(crate::PROGRAM);
        let server = RunningServer::spawn(command.arg("serve").arg(out).args(["--port", "0", "--quiet"]).args(&model));
        let found = server.ok("/v1/search", &value!({ "query": "a red circle", "top": 3, "candidates": 1 }));
        assert_eq!(found["compared"], 3, "{head}: {found}");
        assert_eq!(found["model"]["head"]["type"], if name == "pooled" { "vsepp" } else { "scan_all" });
        let scores = server.ok("/v1/score", &value!({ "images": [input], "texts": ["a red circle"] }));
        let result = found["results"].as_array().unwrap().iter().find(|result| result["item"] == 1).unwrap();
        let difference = scores["similarities"][0][0].as_f64().unwrap() - result["similarity"].as_f64().unwrap();
        // Embeddings of the index are in fp16.
        assert!(difference.abs() < 2e-3, "{head}: {difference}");
        let ranked = server.ok("/v1/rerank", &value!({ "query": "a red circle", "documents": [input, { "item": 0 }] }));
        assert_eq!(ranked["results"].as_array().unwrap().len(), 2);
        let vectors = server.ok("/v1/embeddings", &value!({ "input": ["a red circle", input] }));
        let vector = |index: usize| -> Vec<f64> {
            vectors["data"][index]["embedding"]
                .as_array()
                .unwrap()
                .iter()
                .map(|value| value.as_f64().unwrap())
                .collect()
        };
        let cosine: f64 = vector(0).iter().zip(vector(1)).map(|(a, b)| a * b).sum();
        assert_eq!((cosine - scores["similarities"][0][0].as_f64().unwrap()).abs() < 1e-6, name == "pooled");
        let explained = server.post("/v1/explain", &value!({ "image": input, "caption": "a red circle" }));
        assert_eq!(explained.status, if name == "pooled" { 422 } else { 200 }, "{head}");
        server.stop();
        indexes.push((index, model.iter().map(|&option| option.to_owned()).collect::<Vec<_>>()));
    }
    let [(pooled, _), (scan, model)] = &indexes[..] else { panic!("two indexes") };
    let bytes = |path: &Path| fs_err::metadata(path).unwrap().len();
    // Each image has 37 tokens of 64 values in fp16 besides its pooled vector.
    assert!(bytes(pooled) + 3 * 37 * 64 * 2 <= bytes(scan));
    let arguments = ["search", pooled.to_str().unwrap(), "a red circle"];
    let message = expect_error(folder.path(), arguments.into_iter().chain(model.iter().map(String::as_str)));
    assert_snapshot!(message, @r"
    error: the index `DIR/pooled.index` was written by another head
      expected: `shapes_vit`, head `scan_all`
      found: `shapes_vit`, head `vsepp, pooling mean`
    hint: use the entry, checkpoint or graphs that wrote it, or create another index
    ");
}
