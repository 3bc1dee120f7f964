//! Requests that only libtorch can meet.

use insta::assert_snapshot;

use crate::support::{expect_error, json, laps_zoo};

#[test]
fn gpu_on_a_machine_without_one_is_rejected() {
    if laps_torch::cuda_devices() > 0 {
        return println!("skipped: this machine has a GPU");
    }
    let text = expect_error(std::path::Path::new("/nowhere"), ["reproduce", "shapes_vit", "--device", "cuda:0"]);
    if laps_torch::has_cuda() {
        assert_snapshot!(text, @r"
        error: device `cuda:0` cannot be used: `libtorch_cuda.so` finds no GPU: no driver (`libcuda.so.1`) or no device
        hint: see that `nvidia-smi` lists a GPU, or use device `cpu`
        ");
    } else {
        assert_snapshot!(text, @r"
        error: device `cuda:0` cannot be used: the loaded libtorch was built without CUDA
        hint: run `make setup CUDA=1` and build again, install torch with CUDA, or use device `cpu`
        ");
    }
}

/// A training step, and the alignment on libtorch and on the CPU engine.
#[test]
fn training_is_measured_on_libtorch() {
    let folder = tempfile::tempdir().unwrap();
    let result = folder.path().join("result.json");
    let arguments = ["bench", "--quiet", "--entry", "shapes_vit", "--parts", "training,alignment", "--batch-size", "4"];
    let more = ["--warm-up", "0", "--repeats", "1", "--device", "cpu", "--json", result.to_str().unwrap()];
    let run = laps_zoo(arguments.iter().chain(&more));
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    let found = json(&result);
    let rows: Vec<&str> = found["rows"].as_array().unwrap().iter().map(|row| row["engine"].as_str().unwrap()).collect();
    assert_eq!(rows, ["torch", "cpu", "torch"]);
    assert_eq!(found["rows"][0]["parameters"], 199_784);
}

/// `doctor` describes the libtorch that the program links.
#[test]
fn doctor_reports_libtorch() {
    let run = laps_zoo(["doctor"]);
    let line = |name: &str| run.stdout.lines().find(|line| line.starts_with(name)).map(str::to_owned);
    assert!(line("libtorch").is_some_and(|line| line.contains(laps_torch::version())), "{}", run.stdout);
    assert!(line("devices").is_some_and(|line| line.contains("cpu; ")), "{}", run.stdout);
    assert!(line("threads").is_some(), "{}", run.stdout);
}
