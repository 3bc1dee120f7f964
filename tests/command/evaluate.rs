//! Results of other programs: matrices, and embeddings with a head.

use std::path::Path;

use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::{
    files::repository_file,
    support::{expect_error, json, laps_zoo},
};

/// Similarities `(40, 200)` of the golden metrics, as `.npy` of the given element type and order.
fn npy(values: &[f32], shape: [usize; 2], is_fortran: bool) -> Vec<u8> {
    let order = if is_fortran { "True" } else { "False" };
    let mut header = format!("{{'descr': '<f4', 'fortran_order': {order}, 'shape': ({}, {}), }}", shape[0], shape[1]);
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
    bytes
}

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
