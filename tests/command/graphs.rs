//! ONNX graphs: export, comparison with the model, and use by `reproduce`.

use std::path::Path;

use insta::assert_snapshot;

use crate::{
    files::scenes,
    matrix::Matrix,
    support::{expect_error, json, laps_zoo},
};

/// Returns true if ONNX Runtime is available, and prints a note if not.
pub(crate) fn runtime() -> bool {
    let found = laps_onnx::runtime::library::find();
    if let Err(error) = &found {
        println!("skipped: {error}");
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

/// Masks drift values, which depend on the CPU.
fn without_figures(text: &str) -> String {
    let line = |line: &str| match line.split_once("; differs from the model by ") {
        Some((size, _)) => format!("{size}; differs\n"),
        None => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

#[test]
fn export_help() {
    let run = laps_zoo(["export", "--help"]);
    assert_snapshot!(run.stdout, @r"
    Export an entry to ONNX, and compare the graphs with the model

    Usage: laps-zoo export [OPTIONS] --onnx <ENTRY>

    Arguments:
      <ENTRY>  Entry name, or path to an entry YAML file

    Options:
          --onnx                   Export to ONNX, the only supported format
          --checkpoint <FILE>      Checkpoint (.safetensors or .pth)
          --vocab <FILE>           WordPiece vocabulary to include in the folder [default: the
                                   vocabulary of the entry's data, if present]
          --out <DIR>              Folder to create; it must not exist [default: NAME-FLAVOUR-PRECISION]
          --flavour <FLAVOUR>      Operators: portable (ai.onnx only) or ort (with fused operators of
                                   ONNX Runtime) [default: portable; ort for ViT with --ep cuda]
          --precision <PRECISION>  Precision: fp32, fp16 or int8 [default: fp32]
          --opset <N>              ONNX opset version, 17 to 23 [default: 18]
          --validate               Evaluate the entry with and without the graphs, and compare the
                                   recalls
          --data <DIR>             Root of the caption and image folders, for --validate and the
                                   vocabulary [default: the folder of the entry file]
          --data-source <LAYOUT>   Layout of the data: laps, karpathy, coco, parquet, kaggle,
                                   webdataset, folder, authors, docci, dci, urban1k or sharegpt4v
                                   [default: the entry's]
          --split <SPLIT>          Split for --validate [default: the entry's test split]
          --limit <N>              Validate only on the first N images of the split and their captions
          --ep <PROVIDER>          ONNX Runtime execution provider: auto, cpu, cuda or tensorrt; an
                                   unavailable one is an error
          --ep-memory <MIB>        Memory limit in MiB of the CUDA arena or the TensorRT workspace
          --ep-cache <DIR>         Folder in which TensorRT caches the engines that it builds
          --threads <N>            Number of threads [default: one per CPU]
      -q, --quiet                  Hide progress output
      -h, --help                   Print help
    ");
}

#[test]
fn export_reports_drift() {
    if !runtime() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let (status, text) = export_to(&root.path().join("graphs"), &[]);
    assert_eq!(status, 0, "{text}");
    assert_snapshot!(without_figures(&text), @r"
    shapes_vit, graphs portable, fp32, opset 18, in `DIR/graphs`
      image.onnx       0.54 MB; differs
      text.onnx        0.33 MB; differs
      score.onnx       0.02 MB; differs
    note: the embedded checkpoint has the weights after the last epoch of the entry's own recipe on the drawn split `train`
    compared in ONNX Runtime: within differences up to 1e-4, a cosine of at least 0.999999
    ");
}

/// Exported graphs, graphs made for the run and the pure-Rust tensor give the same matrix.
#[test]
fn reproduce_uses_graphs() {
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
    // With `auto`, a folder of graphs selects ONNX Runtime.
    for more in [&["--engine", "ort"][..], &["--graphs", graphs.to_str().unwrap()]] {
        let (found, engine) = run(more);
        assert_eq!(engine["name"], "ort");
        let flavour = if more[0] == "--graphs" { "ort" } else { "portable" };
        assert_eq!(engine["graphs"], format!("{flavour}, fp32, opset 18"));
        let differences = found.values.iter().zip(&expected.values).map(|(a, b)| (a - b).abs());
        // Values up to 2, another summation order.
        assert!(differences.fold(0.0, f32::max) <= 1e-4);
    }
}

/// Prints both tables and the loss between them; the loss of an untrained model depends on the CPU.
#[test]
fn validate_compares_recalls() {
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
fn missing_provider_is_an_error_that_names_the_library() {
    let Ok(library) = laps_onnx::runtime::library::find() else { return println!("skipped: no ONNX Runtime") };
    let root = tempfile::tempdir().unwrap();
    for (provider, file) in
        [("cuda", "libonnxruntime_providers_cuda.so"), ("tensorrt", "libonnxruntime_providers_tensorrt.so")]
    {
        if library.path.with_file_name(file).exists() {
            println!("skipped: there is a `{file}`");
            continue;
        }
        let text = expect_error(root.path(), ["reproduce", "shapes_vit", "--quiet", "--ep", provider]);
        let folder = library.path.parent().unwrap().display().to_string();
        let text = text.replace(&library.path.display().to_string(), "LIBRARY").replace(&folder, "FOLDER");
        let expected = format!(
            "error: the execution provider `{provider}` is not installed\n  expected: \
             `FOLDER/{file}`\n  found: no such file next to `LIBRARY`\nhint: "
        );
        assert!(text.starts_with(&expected), "{text}");
    }
    let message = |more: &[&str]| {
        expect_error(
            root.path(),
            ["reproduce", "shapes_vit", "--quiet"].iter().chain(more).copied().collect::<Vec<_>>(),
        )
    };
    assert_snapshot!(message(&["--ep", "npu"]), @r"
    error: invalid execution provider
      expected: `auto`, `cpu`, `cuda` or `tensorrt`
      found: npu
    ");
    assert_snapshot!(message(&["--ep", "cpu", "--device", "cuda:0"]), @r"
    error: invalid device
      expected: `cpu` or `auto` with the execution provider `cpu`
      found: cuda:0
    ");
    assert_snapshot!(message(&["--ep", "cpu", "--engine", "rust"]), @r"
    error: `--ep` cannot be used
      expected: the engine `ort` or `auto`
      found: the engine `rust`
    ");
}

#[test]
fn graphs_unsupported_by_a_provider_are_rejected_before_reading() {
    if !runtime() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let graphs = root.path().join("graphs");
    assert_eq!(export_to(&graphs, &["--flavour", "ort"]).0, 0);
    let graphs = ["--graphs", graphs.to_str().unwrap()];
    let arguments = ["reproduce", "shapes_vit", "--quiet", "--ep", "tensorrt"];
    assert_snapshot!(expect_error(root.path(), arguments.iter().chain(&graphs)), @r"
    error: the execution provider `tensorrt` cannot run these graphs
      expected: graphs of the flavour `portable`
      found: the flavour `ort`
    hint: export them with the flavour `portable`, or use the execution provider `cuda`
    ");
    let arguments = ["export", "shapes_vit", "--onnx", "--precision", "int8", "--ep", "cuda", "--out", "DIR"];
    assert_snapshot!(expect_error(root.path(), arguments), @r"
    error: the execution provider `cuda` cannot run these graphs
      expected: graphs in fp32 or fp16
      found: int8
    hint: export them in fp16, or use the execution provider `cpu`: only the CPU runs these int8 graphs
    ");
    let swin = root.path().join("swin");
    let arguments = ["export", "shapes_swin", "--onnx", "--flavour", "ort", "--out"];
    assert_eq!(laps_zoo(arguments.into_iter().chain(swin.to_str())).status, 0);
    let arguments = ["reproduce", "shapes_swin", "--quiet", "--ep", "cuda", "--graphs"];
    assert_snapshot!(expect_error(root.path(), arguments.into_iter().chain(swin.to_str())), @r"
    error: the execution provider `cuda` cannot run these graphs
      expected: graphs of the flavour `portable` for Swin
      found: the flavour `ort`
    hint: export them with the flavour `portable`, or use the execution provider `cpu`: fused window attention crashes with CUDA
    ");
}

/// Tables of other precisions follow the fp32 table, are in the JSON and decide the exit code.
#[test]
fn precisions_are_compared_with_fp32() {
    if !runtime() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let result = root.path().join("result");
    let data = scenes(12);
    let paths = ["--data", data.path().to_str().unwrap(), "--json", result.to_str().unwrap()];
    let arguments = ["reproduce", "shapes_vit", "--quiet", "--engine", "ort", "--precisions", "fp16,int8"];
    let run = laps_zoo(arguments.iter().chain(&paths));
    assert_eq!(run.stderr, "");
    let result = json(&result);
    let beside = result["beside"].as_array().unwrap();
    assert_eq!(beside.len(), 2);
    let own = result["evaluations"][0]["rsum"].as_f64().unwrap();
    let mut outside = false;
    for (one, (precision, tolerance)) in beside.iter().zip([("fp16", 0.2), ("int8", 2.0)]) {
        assert!(one["engine"]["graphs"].as_str().unwrap().contains(precision), "{one}");
        assert_eq!(one["tolerance"], tolerance);
        let lost = one["rsum_lost"][0].as_f64().unwrap();
        assert!((own - one["evaluations"][0]["rsum"].as_f64().unwrap() - lost).abs() < 1e-9, "{one}");
        let verdict = if lost <= tolerance { "within" } else { "outside" };
        let line = format!("rSum lost: {lost:.2} points, {verdict} the tolerance of {tolerance:.1}\n");
        assert!(run.stdout.contains(&line), "{line}{}", run.stdout);
        // The nodes with the largest loss are named only if the tolerance is exceeded.
        let (_, after) = run.stdout.split_once(&line).unwrap();
        assert_eq!(after.starts_with("  image: `img_enc."), lost > tolerance, "{}", run.stdout);
        outside |= lost > tolerance;
    }
    assert_eq!(run.status, i32::from(outside), "{}", run.stdout);
    let engine = &result["provenance"]["engine"];
    assert!(engine["placement"]["image"]["CPUExecutionProvider"].as_u64().unwrap() > 10, "{engine}");
    let message = |more: &[&str]| {
        expect_error(
            root.path(),
            ["reproduce", "shapes_vit", "--quiet"].iter().chain(more).copied().collect::<Vec<_>>(),
        )
    };
    assert_snapshot!(message(&["--engine", "ort", "--precisions", "fp32"]), @r"
    error: `--precisions` cannot be used
      expected: `fp16`, `int8` or `fp16,int8`
      found: fp32
    ");
    assert_snapshot!(message(&["--engine", "rust", "--precisions", "int8"]), @r"
    error: `--precisions` cannot be used
      expected: the engine `ort`
      found: another engine
    ");
}

#[test]
fn invalid_exports_are_rejected_before_the_work() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().to_str().unwrap();
    let message = |more: &[&str]| {
        expect_error(root.path(), ["export", "shapes_vit", "--onnx"].iter().chain(more).copied().collect::<Vec<_>>())
    };
    assert_snapshot!(message(&["--opset", "16"]), @r"
    error: invalid opset
      expected: 17 to 23
      found: 16
    ");
    assert_snapshot!(message(&["--flavour", "fast"]), @r"
    error: invalid flavour
      expected: `portable` or `ort`
      found: fast
    ");
    assert_snapshot!(message(&["--precision", "fp8"]), @r"
    error: invalid precision
      expected: `fp32`, `fp16` or `int8`
      found: fp8
    ");
    fs_err::write(root.path().join("mine"), b"mine").unwrap();
    assert_snapshot!(message(&["--out", folder]), @r"
    error: cannot write the graphs to `DIR`: the folder is not empty
    hint: choose a new or an empty folder
    ");
    let out = root.path().join("graphs");
    let arguments = ["export", "f30k_vit", "--onnx", "--out", out.to_str().unwrap()];
    assert!(expect_error(root.path(), arguments).starts_with("error: entry `f30k_vit` needs a checkpoint\n"));
    assert!(!out.exists());
}

#[test]
fn graphs_of_another_request_are_rejected() {
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
        expect_error(root.path(), arguments.iter().chain(&graphs).chain(more).copied().collect::<Vec<_>>())
    };
    let text = message("shapes_swin", &[]);
    assert!(text.starts_with("error: `DIR/graphs` cannot be used as a folder of graphs\n"), "{text}");
    assert!(text.contains("\n  found: graphs of `shapes_vit`, configuration with sha256 "), "{text}");
    assert!(
        text.ends_with(
            "\nhint: export the graphs of this entry and checkpoint, or use the entry and checkpoint of the graphs\n"
        ),
        "{text}"
    );
    assert_snapshot!(message("shapes_vit", &["--engine", "rust"]), @r"
    error: `--graphs` cannot be used
      expected: the engine `ort` or `auto`
      found: the engine `rust`
    ");
    let path = graphs.join("text.onnx");
    let mut bytes = fs_err::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs_err::write(&path, bytes).unwrap();
    let text = message("shapes_vit", &[]);
    assert!(text.starts_with("error: `DIR/graphs/text.onnx` cannot be used as a folder of graphs\n"), "{text}");
    assert!(text.ends_with("hint: export the entry to ONNX again\n"), "{text}");
}
