//! Results of other programs: matrices, and embeddings with a head.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use laps_model::random::SplitMix64;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::{
    files::{npy, repository_file},
    server::{Reply, Server},
    support::{command, expect_error, finished, json, laps_zoo},
};

/// The golden matrix `a` and its recalls in both directions: R@1, R@5, R@10, median and mean rank.
fn golden_matrix() -> (Vec<f32>, [Vec<f64>; 2]) {
    let bytes = fs_err::read(repository_file("tests/golden/metrics.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let floats = |name: &str| -> Vec<f64> {
        let view = file.tensor(name).unwrap();
        match view.dtype() {
            Dtype::F64 => view.data().as_chunks::<8>().0.iter().map(|&bytes| f64::from_le_bytes(bytes)).collect(),
            _ => view.data().as_chunks::<4>().0.iter().map(|&bytes| f64::from(f32::from_le_bytes(bytes))).collect(),
        }
    };
    let matrix = floats("a.sims").iter().map(|&value| value as f32).collect();
    (matrix, [floats("a.i2t"), floats("a.t2i")])
}

fn recalls(result: &Path, direction: &str) -> Vec<f64> {
    let found = json(result);
    let recall = &found["evaluations"][0][direction];
    ["r1", "r5", "r10", "median_rank", "mean_rank"].map(|key| recall[key].as_f64().unwrap()).to_vec()
}

#[test]
fn matrix_gives_the_reference_recalls_in_every_layout() {
    let folder = tempfile::tempdir().unwrap();
    let (matrix, expected) = golden_matrix();
    let transpose: Vec<f32> = (0..200 * 40).map(|index| matrix[index % 40 * 200 + index / 40]).collect();
    let result = folder.path().join("result.json");
    let layouts = [
        ("rows.npy", npy(&matrix, [40, 200], false), false),
        ("columns.npy", npy(&transpose, [40, 200], true), false),
        ("captions.npy", npy(&transpose, [200, 40], false), true),
    ];
    for (name, bytes, is_transposed) in layouts {
        let path = folder.path().join(name);
        fs_err::write(&path, bytes).unwrap();
        let (path, json) = (path.to_str().unwrap(), result.to_str().unwrap());
        let mut arguments = vec!["evaluate", "--sims", path, "--json", json, "--quiet"];
        if is_transposed {
            let message = expect_error(folder.path(), &arguments);
            assert!(message.contains("found: 200 x 40, which is captions x images"), "{message}");
            arguments.push("--transposed");
        }
        let run = laps_zoo(arguments);
        assert_eq!((run.status, run.stdout.as_str(), run.stderr.as_str()), (0, "", ""), "{name}");
        for (direction, expected) in ["i2t", "t2i"].into_iter().zip(&expected) {
            let found = recalls(&result, direction);
            let differs = found.iter().zip(expected).any(|(found, expected)| (found - expected).abs() > 1e-4);
            assert!(!differs, "{name} {direction}: {found:?} for {expected:?}");
        }
    }
}

#[test]
fn unusable_matrices_are_rejected_with_their_reason() {
    let folder = tempfile::tempdir().unwrap();
    let (mut matrix, _) = golden_matrix();
    let path = folder.path().join("m.npy");
    let message = |bytes: &[u8]| {
        fs_err::write(&path, bytes).unwrap();
        expect_error(folder.path(), ["evaluate", "--sims", path.to_str().unwrap()])
    };
    let whole = npy(&matrix, [40, 200], false);
    assert!(message(&whole[..whole.len() - 4]).contains("where the header describes"));
    // 10^18 values are claimed, and none is there.
    let claimed = npy(&[], [1_000_000_000, 1_000_000_000], false);
    assert!(message(&claimed).contains("where the header describes"));
    assert!(message(b"not an array").contains("expected: a whole file of arrays"));
    assert!(message(&npy(&matrix[..7999], [7999, 1], false)).contains("7999 images"));
    matrix[3 * 200 + 7] = f32::NAN;
    let text = message(&npy(&matrix, [40, 200], false));
    assert!(text.contains("found: 1 non-finite values; the first is NaN at image 3, caption 7 (from 0)"), "{text}");
}

/// Each head from its golden embeddings and parameters, which a checkpoint without the head's sizes gives.
#[test]
fn embeddings_give_the_golden_similarities_of_every_head() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let heads = [
        ("vsepp_mean", "{ type: vsepp, pooling: mean }"),
        ("vsepp_cls", "{ type: vsepp, pooling: cls }"),
        ("vsepp_gpo", "head: { type: vsepp, pooling: gpo }"),
        ("scan_t2i", ""),
        ("scan_i2t", ""),
        ("scan_all", ""),
        ("max_mean", "head: max_mean"),
        ("sgr", "{ type: sgr, sim_dim: 256, steps: 3 }"),
        ("chan", "{ type: chan, aggregation: mean }"),
        ("chan_lse", "{ type: chan, aggregation: lse }"),
        ("d2s_vse", ""),
    ];
    for (name, yaml) in heads {
        let bytes = fs_err::read(repository_file(&format!("tests/golden/head_{name}_swin.safetensors"))).unwrap();
        let golden = SafeTensors::deserialize(&bytes).unwrap();
        let inputs = [("images", "images"), ("words", "captions"), ("lengths", "lengths")]
            .map(|(from, to)| (to, golden.tensor(from).unwrap()));
        fs_err::write(file("inputs.safetensors"), safetensors::serialize(inputs, None).unwrap()).unwrap();
        let parameters: Vec<(String, TensorView<'_>)> = golden
            .tensors()
            .into_iter()
            .filter(|(name, _)| {
                ["sim_enc.", "img_enc.", "txt_enc.", "prompt_learner."].iter().any(|p| name.starts_with(p))
            })
            .collect();
        let [inputs, out, head, checkpoint] =
            ["inputs.safetensors", "out.safetensors", "head.yaml", "head.safetensors"]
                .map(|name| file(name).display().to_string());
        fs_err::write(&head, yaml).unwrap();
        let head = if yaml.is_empty() { name } else { &head };
        let mut arguments = vec!["evaluate", &inputs, "--head", head, "--sims", &out, "--quiet"];
        if !parameters.is_empty() {
            let message = expect_error(folder.path(), &arguments);
            assert!(message.contains("parameters of the head"), "{name}: {message}");
            fs_err::write(&checkpoint, safetensors::serialize(parameters, None).unwrap()).unwrap();
            arguments.extend(["--checkpoint", &checkpoint]);
        }
        let run = laps_zoo(&arguments);
        assert_eq!((run.status, run.stderr.as_str()), (0, ""), "{name}");
        let bytes = fs_err::read(&out).unwrap();
        let found = SafeTensors::deserialize(&bytes).unwrap();
        let floats = |view: TensorView<'_>| -> Vec<f32> {
            view.data().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
        };
        let (found, expected) = (floats(found.tensor("sims").unwrap()), floats(golden.tensor("sims").unwrap()));
        let largest = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(found.len() == expected.len() && largest < 1e-5, "{name}: {largest:e}");
    }
    let message = expect_error(folder.path(), ["evaluate", "a.safetensors", "--head", "scan_t2"]);
    assert!(message.contains("did you mean `scan_t2i`?"), "{message}");
}

/// Writes the golden matrix as `sims.npy` and evaluates it with more options; returns the path of the result.
fn golden_result(folder: &Path, more: &[&str]) -> PathBuf {
    let (sims, result) = (folder.join("sims.npy"), folder.join("result.json"));
    fs_err::write(&sims, npy(&golden_matrix().0, [40, 200], false)).unwrap();
    let arguments = ["evaluate", "--sims", sims.to_str().unwrap(), "--json", result.to_str().unwrap()];
    let run = laps_zoo(arguments.iter().chain(more));
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    assert!(run.stdout.contains("foreign model, not run by laps-zoo; sims.npy (sha256 "), "{}", run.stdout);
    result
}

#[test]
fn table_report_card_and_gate_say_that_the_model_is_foreign() {
    let folder = tempfile::tempdir().unwrap();
    let result = golden_result(folder.path(), &["--name", "theirs", "--bootstrap", "200", "--seed", "3"]);
    let sims = fs_err::read(folder.path().join("sims.npy")).unwrap();
    let sha256 = laps_files::sha256_hex(&sims);
    let value = json(&result);
    let file = &value["provenance"]["foreign"]["files"][0];
    assert_eq!((file["file"].as_str(), file["sha256"].as_str()), (Some("sims.npy"), Some(sha256.as_str())));
    let [low, high] = [0, 1].map(|end| value["intervals"][0]["recalls"][0][end].as_f64().unwrap());
    let recall = value["evaluations"][0]["i2t"]["r1"].as_f64().unwrap();
    assert!(low < recall && recall < high, "{low} {recall} {high}");
    let result = result.to_str().unwrap();
    let printed = |arguments: &[&str]| {
        let run = laps_zoo(arguments);
        assert_eq!((run.status, run.stderr.as_str()), (0, ""), "{arguments:?}");
        run.stdout
    };

    let says = format!("foreign model, not run by laps-zoo; sims.npy (sha256 {})", &sha256[..12]);
    for format in ["terminal", "markdown", "csv", "latex"] {
        let text = printed(&["table", result, "--format", format]).replace('\\', "");
        assert!(text.contains("theirs, foreign model") && text.contains(&says), "{text}");
    }
    let page = folder.path().join("page.html");
    printed(&["report", result, "--out", page.to_str().unwrap()]);
    let html = fs_err::read_to_string(page).unwrap();
    assert!(html.contains("theirs, foreign model") && html.contains("laps-zoo did not run it"), "{html}");
    assert!(html.contains(&sha256), "{html}");
    let card = printed(&["card", "shapes_vit", result]);
    let [index, body] = [card.split("---").nth(1).unwrap(), card.split("## Recalls").nth(1).unwrap()];
    assert!(!index.contains("measured by laps-zoo") && body.contains("theirs, foreign model"), "{card}");
    assert!(body.contains(&says), "{card}");

    let gate = |action: &str, file: &str| {
        let baselines = folder.path().to_str().unwrap();
        laps_zoo(["bench", action, "--quiet", "--only", "results", "--baselines", baselines, "--results", file])
    };
    assert_eq!(gate("--bless", result).status, 0);
    let same = gate("--gate", result);
    assert_eq!((same.status, same.stdout.as_str()), (0, "results     6 values, none changed\n"));
    let mut values = golden_matrix().0;
    values[..200].fill(0.0);
    let other = folder.path().join("theirs.npy");
    fs_err::write(&other, npy(&values, [40, 200], false)).unwrap();
    printed(&["evaluate", "--sims", other.to_str().unwrap(), "--json", result, "--quiet"]);
    let changed = gate("--gate", result);
    assert_eq!(changed.status, 1, "{}", changed.stdout);
    assert!(changed.stdout.contains("theirs, foreign model/unknown/f30k/"), "{}", changed.stdout);
}

#[test]
fn two_results_are_compared_query_by_query() {
    let folder = tempfile::tempdir().unwrap();
    let first = golden_result(folder.path(), &["--name", "first"]);
    let mut values = golden_matrix().0;
    // Every image finds its captions in the second matrix.
    (0..200).for_each(|caption| values[caption / 5 * 200 + caption] = 10.0);
    let (sims, second) = (folder.path().join("second.npy"), folder.path().join("second.json"));
    fs_err::write(&sims, npy(&values, [40, 200], false)).unwrap();
    let [sims, first, second] = [&sims, &first, &second].map(|path| path.to_str().unwrap());
    assert_eq!(laps_zoo(["evaluate", "--sims", sims, "--json", second, "--quiet"]).status, 0);
    let run = laps_zoo(["table", "--compare", first, second, "--format", "json"]);
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    let found: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(found["first"], "first, foreign model");
    let test = &found["comparisons"][0]["recalls"][0];
    // Images whose first answer is wrong are right in the second matrix, and none the other way around.
    let wrong = 40.0 - 0.4 * test["first"].as_f64().unwrap();
    assert_eq!(test["second"], 100.0);
    let expected = f64::min(1.0, 2.0 * 0.5_f64.powf(wrong));
    assert!((test["p"].as_f64().unwrap() - expected).abs() < 1e-12 * expected, "{test}, {wrong} wrong");
    let run = laps_zoo(["table", "--compare", first, second]);
    assert!(run.stdout.contains("exact McNemar test"), "{}", run.stdout);
}

/// A Python with NumPy and `eccv-caption`, which `.ci/run eccv_caption` installs.
fn python() -> Option<PathBuf> {
    let python = repository_file(".runtime/eccv_caption/bin/python");
    if !python.is_file() {
        println!("skipped: there is no `{}`; `.ci/run eccv_caption` installs it", python.display());
        return None;
    }
    Some(python)
}

/// Recalls, ranks, rSum and every rule for ties against sorting with NumPy, on 20 matrices with many equal scores.
#[test]
fn random_matrices_equal_numpy() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut random = SplitMix64::named(7, "numpy");
    let mut paths = Vec::new();
    for number in 0..20 {
        let images = 1 + random.below(40);
        let levels = [4, 30, 1 << 20][number % 3];
        let value = |_| random.below(levels) as f32 / levels as f32 - 0.5;
        let values: Vec<f32> = (0..images * images * 5).map(value).collect();
        let path = folder.path().join(format!("{number}.npy"));
        fs_err::write(&path, npy(&values, [images, 5 * images], false)).unwrap();
        paths.push(path);
    }
    let script = repository_file("tests/numpy_metrics.py");
    let output = Command::new(python).arg(script).args(&paths).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), paths.len());
    for (path, line) in paths.iter().zip(text.lines()) {
        let result = path.with_extension("json");
        let arguments = ["evaluate", "--sims", path.to_str().unwrap(), "--json", result.to_str().unwrap(), "--quiet"];
        assert_eq!(laps_zoo(arguments).status, 0);
        let evaluation = json(&result)["evaluations"][0].clone();
        let expected: serde_json::Value = serde_json::from_str(line).unwrap();
        for (rule, found) in [
            ("later_first", &evaluation),
            ("optimistic", &evaluation["optimistic"]),
            ("pessimistic", &evaluation["pessimistic"]),
        ] {
            let equal = |found: &serde_json::Value, expected: &serde_json::Value, what: &str| {
                let [found, expected] = [found, expected].map(|value| value.as_f64().unwrap());
                // Sums and quotients of whole numbers in another order.
                assert!((found - expected).abs() < 1e-9, "{} {rule} {what}: {found} {expected}", path.display());
            };
            for side in ["i2t", "t2i"] {
                for key in ["r1", "r5", "r10", "median_rank", "mean_rank"] {
                    equal(&found[side][key], &expected[rule][side][key], key);
                }
            }
            equal(&found["rsum"], &expected[rule]["rsum"], "rsum");
        }
    }
}

/// A random matrix of COCO's size, with the judgements downloaded from a local server.
#[test]
fn judgements_equal_the_package_eccv_caption() {
    let Some(python) = python() else { return };
    let wheel = repository_file(".runtime/eccv_caption/eccv_caption-0.1.0-py3-none-any.whl");
    let wheel = Arc::new(fs_err::read(wheel).unwrap());
    let server = Server::start(move |request| Reply::file(request, &wheel, "\"abc\""));
    let folder = tempfile::tempdir().unwrap();
    let [sims, result] = ["sims.npy", "result.json"].map(|name| folder.path().join(name).display().to_string());
    let output = Command::new(python).arg(repository_file("tests/eccv_reference.py")).arg(&sims).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let expected: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();

    let mut evaluate = command();
    evaluate.env("LAPS_ZOO_CACHE", folder.path().join("cache")).env("LAPS_ZOO_PYPI_URL", server.url());
    evaluate.env_remove("LAPS_ZOO_MIRRORS");
    evaluate.args(["evaluate", "--sims", &sims, "--judgements", "eccv,cxc", "--json", &result, "--quiet"]);
    let run = finished(evaluate.output().unwrap());
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    let found = json(Path::new(&result));
    let judged = |set: usize, side: &str, key: &str| found["judged"][set][side][key].as_f64().unwrap();
    let mut compared = 0;
    for side in ["i2t", "t2i"] {
        let coco =
            found["evaluations"].as_array().unwrap().iter().find(|found| found["protocol"] == "coco_5k").unwrap();
        let names = [
            ("coco_5k_r1", coco[side]["r1"].as_f64().unwrap()),
            ("coco_5k_r5", coco[side]["r5"].as_f64().unwrap()),
            ("coco_5k_r10", coco[side]["r10"].as_f64().unwrap()),
            ("eccv_map_at_r", judged(0, side, "map_at_r")),
            ("eccv_rprecision", judged(0, side, "r_precision")),
            ("eccv_r1", judged(0, side, "r1")),
            ("cxc_r1", judged(1, side, "r1")),
            ("cxc_r5", judged(1, side, "r5")),
            ("cxc_r10", judged(1, side, "r10")),
        ];
        for (name, value) in names {
            let expected = expected[name][side].as_f64().unwrap();
            // Means of the same numbers in another order.
            assert!((value - expected).abs() < 1e-9, "{name} {side}: {value} {expected}");
            assert!(value > 0.0 && value < 100.0, "{name} {side}: {value} does not tell much");
            compared += 1;
        }
    }
    assert_eq!(compared, 18);
}
