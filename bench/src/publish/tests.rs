//! Model folders, and their files read by the Python packages that define the formats.

use std::{
    path::{Path, PathBuf},
    process::Command,
    rc::Rc,
};

use laps_align::{CaptionImages, Protocol, Scores};
use laps_data::Split;
use laps_hub::registry::{self, embedded_checkpoint};
use laps_model::random::SplitMix64;
use laps_onnx::{
    graph::{GraphPrecision, Target},
    package::{ExportRequest, Package, export},
};
use serde_json::{Value, json};

use super::{HubDataSet, ModelFolder, eval_results, mteb, write_model_folder};
use crate::{Error, card::card, results::sample};

const RECALLS: [f64; 6] = [65.1, 90.2, 94.62, 51.196, 79.3, 87.5];

fn repository_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

/// Output of a script in the environment that `.ci/run NAME` installs; `None` without it.
fn python(environment: &str, script: &str, arguments: &[&Path]) -> Option<String> {
    let python = repository_file(&format!(".runtime/{environment}/bin/python"));
    if !python.is_file() {
        println!("skipped: there is no `{}`; `.ci/run {environment}` installs it", python.display());
        return None;
    }
    let output = Command::new(python).arg(repository_file(script)).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

/// A result of `shapes_vit` with the embedded checkpoint.
fn shapes_result(folder: &Path) -> PathBuf {
    let mut result = sample::result("shapes_vit", &[RECALLS]);
    sample::entry(&mut result).checkpoint.sha256 = embedded_checkpoint("shapes_vit").unwrap().sha256();
    let path = folder.join("shapes.json");
    fs_err::write(&path, serde_json::to_string(&result).unwrap()).unwrap();
    path
}

fn names(folder: &Path) -> Vec<String> {
    let files = laps_hub::push::folder_files(folder).unwrap();
    files.into_iter().map(|file| file.name).collect()
}

#[test]
fn model_folder_has_weights_entry_card_and_results() {
    let folder = tempfile::tempdir().unwrap();
    let result = shapes_result(folder.path());
    let out = folder.path().join("model");
    fs_err::create_dir(&out).unwrap();
    let hub_data: HubDataSet = "someone/shapes".parse().unwrap();
    let model = ModelFolder {
        entry: "shapes_vit",
        checkpoint: None,
        results: std::slice::from_ref(&result),
        graphs: &[],
        hub_data: Some(&hub_data),
        repository: "someone/laps-shapes",
    };
    write_model_folder(&out, &model).unwrap();
    assert_eq!(
        names(&out),
        [
            ".eval_results/someone__shapes.yaml",
            "README.md",
            "model.safetensors",
            "results/shapes.json",
            "shapes_vit.yaml",
        ]
    );
    assert_eq!(fs_err::read(out.join("results/shapes.json")).unwrap(), fs_err::read(&result).unwrap());
    // The entry and the weights of the folder are a model again.
    let entry = registry::find(out.join("shapes_vit.yaml").to_str().unwrap()).unwrap();
    assert_eq!(entry.config_sha256, registry::find("shapes_vit").unwrap().config_sha256);
    laps::open_checkpoint(&entry, Some(&out.join("model.safetensors"))).unwrap();
    // Scenes that laps-zoo draws are no data set of the hub.
    let other = folder.path().join("other");
    fs_err::create_dir(&other).unwrap();
    write_model_folder(&other, &ModelFolder { hub_data: None, ..model }).unwrap();
    assert!(!names(&other).iter().any(|name| name.starts_with(".eval_results")), "{:?}", names(&other));
}

#[test]
fn results_of_other_weights_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shapes.json");
    fs_err::write(&path, sample::value("shapes_vit", &[RECALLS]).to_string()).unwrap();
    let model = ModelFolder {
        entry: "shapes_vit",
        checkpoint: None,
        results: std::slice::from_ref(&path),
        graphs: &[],
        hub_data: None,
        repository: "someone/laps-shapes",
    };
    let error = write_model_folder(folder.path(), &model).unwrap_err().to_string();
    assert!(error.contains("expected: results of the checkpoint with sha256 "), "{error}");
    let twice = [path.clone(), path.clone()];
    let error = write_model_folder(folder.path(), &ModelFolder { results: &twice, ..model }).unwrap_err().to_string();
    assert!(error.contains("found: `shapes.json` twice"), "{error}");
}

/// Exports `shapes_vit` with the embedded checkpoint.
fn export_shapes(folder: &Path) {
    let entry = registry::find("shapes_vit").unwrap();
    let (checkpoint, _) = laps::open_checkpoint(&entry, None).unwrap();
    let request = ExportRequest {
        entry,
        checkpoint: Rc::new(checkpoint),
        target: Target::default(),
        precision: GraphPrecision::Fp32,
        threads: 1,
        vocabulary: None,
    };
    export(&request, folder).unwrap();
}

#[test]
fn graphs_are_copied_and_those_of_other_weights_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let graphs = folder.path().join("graphs");
    export_shapes(&graphs);
    let write = |name: &str, graphs: &[PathBuf]| {
        let out = folder.path().join(name);
        fs_err::create_dir(&out).unwrap();
        let model = ModelFolder {
            entry: "shapes_vit",
            checkpoint: None,
            results: &[],
            graphs,
            hub_data: None,
            repository: "someone/laps-shapes",
        };
        write_model_folder(&out, &model).map(|()| out).map_err(|error| error.to_string())
    };
    let out = write("model", std::slice::from_ref(&graphs)).unwrap();
    let written = out.join("onnx/portable-fp32");
    Package::open(&written).unwrap();
    let files = names(&graphs);
    for file in ["image.onnx", "manifest.json", "score.onnx", "text.onnx"] {
        assert!(files.iter().any(|name| name == file), "{files:?}");
    }
    assert_eq!(names(&written), files);
    for file in &files {
        assert!(fs_err::read(written.join(file)).unwrap() == fs_err::read(graphs.join(file)).unwrap(), "{file}");
    }

    let twice = write("twice", &[graphs.clone(), graphs.clone()]).unwrap_err();
    assert!(twice.contains("expected: folders of different flavours or precisions"), "{twice}");
    let path = graphs.join("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&fs_err::read(&path).unwrap()).unwrap();
    manifest["checkpoint_sha256"] = "0".repeat(64).into();
    fs_err::write(&path, manifest.to_string()).unwrap();
    let other = write("other", std::slice::from_ref(&graphs)).unwrap_err();
    let embedded = embedded_checkpoint("shapes_vit").unwrap().sha256();
    let expected = format!("and the checkpoint with sha256 {embedded}\n  found: ");
    assert!(other.contains(&expected) && other.contains(&"0".repeat(64)), "{other}");
    // A file that is not the one of the manifest.
    fs_err::write(graphs.join("text.onnx"), "changed").unwrap();
    let changed = write("changed", std::slice::from_ref(&graphs)).unwrap_err();
    assert!(changed.contains("text.onnx"), "{changed}");
}

/// The card and `.eval_results` as the package of the hub reads them.
#[test]
fn hub_reads_card_and_results() {
    let folder = tempfile::tempdir().unwrap();
    let entry = registry::find("coco_swin").unwrap();
    let result = sample::result("coco_swin", &[RECALLS, [83.9, 97.9, 99.1, 71.9, 93.65, 97.3]]);
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let hub_data: HubDataSet = format!("someone/coco@{commit}").parse().unwrap();
    let readme = folder.path().join("README.md");
    fs_err::write(&readme, card(&entry, vec![result.clone()], Some(&hub_data)).unwrap()).unwrap();
    let named = [("result.json".to_owned(), result)];
    let files = eval_results::files(&entry, &named, Some(&hub_data), "someone/laps").unwrap();
    let [(name, text)] = files.as_slice() else { panic!("{files:?}") };
    assert_eq!(name, "someone__coco.yaml");
    let path = folder.path().join(name);
    fs_err::write(&path, text).unwrap();
    let default = eval_results::files(&entry, &named, None, "someone/laps").unwrap();
    assert_eq!(default[0].0, "nlphuji__mscoco_2014_5k_test_image_text_retrieval.yaml");

    let Some(output) = python("huggingface_hub", "tests/hub_formats.py", &[&readme, &path]) else { return };
    let read: Value = serde_json::from_str(&output).unwrap();
    let index = read["index"].as_array().unwrap();
    let measured: Vec<&Value> =
        index.iter().filter(|result| result["dataset_args"]["measured_by"] == "laps-zoo 0.1.0").collect();
    assert_eq!(measured.len(), 12);
    let first = measured[0];
    for (key, expected) in [
        ("dataset_type", "someone/coco"),
        ("dataset_name", "MS-COCO, 5,000 images"),
        ("dataset_config", "coco_5k"),
        ("dataset_split", "testall"),
        ("dataset_revision", commit),
        ("metric_type", "recall_at_1"),
        ("metric_name", "image to text R@1"),
    ] {
        assert_eq!(first[key], expected, "{key}");
    }
    assert_eq!(first["metric_value"], 65.1);
    assert_eq!(first["dataset_args"]["data_sha256"], "d".repeat(64));
    let published = |result: &&Value| result["source_name"] == "published: readme";
    assert!(index.iter().any(|result| published(&result)), "{index:?}");
    let entries = read["eval_results"].as_array().unwrap();
    assert_eq!(entries.len(), 12);
    let second = &entries[3];
    assert_eq!(second["task_id"], "coco_5k_t2i_recall_at_1");
    assert_eq!((&second["value"], &second["dataset_revision"]), (&json!(51.196), &json!(commit)));
    assert_eq!(second["source_url"], "https://huggingface.co/someone/laps/blob/main/results/result.json");
}

/// A matrix with many equal scores.
#[test]
fn metrics_equal_those_of_mteb() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = SplitMix64::new(11);
    let images = 40;
    let mut values: Vec<f32> = (0..images * 5 * images).map(|_| random.below(200) as f32 / 64.0).collect();
    for (caption, row) in (0..5 * images).map(|caption| (caption, caption / 5)) {
        values[row * 5 * images + caption] += random.below(100) as f32 / 64.0;
    }
    let captions = CaptionImages::uniform(images, 5).unwrap();
    mteb::write(folder.path(), &Scores::new(&values, images, 5 * images).unwrap(), &captions, Some(1.5)).unwrap();
    let matrix = folder.path().join("matrix.npy");
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({images}, {}), }}", 5 * images);
    header += &" ".repeat(64 - (11 + header.len()) % 64);
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16 + 1).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.push(b'\n');
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    fs_err::write(&matrix, bytes).unwrap();
    let Some(output) = python("mteb", "tests/mteb_reference.py", &[&matrix, folder.path()]) else { return };
    // Six metrics at seven depths, and the accuracy.
    assert_eq!(output, "Flickr30kI2TRetrieval 43\nFlickr30kT2IRetrieval 43\n");
}

#[test]
fn other_protocols_have_no_task_of_mteb() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("test_ids.txt", "a\na\n"),
        ("test_caps.txt", "A dog.\nA big dog.\n"),
        ("id_mapping.json", "{\"a\": \"a.jpg\"}"),
    ] {
        fs_err::write(folder.path().join(name), text).unwrap();
    }
    let split = Split::open(folder.path(), "test").unwrap();
    let refused = |protocols: &[Protocol]| match mteb::check(&split, protocols) {
        Err(error @ Error::Mteb { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    insta::assert_snapshot!(refused(&[Protocol::F30k]), @r"
    no task of MTEB has this protocol
      expected: 1000 images, 5000 captions of 319250 letters, 11 to 375 each
      found: 1 images, 2 captions of 16 letters, 6 to 10 each
    ");
    insta::assert_snapshot!(refused(&[Protocol::Coco5k, Protocol::Coco1k]), @r"
    no task of MTEB has this protocol
      expected: the protocol `f30k`
      found: a protocol of COCO; the COCO tasks of MTEB rank 24,809 captions without repeated texts instead of 25,000
    ");
}
