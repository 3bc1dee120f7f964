//! Packages: the folder of an exported entry.
#![allow(clippy::unwrap_used, clippy::panic)] // tests and their helpers

mod support;

use std::{path::Path, rc::Rc};

use laps_align::similarity::{AlignmentConfig, EngineOptions, HeadEngine, SimdLevel};
use laps_data::{TokenizerConfig, Vocabulary, scenes};
use laps_hub::{checkpoint::Checkpoint, registry};
use laps_model::heads::{Ablation, HeadConfig};
use laps_onnx::{
    Error,
    graph::{Flavour, GraphKind, GraphPrecision, Target},
    package::{ExportRequest, Package, PackageManifest, export},
    protobuf::ModelProto,
};
use prost::Message as _;
use safetensors::SafeTensors;
use support::{runtime, target};

fn request(target: Target, precision: GraphPrecision) -> ExportRequest {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../checkpoints/shapes_vit.safetensors");
    ExportRequest {
        entry: registry::find("shapes_vit").unwrap(),
        checkpoint: Rc::new(Checkpoint::open(path).unwrap()),
        target,
        precision,
        threads: 1,
        vocabulary: Some(Vocabulary {
            path: "vocab.txt".into(),
            bytes: scenes::vocabulary().join("\n").into_bytes(),
            config: TokenizerConfig::default(),
        }),
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn package_holds_graphs_manifest_and_golden_tensors() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("graphs");
    let request = request(Target::default(), GraphPrecision::Fp32);
    let exported = export(&request, &folder).unwrap();
    assert!(exported.out_of_tolerance.is_empty(), "{exported:?}");
    assert_eq!(names(root.path()), ["graphs"], "no temporary folder is left");
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
    // The last digit of a drift may change in JSON.
    let without_drift = |manifest: &PackageManifest| {
        let mut manifest = manifest.clone();
        manifest.graphs.values_mut().for_each(|graph| graph.drift = None);
        manifest
    };
    assert_eq!(without_drift(&package.manifest), without_drift(&exported.manifest));
    assert_eq!(package.manifest.checkpoint_sha256, request.checkpoint.sha256().unwrap());
    package.check(&request.entry.config_sha256, &request.checkpoint.sha256().unwrap()).unwrap();
    let bytes = std::fs::read(folder.join("golden.safetensors")).unwrap();
    let golden = SafeTensors::deserialize(&bytes).unwrap();
    for (kind, graph) in &package.manifest.graphs {
        for port in graph.inputs.iter().chain(&graph.outputs) {
            let view = golden.tensor(&format!("{kind}.{}", port.name)).unwrap();
            assert_eq!(view.shape().len(), port.shape.len());
        }
    }
    assert_eq!(golden.names().len(), 2 + 3 + 4);
    let model = ModelProto::decode(&std::fs::read(folder.join("image.onnx")).unwrap()[..]).unwrap();
    let metadata = |key: &str| {
        let property = model.metadata_props.iter().find(|property| property.key == format!("laps_zoo.{key}"));
        property.unwrap().value.clone()
    };
    assert_eq!([metadata("entry"), metadata("part"), metadata("opset")], ["shapes_vit", "image", "18"]);
    assert_eq!(metadata("config_sha256"), request.entry.config_sha256);
    assert_eq!(metadata("checkpoint_sha256"), package.manifest.checkpoint_sha256);
    assert!(metadata("image_preprocessing").contains("\"size\":60"), "{}", metadata("image_preprocessing"));
    if runtime() {
        assert!(exported.manifest.graphs.values().all(|graph| graph.drift.is_some()));
    }
}

/// Reduced precision also has a minimum drift: a graph left in single precision would have none.
#[test]
fn reduced_precisions_are_smaller_and_within_tolerance() {
    if !runtime() {
        return;
    }
    for flavour in [Flavour::Portable, Flavour::Ort] {
        let root = tempfile::tempdir().unwrap();
        let mut sizes = Vec::new();
        for precision in [GraphPrecision::Fp32, GraphPrecision::Fp16, GraphPrecision::Int8] {
            let exported =
                export(&request(target(flavour, 18), precision), &root.path().join(precision.to_string())).unwrap();
            assert!(exported.out_of_tolerance.is_empty(), "{flavour} {precision}: {exported:#?}");
            for kind in [GraphKind::Image, GraphKind::Text] {
                let drift = exported.manifest.graphs[kind.name()].drift.unwrap();
                println!("{flavour} {precision} {kind}: {drift:?}");
                assert!(drift.largest < 1e-4 || precision != GraphPrecision::Fp32);
                assert!(drift.largest > 1e-4 || precision == GraphPrecision::Fp32);
            }
            let file = std::fs::read(root.path().join(precision.to_string()).join("image.onnx")).unwrap();
            sizes.push((constants(&file) as f64, file.len() as f64));
        }
        println!("{flavour}: {sizes:?}");
        let [single, half, eight] = sizes[..] else { panic!("{sizes:?}") };
        // In int8, biases, norms and positions stay in single precision. Most of the rest of the file of this small model is
        // names, and int8 has more nodes.
        assert!(half.0 < 0.51 * single.0 && eight.0 < 0.3 * single.0, "{sizes:?}");
        assert!(half.1 < 0.6 * single.1 && eight.1 < 0.5 * single.1, "{sizes:?}");
    }
}

/// Size in bytes of the constants of a graph.
fn constants(file: &[u8]) -> usize {
    let graph = ModelProto::decode(file).unwrap().graph.unwrap();
    graph.initializer.iter().map(|constant| constant.raw_data.len()).sum()
}

#[test]
fn folder_that_is_not_empty_is_rejected_and_unchanged() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("graphs");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("mine"), b"mine").unwrap();
    let request = request(Target::default(), GraphPrecision::Fp32);
    for (folder, reason) in [
        (folder.clone(), "the folder is not empty"),
        (folder.join("mine"), "it is not a folder"),
        (root.path().join("absent/graphs"), "its parent folder does not exist"),
    ] {
        let error = export(&request, &folder).unwrap_err();
        assert!(matches!(&error, Error::Folder { reason: own, .. } if *own == reason), "{error:?}");
    }
    assert_eq!((names(root.path()), names(&folder)), (vec!["graphs".to_owned()], vec!["mine".to_owned()]));
}

/// To a folder that is there and to one that is not.
#[cfg(unix)]
#[test]
fn link_is_followed_and_the_folder_has_the_mode_of_the_umask() {
    use std::os::unix::fs::{PermissionsExt, symlink};

    let root = tempfile::tempdir().unwrap();
    let [plain, real, link] = ["plain", "real", "link"].map(|name| root.path().join(name));
    std::fs::create_dir(&plain).unwrap();
    symlink("real", &link).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
    for exists in [false, true] {
        if exists {
            std::fs::remove_dir_all(&real).unwrap();
            std::fs::create_dir(&real).unwrap();
        }
        export(&request(Target::default(), GraphPrecision::Fp32), &link).unwrap();
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(mode(&real), mode(&plain));
        assert_eq!(names(root.path()), ["link", "plain", "real"]);
        Package::open(&real).unwrap();
    }
    let error = export(&request(Target::default(), GraphPrecision::Fp32), &link).unwrap_err();
    assert!(
        matches!(&error, Error::Folder { path, reason: "the folder is not empty", .. } if *path == link),
        "{error}"
    );
}

#[test]
fn changed_package_and_package_of_another_entry_are_rejected() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("graphs");
    let message = |error: Error| error.to_string().replace(&root.path().display().to_string(), "DIR");
    std::fs::create_dir(&folder).unwrap();
    insta::assert_snapshot!(message(Package::open(&folder).unwrap_err()), @r"
    `DIR/graphs` cannot be used as a folder of graphs
      expected: a file `manifest.json`
      found: none
    ");
    export(&request(Target::default(), GraphPrecision::Fp32), &folder).unwrap();
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
            text.starts_with(&format!("`DIR/graphs/{file}` cannot be used as a folder of graphs\n  expected: sha256 ")),
            "{text}"
        );
        std::fs::write(&path, whole).unwrap();
    }
    let path = folder.join("manifest.json");
    let plain = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("\u{feff}{plain}")).unwrap();
    Package::open(&folder).unwrap();
    std::fs::remove_file(folder.join("text.onnx")).unwrap();
    assert!(message(Package::open(&folder).unwrap_err()).contains("text.onnx"));

    // A manifest cannot name files outside its folder.
    let path = folder.join("manifest.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"golden.safetensors\"", "\"../golden.safetensors\"")).unwrap();
    assert!(message(Package::open(&folder).unwrap_err()).contains("names of files in the same folder"));
    std::fs::write(&path, b"{}").unwrap();
    assert!(message(Package::open(&folder).unwrap_err()).contains("expected: the manifest of an export"));
}

/// The engine of an ablation is made of the package alone, with and without parameters.
#[test]
fn package_of_an_ablation_has_the_sizes_of_its_alignment() {
    let root = tempfile::tempdir().unwrap();
    for (ablation, has_parameters) in [(Ablation::ScanAlignment, true), (Ablation::WithoutPatchSelection, false)] {
        let mut request = request(Target::default(), GraphPrecision::Fp32);
        request.entry.model.head = HeadConfig::LapsAblation { ablation };
        let folder = root.path().join(format!("{ablation:?}"));
        let exported = export(&request, &folder).unwrap();
        assert!(exported.out_of_tolerance.is_empty(), "{exported:?}");
        assert_eq!(folder.join("head.safetensors").exists(), has_parameters);

        let mut package = Package::open(&folder).unwrap();
        let sizes = package.ablated_alignment().unwrap();
        assert_eq!(sizes, AlignmentConfig::of(&request.entry.model));
        let (_, read) = package.head().unwrap();
        HeadEngine::of_ablation(ablation, sizes, read, EngineOptions::default(), SimdLevel::detect()).unwrap();

        let mut edited = |alignment| {
            package.manifest.head_file.as_mut().unwrap().alignment = alignment;
            package.ablated_alignment()
        };
        let other = AlignmentConfig { patches: sizes.patches + 1, ..sizes };
        assert!(matches!(edited(Some(other)), Err(Error::Package { .. })));
        assert!(matches!(edited(Some(AlignmentConfig { kept: 0, ..sizes })), Err(Error::Align(_))));
        assert!(matches!(edited(None), Err(Error::Package { .. })));
    }
}
