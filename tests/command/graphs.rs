//! Graphs: exported, compared, and taken by `reproduce`.

use std::path::Path;

use insta::assert_snapshot;

use crate::{
    files::scenes,
    matrix::Matrix,
    support::{json, laps_zoo, refused},
};

/// ONNX Runtime, or words where it is not.
fn runtime() -> bool {
    let found = export::runtime::library::find();
    if let Err(error) = &found {
        println!("not run: {error}");
    }
    found.is_ok()
}

fn export_to(folder: &Path, more: &[&str]) -> (i32, String) {
    let arguments = ["export", "shapes_vit", "--onnx", "--quiet", "--out", folder.to_str().unwrap()];
    let run = laps_zoo(arguments.iter().chain(more));
    assert_eq!(run.stderr, "");
    let folder = folder.parent().unwrap().display().to_string();
    (run.status, run.stdout.replace(&folder, "DIR"))
}

/// Figures of drift hang on the processor.
fn without_figures(text: &str) -> String {
    let line = |line: &str| match line.split_once("; differs from the model by ") {
        Some((size, _)) => format!("{size}; differs\n"),
        None => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

#[test]
fn help_of_export() {
    let run = laps_zoo(["export", "--help"]);
    assert_snapshot!(run.stdout, @"");
}

#[test]
fn an_export_says_how_far_it_is_from_the_model() {
    if !runtime() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let (status, text) = export_to(&root.path().join("graphs"), &[]);
    assert_eq!(status, 0, "{text}");
    assert_snapshot!(without_figures(&text), @"");
}

/// The graphs of a folder, those that are made for the run, and the tensor in pure Rust give one matrix.
#[test]
fn reproduce_takes_graphs() {
    if !runtime() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let graphs = root.path().join("graphs");
    assert_eq!(export_to(&graphs, &["--flavour", "ort"]).0, 0);
    let data = scenes(12);
    let [sims, result] = ["sims", "result"].map(|name| root.path().join(name));
    let run = |more: &[&str]| {
        let arguments = ["reproduce", "shapes_vit", "--quiet", "--data", data.path().to_str().unwrap()];
        let outputs = ["--sims", sims.to_str().unwrap(), "--json", result.to_str().unwrap()];
        let run = laps_zoo(arguments.iter().chain(&outputs).chain(more));
        assert_eq!((run.status, run.stderr.as_str()), (0, ""), "{more:?}");
        (Matrix::open(&sims), json(&result)["provenance"]["engine"].clone())
    };
    let (expected, engine) = run(&["--engine", "rust"]);
    assert_eq!((engine["name"].as_str(), engine.get("graphs")), (Some("rust"), None));
    // A folder that is named decides for `auto`.
    for more in [&["--engine", "ort"][..], &["--graphs", graphs.to_str().unwrap()]] {
        let (found, engine) = run(more);
        assert_eq!(engine["name"], "ort");
        let flavour = if more[0] == "--graphs" { "ort" } else { "portable" };
        assert_eq!(engine["graphs"], format!("{flavour}, fp32, opset 18"));
        let differences = found.values.iter().zip(&expected.values).map(|(a, b)| (a - b).abs());
        // Values up to 2, by sums in another order.
        assert!(differences.fold(0.0, f32::max) <= 1e-4);
    }
}

/// Both tables, and what is lost between them; that of an untrained model hangs on the processor.
#[test]
fn validation_compares_the_recalls() {
    if !runtime() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let data = scenes(12);
    let more = ["--precision", "int8", "--validate", "--data", data.path().to_str().unwrap()];
    let (status, text) = export_to(&root.path().join("graphs"), &more);
    let loss = text.lines().find_map(|line| line.strip_prefix("rSum lost: ")).unwrap();
    let (points, verdict) = loss.split_once(" points, ").unwrap();
    let outside = points.parse::<f64>().unwrap() > 2.0;
    assert_eq!(verdict, format!("{} the tolerance of 2.0", if outside { "outside" } else { "within" }));
    assert_eq!(status, i32::from(outside), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("│ ort, portable, int8, opset 18")).count(), 1, "{text}");
}

#[test]
fn what_can_not_be_exported_is_refused_before_the_work() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().to_str().unwrap();
    let message = |more: &[&str]| {
        refused(root.path(), ["export", "shapes_vit", "--onnx"].iter().chain(more).copied().collect::<Vec<_>>())
    };
    assert_snapshot!(message(&["--opset", "16"]), @"");
    assert_snapshot!(message(&["--flavour", "fast"]), @"");
    assert_snapshot!(message(&["--precision", "fp8"]), @"");
    fs_err::write(root.path().join("mine"), b"mine").unwrap();
    assert_snapshot!(message(&["--out", folder]), @"");
    let out = root.path().join("graphs");
    let arguments = ["export", "f30k_vit", "--onnx", "--out", out.to_str().unwrap()];
    assert!(refused(root.path(), arguments).starts_with("error: entry `f30k_vit` needs a checkpoint\n"));
    assert!(!out.exists());
}

#[test]
fn graphs_that_are_not_those_of_the_request_are_refused() {
    if !runtime() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let graphs = root.path().join("graphs");
    assert_eq!(export_to(&graphs, &[]).0, 0);
    let data = scenes(2);
    let message = |entry: &str, more: &[&str]| {
        let arguments = ["reproduce", entry, "--quiet", "--data", data.path().to_str().unwrap()];
        let graphs = ["--graphs", graphs.to_str().unwrap()];
        refused(root.path(), arguments.iter().chain(&graphs).chain(more).copied().collect::<Vec<_>>())
    };
    assert_snapshot!(message("shapes_swin", &[]), @"");
    assert_snapshot!(message("shapes_vit", &["--engine", "rust"]), @"");
    let path = graphs.join("text.onnx");
    let mut bytes = fs_err::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs_err::write(&path, bytes).unwrap();
    let text = message("shapes_vit", &[]);
    assert!(text.starts_with("error: engine `ort` can not be used\n  caused by: `DIR/graphs/text.onnx` can not be used as a folder of graphs\n"), "{text}");
    assert!(text.ends_with("hint: write it again with `laps-zoo export NAME --onnx --out DIR`\n"), "{text}");
}
