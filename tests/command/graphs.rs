//! Graphs: exported, compared, and taken by `reproduce`.

use std::path::Path;

use insta::assert_snapshot;

use crate::{
    files::scenes,
    matrix::Matrix,
    support::{json, laps_zoo, refused},
};

/// ONNX Runtime, or words where it is not.
pub(crate) fn runtime() -> bool {
    let found = export::runtime::library::find();
    if let Err(error) = &found {
        println!("not run: {error}");
    }
    found.is_ok()
}

pub(crate) fn export_to(folder: &Path, more: &[&str]) -> (i32, String) {
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
    assert_snapshot!(run.stdout, @r"
    Export an entry to ONNX, and compare the graphs with the model

    Usage: laps-zoo export [OPTIONS] --onnx <ENTRY>

    Arguments:
      <ENTRY>  Name of an entry, or path of an entry file

    Options:
          --onnx                   As ONNX, the one form there is
          --checkpoint <FILE>      The checkpoint: .safetensors or .pth
          --vocab <FILE>           The WordPiece vocabulary, to be part of the folder [default: that of
                                   the entry's data, where it is at hand]
          --out <DIR>              Folder to write, which must not be there yet [default:
                                   NAME-FLAVOUR-PRECISION]
          --flavour <FLAVOUR>      Operators: portable (ai.onnx alone) or ort (with the fused ones of
                                   ONNX Runtime) [default: portable]
          --precision <PRECISION>  Numbers: fp32, fp16, int8 [default: fp32]
          --opset <N>              Version of the operators, 17 to 23 [default: 18]
          --validate               Evaluate the entry with the graphs and without, and compare the
                                   recalls
          --data <DIR>             Root of the caption and image folders, for --validate and the
                                   vocabulary [default: the folder of the entry file]
          --split <SPLIT>          Split to validate on [default: the entry's test split]
          --limit <N>              Validate on the first N images of the split and their captions only
          --threads <N>            Threads [default: one for each processor]
      -q, --quiet                  No progress
      -h, --help                   Print help
    ");
}

#[test]
fn an_export_says_how_far_it_is_from_the_model() {
    if !runtime() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let (status, text) = export_to(&root.path().join("graphs"), &[]);
    assert_eq!(status, 0, "{text}");
    assert_snapshot!(without_figures(&text), @r"
    shapes_vit, graphs portable, fp32, opset 18, in `DIR/graphs`
      image.onnx       0.51 MB; differs
      text.onnx        0.33 MB; differs
      score.onnx       0.02 MB; differs
    note: the embedded checkpoint is what the entry's own recipe gives on the drawn split `train`: the weights after its last epoch
    compared in ONNX Runtime: within differences up to 1e-4, a cosine of at least 0.999999
    ");
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
    assert_snapshot!(message(&["--opset", "16"]), @r"
    error: `--opset` can not be used
      expected: 17 to 23
      found: 16
    ");
    assert_snapshot!(message(&["--flavour", "fast"]), @r"
    error: `--flavour` can not be used
      expected: `portable` or `ort`
      found: fast
    ");
    assert_snapshot!(message(&["--precision", "fp8"]), @r"
    error: `--precision` can not be used
      expected: `fp32`, `fp16` or `int8`
      found: fp8
    ");
    fs_err::write(root.path().join("mine"), b"mine").unwrap();
    assert_snapshot!(message(&["--out", folder]), @r"
    error: can not write the graphs to `DIR`: it holds something already
    hint: name a new folder as --out, or remove this one
    ");
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
    let text = message("shapes_swin", &[]);
    assert!(
        text.starts_with(
            "error: engine `ort` can not be used\n  caused by: `DIR/graphs` can not be used as a folder of graphs\n"
        ),
        "{text}"
    );
    assert!(text.contains("\n  found: graphs of `shapes_vit`, configuration with sha256 "), "{text}");
    assert!(text.ends_with("\nhint: export the graphs of this entry and checkpoint, or name theirs\n"), "{text}");
    assert_snapshot!(message("shapes_vit", &["--engine", "rust"]), @r"
    error: `--graphs` can not be used
      expected: the engine `ort` or `auto`
      found: the engine `rust`
    ");
    let path = graphs.join("text.onnx");
    let mut bytes = fs_err::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs_err::write(&path, bytes).unwrap();
    let text = message("shapes_vit", &[]);
    assert!(text.starts_with("error: engine `ort` can not be used\n  caused by: `DIR/graphs/text.onnx` can not be used as a folder of graphs\n"), "{text}");
    assert!(text.ends_with("hint: write it again with `laps-zoo export NAME --onnx --out DIR`\n"), "{text}");
}
