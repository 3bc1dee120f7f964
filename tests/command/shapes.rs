//! The embedded entries, which need no files.

use std::{io::Read, process::Stdio};

use crate::{
    graphs::runtime,
    matrix::{Direction, Matrix, figures, reported},
    support::{command, finished, json, laps_zoo, start, without_times},
};

const NOTE: &str =
    "the embedded checkpoint has the weights after the last epoch of the entry's own recipe on the drawn split `train`";

/// Masks values: a query whose best candidates are within rounding of each other depends on the CPU. The values are checked
/// against the matrix and by the verdict.
fn without_figures(stdout: &str) -> String {
    let figures = |line: &str| line.starts_with("median rank") || line.starts_with("│ ") && !line.starts_with("│ f30k");
    let masked = |line: &str| line.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect::<String>();
    let mut text = String::new();
    for line in stdout.lines() {
        // Column widths and alignment depend on the numbers.
        let line = if figures(line) { masked(line) } else { line.to_owned() };
        let line = if line.starts_with("engine ") { "engine".to_owned() } else { line };
        text += &format!("{line}\n");
    }
    text
}

#[test]
fn embedded_entry_gives_table_matrix_and_provenance() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let [result, sims] = ["result.json", "sims.safetensors"].map(|name| folder.path().join(name));
    let run = |more: &[&str]| {
        finished(command().env("LAPS_ZOO_CACHE", &cache).args(["reproduce", "shapes_vit"]).args(more).output().unwrap())
    };
    let first = run(&["--json", result.to_str().unwrap(), "--sims", sims.to_str().unwrap()]);
    assert_eq!(first.status, 0, "{}", first.stderr);
    assert!(first.stdout.contains(&format!("note: {NOTE}")));
    insta::assert_snapshot!(without_figures(&without_times(&first.stdout)), @r"
    shapes_vit, split test: 200 images, 1000 captions
    checkpoint shapes_vit-28c8821cd05bf1e0.safetensors (sha256 28c8821cd05b)
    engine

    ┌──────────────────────────────────────────────────────────────────────┐
    │ f30k           i2t R@1    R@5   R@10   t2i R@1    R@5   R@10    rSum │
    ╞══════════════════════════════════════════════════════════════════════╡
    │ measured          00.0   00.0   00.0      00.0   00.0   00.0   000.0 │
    │ this recipe       00.0   00.0   00.0      00.0   00.0   00.0       - │
    │   difference      0.00   0.00   0.00      0.00   0.00   0.00       - │
    └──────────────────────────────────────────────────────────────────────┘
    median rank 0 / 0, mean rank 0.000 / 0.000 (image to text / text to image)

    stage: items
    read captions: 1000 captions
    check checkpoint: 98 tensors
    hash images: 200 images
    open encoders: 2 encoders
    encode captions: 1000 captions
    wait for images: 200 images
    encode images: 200 images
    score: 200000 pairs
    rank: 1200 queries
    note: the embedded checkpoint has the weights after the last epoch of the entry's own recipe on the drawn split `train`
    verdict: reproduced, every published recall is within 0.1 points
    ");
    let stages: Vec<&str> = first.stderr.lines().filter(|line| line.ends_with(" to do")).collect();
    assert_eq!(stages, ["hash images: 200 to do", "encode captions: 1000 to do", "encode and score images: 200 to do"]);
    let saved = first.stderr.lines().filter(|line| line.contains(": saved ")).count();
    assert_eq!(saved, 4, "{}", first.stderr);
    assert_eq!(first.stderr.lines().count(), 2 * stages.len() + saved, "{}", first.stderr);

    let matrix = Matrix::open(&sims);
    assert_eq!((matrix.images, matrix.captions), (200, 1000));
    assert!(matrix.values.iter().all(|value| value.is_finite() && value.abs() <= 2.0));
    let result = json(&result);
    let evaluation = &result["evaluations"][0];
    for direction in [Direction::ImageToText, Direction::TextToImage] {
        let (found, expected) = (reported(evaluation, direction), figures(&matrix.ranks(direction)));
        // Both are quotients of integers that f64 represents exactly.
        assert!(
            found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9),
            "{direction:?}: {found:?}, {expected:?}"
        );
    }
    let measured = first.stdout.lines().find(|line| line.starts_with("│ measured")).unwrap();
    let sides = [Direction::ImageToText, Direction::TextToImage].map(|side| reported(evaluation, side));
    let rsum = evaluation["rsum"].as_f64().unwrap();
    let cells = sides.iter().flat_map(|side| side[..3].to_vec()).chain([rsum]);
    let cells: Vec<String> = cells.map(|cell| format!("{cell:.1}")).collect();
    assert_eq!(measured.split_whitespace().skip(2).take(7).collect::<Vec<_>>(), cells);

    queries(&result, &matrix);
    provenance(&result);

    // The scenes are drawn once; their folder is not touched again.
    let stamp = cache.join("scenes-7-20000-200-200/drawn.json");
    let drawn = fs_err::metadata(&stamp).unwrap().modified().unwrap();
    let again = run(&["--quiet", "--limit", "2"]);
    assert_eq!((again.status, again.stderr.as_str()), (0, ""));
    assert_eq!(fs_err::metadata(&stamp).unwrap().modified().unwrap(), drawn);
    assert!(again.stdout.contains("verdict: not compared"));
}

/// Checks ranks and failures against the matrix.
fn queries(result: &serde_json::Value, matrix: &Matrix) {
    for (side, direction) in [("i2t", Direction::ImageToText), ("t2i", Direction::TextToImage)] {
        let ranks = matrix.ranks(direction);
        let counts = result["ranks"][0][side].as_object().unwrap();
        assert_eq!(counts.values().map(|count| count.as_u64().unwrap() as usize).sum::<usize>(), ranks.len());
        for (rank, count) in counts {
            let rank: usize = rank.parse().unwrap();
            let found = ranks.iter().filter(|&&before| before + 1 == rank).count();
            assert_eq!(count.as_u64().unwrap() as usize, found, "{side} rank {rank}");
        }
        let mut hardest: Vec<usize> = ranks.iter().map(|before| before + 1).filter(|&rank| rank > 1).collect();
        hardest.sort_unstable_by(|a, b| b.cmp(a));
        hardest.truncate(10);
        let failures = result["failures"][side].as_array().unwrap();
        assert_eq!(failures.len(), hardest.len());
        for (failure, rank) in failures.iter().zip(hardest) {
            let number = |value: &serde_json::Value| value.as_u64().unwrap() as usize;
            let query = number(&failure["query"]);
            assert_eq!((number(&failure["rank"]), ranks[query] + 1), (rank, rank));
            assert_eq!(number(&failure["right"]["index"]), matrix.target(direction, query));
            let scores = matrix.scores(direction, query);
            let mut best = scores.clone();
            best.sort_by(|a, b| b.total_cmp(a));
            for (answer, score) in failure["first"].as_array().unwrap().iter().zip(best) {
                // A decimal parsed as f64 first may differ by one f32 ulp.
                let similarity = answer["similarity"].as_f64().unwrap() as f32;
                assert!((similarity - score).abs() <= f32::EPSILON * score.abs(), "{similarity}, {score}");
                assert_eq!(scores[number(&answer["index"])], score);
            }
        }
    }
}

fn provenance(result: &serde_json::Value) {
    let text =
        |pointer: &str| result.pointer(pointer).and_then(|value| value.as_str()).unwrap_or_else(|| panic!("{pointer}"));
    for pointer in ["/provenance/config_sha256", "/provenance/checkpoint/sha256", "/provenance/data/sha256"] {
        let hash = text(pointer);
        assert!(hash.len() == 64 && hash.chars().all(|c| c.is_ascii_hexdigit()), "{pointer}: {hash}");
    }
    assert_eq!(text("/provenance/version"), env!("CARGO_PKG_VERSION"));
    assert!(result["provenance"].as_object().unwrap().contains_key("commit"));
    // The fastest available engine.
    let engine = if runtime() { "ort" } else { crate::NATIVE_ENGINE[1] };
    assert_eq!((text("/provenance/engine/name"), text("/provenance/engine/device")), (engine, "cpu"));
    assert!(!text("/provenance/engine/version").is_empty());
    assert!(result["provenance"]["engine"]["threads"].as_u64().unwrap() >= 1);
    assert!(!text("/provenance/similarity").is_empty());
    assert!(!text("/provenance/machine/processor").is_empty());
    assert_eq!(text("/provenance/machine/system"), format!("{} {}", std::env::consts::OS, std::env::consts::ARCH));
    assert_eq!(text("/provenance/checkpoint/format"), "safetensors");
    assert_eq!(text("/provenance/checkpoint/note"), NOTE);
    assert_eq!(result["provenance"]["seed"], serde_json::Value::Null);
    assert_eq!(result["schema"], 3);
    assert_eq!(result["verdict"]["outcome"], "reproduced");
    assert!(result["peak_memory_bytes"].as_u64().unwrap() > 1 << 20);
    assert!(result["stages"].as_array().unwrap().iter().all(|stage| stage["seconds"].as_f64().unwrap() >= 0.0));
    assert_overhead(result);
}

/// The stages are parts of the whole time, and its overhead is what encoders and similarities leave of it.
fn assert_overhead(result: &serde_json::Value) {
    let stages: Vec<(&str, f64)> = result["stages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|stage| (stage["name"].as_str().unwrap(), stage["seconds"].as_f64().unwrap()))
        .collect();
    let sum = |kept: &dyn Fn(&str) -> bool| -> f64 {
        stages.iter().filter(|(name, _)| kept(name)).map(|(_, seconds)| seconds).sum()
    };
    let [seconds, overhead] = ["seconds", "overhead"].map(|field| result["time"][field].as_f64().unwrap());
    assert!(sum(&|_| true) <= seconds && sum(&|name| name == "open encoders") > 0.0, "{result}");
    let computing = sum(&|name| ["encode captions", "encode images", "score"].contains(&name));
    assert!(computing > 0.0 && (overhead - (1.0 - computing / seconds)).abs() < 1e-9, "{overhead}");
}

/// There is no silent fallback.
#[test]
fn missing_named_library_is_an_error() {
    let run = |engine: &str| {
        let arguments = ["reproduce", "shapes_vit", "--quiet", "--limit", "2", "--engine", engine];
        finished(command().env("ORT_DYLIB_PATH", "/nowhere/libonnxruntime.so").args(arguments).output().unwrap())
    };
    let auto = run("auto");
    assert_eq!((auto.status, auto.stdout.as_str()), (2, ""));
    assert!(auto.stderr.starts_with("error: ") && auto.stderr.contains("/nowhere"), "{}", auto.stderr);
    assert_eq!(run(crate::NATIVE_ENGINE[1]).status, 0);
}

#[test]
fn embedded_swin_entry_runs() {
    let run = laps_zoo(["reproduce", "shapes_swin", "--quiet"]);
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    insta::assert_snapshot!(without_figures(&without_times(&run.stdout)), @r"
    shapes_swin, split test: 200 images, 1000 captions
    checkpoint shapes_swin-b3674f531c9c59c7.safetensors (sha256 b3674f531c9c)
    engine

    ┌───────────────────────────────────────────────────────────────────────┐
    │ f30k           i2t R@1    R@5    R@10   t2i R@1    R@5   R@10    rSum │
    ╞═══════════════════════════════════════════════════════════════════════╡
    │ measured          00.0   00.0   000.0      00.0   00.0   00.0   000.0 │
    │ this recipe       00.0   00.0   000.0      00.0   00.0   00.0       - │
    │   difference      0.00   0.00    0.00      0.00   0.00   0.00       - │
    └───────────────────────────────────────────────────────────────────────┘
    median rank 0 / 0, mean rank 0.000 / 0.000 (image to text / text to image)

    stage: items
    read captions: 1000 captions
    check checkpoint: 121 tensors
    hash images: 200 images
    open encoders: 2 encoders
    encode captions: 1000 captions
    wait for images: 200 images
    encode images: 200 images
    score: 200000 pairs
    rank: 1200 queries
    note: the embedded checkpoint has the weights after the last epoch of the entry's own recipe on the drawn split `train`
    verdict: reproduced, every published recall is within 0.1 points
    ");
}

/// The reader of standard output closes it before or during the output.
#[test]
fn closed_pipe_is_not_an_error() {
    for arguments in
        [&["info", "--parameters", "f30k_vit"][..], &["list"], &["reproduce", "shapes_vit", "--limit", "2", "--quiet"]]
    {
        let mut child = start(arguments, Stdio::piped());
        drop(child.stdout.take());
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!((child.wait().unwrap().code(), stderr.as_str()), (Some(0), ""), "{arguments:?}");
    }
}
