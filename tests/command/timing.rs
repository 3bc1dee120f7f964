//! `laps-zoo bench --entry`: measurements and their provenance.

use insta::assert_snapshot;

use crate::support::{json, laps_zoo};

#[test]
fn bench_help() {
    let run = laps_zoo(["bench", "--help"]);
    assert_snapshot!(run.stdout, @"
    Benchmark an entry, or compare deterministic measures with the baselines

    Usage: laps-zoo bench [OPTIONS]
           laps-zoo bench <COMMAND>

    Commands:
      alignment  Benchmark the similarity engine on random embeddings: time per pair, operations per
                 second, memory
      help       Print this message or the help of the given subcommand(s)

    Options:
      -h, --help  Print help

    Timing:
          --entry <ENTRY>           Entry to benchmark (entry name, or path to an entry YAML file)
          --parts <PARTS>           Comma-separated parts to measure: image, text, alignment, training,
                                    loading, decoding [default: all that this build and the available
                                    files allow]
          --engine <ENGINES>        Comma-separated engines: torch, rust, ort [default: the fastest that
                                    needs no export]
          --precision <PRECISIONS>  Comma-separated precisions: fp32, fp16, int8; engines other than ort
                                    support fp32 only [default: fp32]
          --flavour <FLAVOURS>      Comma-separated operator sets of the engine ort: portable, ort
                                    [default: portable]
          --device <DEVICE>         Device: auto, cpu or cuda:N [default: auto]
          --batch-size <N>          Comma-separated batch sizes [default: 16]
          --scenario <SCENARIO>     single (latency of one item at a time) or offline (throughput of
                                    batches) [default: offline]
          --warm-up <N>             Warm-up iterations [default: 3]
          --repeats <N>             Measured iterations [default: 20]
          --threads <N>             Number of threads [default: one per CPU]
          --seed <SEED>             Random seed of the inputs, and of the weights if there is no
                                    checkpoint [default: 7]
          --checkpoint <FILE>       Checkpoint (.safetensors or .pth) [default: the embedded one,
                                    otherwise random weights]
          --data <DIR>              Root of the caption and image folders, for the parts loading and
                                    decoding
          --data-source <LAYOUT>    Layout of the data: laps, karpathy, coco, parquet, kaggle,
                                    webdataset, folder, authors, docci, dci, urban1k or sharegpt4v
                                    [default: the entry's]
          --json <FILE>             Write the result as JSON
          --csv <FILE>              Write one CSV row per measurement
          --markdown <FILE>         Write the table as Markdown
          --against <FILE>          Compare with the JSON result of another run

    Gate:
          --gate             Compare deterministic measures (no timings) with the baselines, and exit
                             with 1 if one changed
          --bless            Write the measured values as the new baselines
          --only <GROUPS>    Comma-separated groups to measure: memory, recalls, parameters, graphs,
                             drift, kernels, results [default: all]
          --entries <NAMES>  Comma-separated entries to measure [default: all]
          --baselines <DIR>  Folder of the baselines [default: bench/baselines]
          --kernels <FILE>   Instruction counts written by `cargo bench -p laps-bench --bench kernels --
                             --counts FILE`
          --results <FILES>  Comma-separated results of `reproduce --json` and `evaluate --json`, whose
                             hits are compared

    Output:
      -q, --quiet  Hide progress output
    ");
}

/// The parts of every build, in every output format, and compared with themselves.
#[test]
fn parts_are_measured_and_written_in_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let [result, csv, markdown] = ["result.json", "result.csv", "result.md"].map(path);
    let measure = |more: &[&str]| {
        let common = ["bench", "--quiet", "--entry", "shapes_swin", "--engine", "rust", "--warm-up", "1"];
        let run = laps_zoo(common.iter().chain(&["--repeats", "3", "--threads", "2"]).chain(more));
        assert_eq!((run.status, run.stderr.as_str()), (0, ""), "{}", run.stdout);
        run.stdout
    };
    let files = ["--json", &result, "--csv", &csv, "--markdown", &markdown];
    let text = measure(&[&["--batch-size", "2,4"][..], &files].concat());
    let found = json(result.as_ref());
    let rows = found["rows"].as_array().unwrap();
    let names: Vec<String> = rows
        .iter()
        .map(|row| format!("{} {} {}", row["part"].as_str().unwrap(), row["engine"].as_str().unwrap(), row["batch"]))
        .collect();
    assert_eq!(
        names,
        [
            "image rust 2",
            "image rust 4",
            "text rust 2",
            "text rust 4",
            "alignment cpu 2",
            "alignment cpu 4",
            "loading loader 2",
            "loading loader 4",
            "decoding decoder 2",
            "decoding decoder 4"
        ]
    );
    for row in rows {
        let figure = |name: &str| row[name].as_f64().unwrap();
        assert!(
            figure("throughput") > 0.0 && figure("p50_ms") <= figure("p90_ms") && figure("p90_ms") <= figure("p99_ms")
        );
        for name in ["version", "device", "precision", "items"] {
            assert!(!row[name].as_str().unwrap().is_empty(), "{name}");
        }
        // The mean of three iterations is at least a third of the longest one, and at most the longest.
        let items = figure("batch") * if row["part"] == "alignment" { figure("batch") } else { 1.0 };
        let items = items * if row["part"] == "loading" { 3.0 } else { 1.0 };
        let mean = items / figure("throughput") * 1e3;
        assert!((figure("p99_ms") / 3.0..=figure("p99_ms") * 1.000_001).contains(&mean), "{row}");
    }
    let [image, text_row] = [&rows[0], &rows[2]];
    assert_eq!(image["file_bytes"], fs_err::metadata("checkpoints/shapes_swin.safetensors").unwrap().len());
    assert!(image["load_ms"].as_f64().unwrap() > 0.0);
    let parts = ["image", "text", "alignment"]
        .map(|part| rows.iter().find(|row| row["part"] == part).unwrap()["parameters"].as_u64().unwrap());
    assert_eq!(parts.iter().sum::<u64>(), 174_230);
    assert!(image["gmacs"].as_f64().unwrap() > text_row["gmacs"].as_f64().unwrap());
    assert!(!found["machine"]["processor"].as_str().unwrap().is_empty());
    assert_eq!(found["weights"].as_str().unwrap().len(), "sha256 ".len() + 64);

    let machine = found["machine"]["processor"].as_str().unwrap();
    let lines = |path: &str| fs_err::read_to_string(path).unwrap().lines().count();
    assert_eq!((lines(&csv), lines(&markdown)), (1 + 10, 3 + 1 + 2 + 10));
    for text in [&text, &fs_err::read_to_string(&csv).unwrap(), &fs_err::read_to_string(&markdown).unwrap()] {
        assert!(text.contains(machine), "{text}");
    }

    // Another scenario is not compared; the same one is, row by row.
    let single = measure(&["--parts", "text", "--scenario", "single", "--against", &result]);
    assert!(single.contains("not compared: the scenario differs: `single` (new), `offline` (old)"), "{single}");
    let again = measure(&["--parts", "text", "--batch-size", "4,8", "--against", &result]);
    let ratio = again.lines().filter(|line| line.starts_with("│ text")).count();
    // Two rows of measurements, and the row that both have.
    assert_eq!(ratio, 3, "{again}");
    assert!(again.contains("not in both results: 1 new rows, 9 old rows"), "{again}");
    assert!(!again.contains("the machines differ"), "{again}");

    let mut other = found.clone();
    other["machine"]["processor"] = "Another".into();
    // A byte order mark is not content.
    fs_err::write(&result, format!("\u{feff}{other}")).unwrap();
    let elsewhere = measure(&["--parts", "text", "--batch-size", "4", "--against", &result]);
    assert!(elsewhere.contains("note: the machines differ"), "{elsewhere}");
    assert!(elsewhere.contains("  old: Another, "), "{elsewhere}");
}

/// Graphs of two precisions, if ONNX Runtime is available.
#[test]
fn graphs_are_measured_per_precision() {
    if let Err(error) = laps_onnx::runtime::library::find() {
        println!("skipped: {error}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let result = folder.path().join("result.json");
    // Wide enough that weights dominate the file size; without a checkpoint they are random.
    let entry = folder.path().join("wide.yaml");
    let text = fs_err::read_to_string("configs/shapes_vit.yaml").unwrap();
    let text = text.split("references:").next().unwrap().replace("intermediate_size: 128", "intermediate_size: 1024");
    fs_err::write(&entry, text.replace("name: shapes_vit", "name: wide")).unwrap();
    let entry = entry.to_str().unwrap();
    let arguments = ["bench", "--quiet", "--entry", entry, "--parts", "image", "--engine", "ort"];
    let more = ["--precision", "fp32,int8", "--batch-size", "2", "--repeats", "2", "--json", result.to_str().unwrap()];
    let run = laps_zoo(arguments.iter().chain(&more));
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    let found = json(&result);
    let rows = found["rows"].as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row["precision"].as_str().unwrap()).collect();
    assert_eq!(names, ["fp32", "int8"]);
    let bytes = |row: usize| rows[row]["file_bytes"].as_u64().unwrap();
    assert!(bytes(1) < bytes(0) / 2, "{} {}", bytes(0), bytes(1));
}

#[test]
fn invalid_measurements_are_rejected() {
    let text = |more: &[&str]| {
        let run = laps_zoo(["bench", "--quiet", "--entry"].iter().chain(more));
        assert_eq!((run.status, run.stdout.as_str()), (2, ""), "{}", run.stderr);
        run.stderr
    };
    assert_snapshot!(text(&["shapes_vit", "--parts", "images"]), @"
    error: `parts` cannot be used
      expected: `image`, `text`, `alignment`, `training`, `loading`, `decoding`
      found: `images`
    ");
    assert_snapshot!(text(&["shapes_vit", "--engine", "rust", "--parts", "training"]), @"
    error: `parts` cannot be used
      expected: parts of the selected engines; training needs `torch`
      found: `training`
    ");
    assert_snapshot!(text(&["shapes_vit", "--scenario", "server"]), @"
    error: `scenario` cannot be used
      expected: `single` or `offline`
      found: `server`
    ");
    assert!(text(&["shapes_vit", "--gate"]).contains("cannot be used with"));
}
