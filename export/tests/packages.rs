//! The folder of an exported entry.
#![allow(clippy::unwrap_used, clippy::panic)] // a helper of tests is a test

mod support;

use std::{path::Path, rc::Rc};

use laps_data::scenes;
use laps_hub::{checkpoint::Checkpoint, registry};
use laps_onnx::{
    Error,
    graph::{Flavour, Target},
    package::{Golden, Manifest, Package, Precision, Request, export},
    protobuf::ModelProto,
    record::Part,
};
use prost::Message as _;
use safetensors::SafeTensors;
use support::{open, runtime, target};

fn request(target: Target, precision: Precision) -> Request {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../checkpoints/shapes_vit.safetensors");
    Request {
        entry: registry::find("shapes_vit").unwrap(),
        checkpoint: Rc::new(Checkpoint::open(path).unwrap()),
        target,
        precision,
        threads: 1,
        vocabulary: Some(scenes::vocabulary().join("\n").into_bytes()),
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_folder_holds_the_graphs_a_manifest_and_tensors_to_compare_with() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("graphs");
    let request = request(Target::default(), Precision::Fp32);
    let exported = export(&request, &folder).unwrap();
    assert!(exported.outside.is_empty(), "{exported:?}");
    assert_eq!(names(root.path()), ["graphs"], "nothing is left beside it");
    let expected = [
        "alignment.safetensors",
        "golden.safetensors",
        "image.onnx",
        "manifest.json",
        "score.onnx",
        "text.onnx",
        "vocab.txt",
    ];
    assert_eq!(names(&folder), expected);

    let package = Package::open(&folder).unwrap();
    // The last digit of a drift may change on its way through JSON.
    let without_drift = |manifest: &Manifest| {
        let mut manifest = manifest.clone();
        manifest.graphs.values_mut().for_each(|graph| graph.drift = None);
        manifest
    };
    assert_eq!(without_drift(&package.manifest), without_drift(&exported.manifest));
    assert_eq!(package.manifest.checkpoint_sha256, request.checkpoint.sha256().unwrap());
    package.check(&request.entry.config_sha256, &request.checkpoint.sha256().unwrap()).unwrap();
    let bytes = std::fs::read(folder.join("golden.safetensors")).unwrap();
    let golden = SafeTensors::deserialize(&bytes).unwrap();
    for (part, graph) in &package.manifest.graphs {
        for port in graph.inputs.iter().chain(&graph.outputs) {
            let view = golden.tensor(&format!("{part}.{}", port.name)).unwrap();
            assert_eq!(view.shape().len(), port.shape.len());
        }
    }
    assert_eq!(Golden::names(&bytes).unwrap().len(), 2 + 3 + 4);
    if !runtime() {
        return;
    }
    assert!(exported.manifest.graphs.values().all(|graph| graph.drift.is_some()));
    let session = open(&folder.join("image.onnx"));
    let metadata = |key: &str| session.metadata(&format!("laps_zoo.{key}")).unwrap();
    assert_eq!([metadata("entry"), metadata("part"), metadata("opset")], ["shapes_vit", "image", "18"]);
    assert_eq!(metadata("config_sha256"), request.entry.config_sha256);
    assert_eq!(metadata("checkpoint_sha256"), package.manifest.checkpoint_sha256);
    assert!(metadata("image_preprocessing").contains("\"size\":60"), "{}", metadata("image_preprocessing"));
}

/// Drift of the precisions is bounded, and it is there: a graph that was left in single precision would have none.
#[test]
fn each_precision_is_smaller_and_near() {
    if !runtime() {
        return;
    }
    for flavour in [Flavour::Portable, Flavour::Ort] {
        let root = tempfile::tempdir().unwrap();
        let mut sizes = Vec::new();
        for precision in [Precision::Fp32, Precision::Fp16, Precision::Int8] {
            let exported =
                export(&request(target(flavour, 18), precision), &root.path().join(precision.to_string())).unwrap();
            assert!(exported.outside.is_empty(), "{flavour} {precision}: {exported:#?}");
            for part in [Part::Image, Part::Text] {
                let drift = exported.manifest.graphs[part.name()].drift.unwrap();
                println!("{flavour} {precision} {part}: {drift:?}");
                assert!(drift.largest < 1e-4 || precision != Precision::Fp32);
                assert!(drift.largest > 1e-4 || precision == Precision::Fp32);
            }
            let file = std::fs::read(root.path().join(precision.to_string()).join("image.onnx")).unwrap();
            sizes.push((constants(&file) as f64, file.len() as f64));
        }
        println!("{flavour}: {sizes:?}");
        let [single, half, eight] = sizes[..] else { panic!("{sizes:?}") };
        // Biases, norms and positions stay in single precision in 8 bits. The rest of a file of this small model is names,
        // of more nodes in fewer bits.
        assert!(half.0 < 0.51 * single.0 && eight.0 < 0.3 * single.0, "{sizes:?}");
        assert!(half.1 < 0.6 * single.1 && eight.1 < 0.5 * single.1, "{sizes:?}");
    }
}

/// Bytes of the constants of a graph.
fn constants(file: &[u8]) -> usize {
    let graph = ModelProto::decode(file).unwrap().graph.unwrap();
    graph.initializer.iter().map(|constant| constant.raw_data.len()).sum()
}

#[test]
fn a_folder_that_is_taken_is_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("graphs");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("mine"), b"mine").unwrap();
    let request = request(Target::default(), Precision::Fp32);
    for (folder, reason) in [
        (folder.clone(), "it holds something already"),
        (folder.join("mine"), "it is no folder"),
        (root.path().join("absent/graphs"), "the folder around it is not there"),
    ] {
        let error = export(&request, &folder).unwrap_err();
        assert!(matches!(&error, Error::Folder { reason: own, .. } if *own == reason), "{error:?}");
    }
    assert_eq!((names(root.path()), names(&folder)), (vec!["graphs".to_owned()], vec!["mine".to_owned()]));
}

#[test]
fn a_folder_that_was_changed_or_is_of_another_entry_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("graphs");
    let message = |error: Error| error.to_string().replace(&root.path().display().to_string(), "DIR");
    std::fs::create_dir(&folder).unwrap();
    insta::assert_snapshot!(message(Package::open(&folder).unwrap_err()), @r"
    `DIR/graphs` can not be used as a folder of graphs
      expected: a file `manifest.json`
      found: none
    ");
    export(&request(Target::default(), Precision::Fp32), &folder).unwrap();
    let package = Package::open(&folder).unwrap();
    let own = package.manifest.config_sha256.clone();
    assert!(
        message(package.check("0000", "0000").unwrap_err()).contains("graphs of the configuration with sha256 0000")
    );
    assert!(message(package.check(&own, "0000").unwrap_err()).contains("graphs of the checkpoint with sha256 0000"));

    for file in ["image.onnx", "golden.safetensors", "alignment.safetensors", "vocab.txt"] {
        let path = folder.join(file);
        let whole = std::fs::read(&path).unwrap();
        let mut changed = whole.clone();
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        std::fs::write(&path, &changed).unwrap();
        let text = message(Package::open(&folder).unwrap_err());
        assert!(
            text.starts_with(&format!(
                "`DIR/graphs/{file}` can not be used as a folder of graphs\n  expected: sha256 "
            )),
            "{text}"
        );
        std::fs::write(&path, whole).unwrap();
    }
    Package::open(&folder).unwrap();
    std::fs::remove_file(folder.join("text.onnx")).unwrap();
    assert!(message(Package::open(&folder).unwrap_err()).contains("text.onnx"));

    // A manifest does not reach out of its folder.
    let path = folder.join("manifest.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"golden.safetensors\"", "\"../golden.safetensors\"")).unwrap();
    assert!(message(Package::open(&folder).unwrap_err()).contains("names of files in the same folder"));
    std::fs::write(&path, b"{}").unwrap();
    assert!(message(Package::open(&folder).unwrap_err()).contains("expected: the manifest of an export"));
}
