//! Invalid requests: exit code 2 and a message, before any work.

use insta::assert_snapshot;

use crate::{
    files::scenes,
    support::{expect_error, laps_zoo},
};

/// The error message of a request that does not use the cache.
fn message(arguments: &[&str]) -> String {
    expect_error(std::path::Path::new("/nowhere"), arguments)
}

#[test]
fn unknown_entry_suggests_the_nearest_name() {
    assert_snapshot!(message(&["reproduce", "f30k_vti"]), @r"
    error: there is no entry `f30k_vti`
      expected: the path of a YAML file, or one of `f30k_vit`, `f30k_swin`, `coco_vit`, `coco_swin`, `f30k_vit_384`, `f30k_swin_384`, `coco_vit_384`, `coco_swin_384`, `f30k_swin_1024`, `shapes_vit`, `shapes_swin`
      found: `f30k_vti`
    hint: did you mean `f30k_vit`?
    ");
    assert_snapshot!(message(&["info", "my_model.yaml"]), @r"
    error: can not read the entry file `my_model.yaml`
      caused by: failed to open file `my_model.yaml`: No such file or directory (os error 2)
    ");
}

#[test]
fn unknown_key_in_entry_file_gets_a_suggestion() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("entry.yaml");
    let text = fs_err::read_to_string(crate::files::repository_file("configs/shapes_vit.yaml")).unwrap();
    fs_err::write(&path, text.replace("sparse_ratio", "sparse_ration")).unwrap();
    assert_snapshot!(expect_error(folder.path(), ["reproduce".as_ref(), path.as_os_str()]), @r"
    error: `DIR/entry.yaml`, line 24: there is no key `model.sparse_ration`
      expected: `image`, `text`, `embed_size`, `sparse_ratio`, `aggr_ratio`
      found: `sparse_ration`
    hint: did you mean `sparse_ratio`?
    ");
}

/// The machine may have GPUs, but not this many.
#[test]
fn missing_device_is_rejected() {
    let text = message(&["reproduce", "shapes_vit", "--device", "cuda:4000"]);
    assert!(text.starts_with("error: device `cuda:4000` can not be used: "), "{text}");
    assert!(text.contains("\nhint: "), "{text}");
    assert_snapshot!(message(&["reproduce", "shapes_vit", "--device", "tpu"]), @r"
    error: device `tpu` can not be used: there is no such kind of device
    hint: use `auto`, `cpu` or `cuda:N`
    ");
    assert_snapshot!(message(&["reproduce", "shapes_vit", "--engine", "rust", "--device", "cuda:0"]), @r"
    error: device `cuda:0` can not be used: the engine `rust` computes on the processor only
    hint: use `--device cpu`, or an engine `torch` with CUDA
    ");
}

#[test]
#[cfg(feature = "torch")]
fn gpu_on_a_machine_without_one_is_rejected() {
    if laps_torch::cuda_devices() > 0 {
        return println!("skipped: this machine has a GPU");
    }
    let text = message(&["reproduce", "shapes_vit", "--device", "cuda:0"]);
    if laps_torch::has_cuda() {
        assert_snapshot!(text, @r"
        error: device `cuda:0` can not be used: `libtorch_cuda.so` finds no GPU: no driver (`libcuda.so.1`) or no device
        hint: see that `nvidia-smi` lists a GPU, or use `--device cpu`
        ");
    } else {
        assert_snapshot!(text, @r"
        error: device `cuda:0` can not be used: this build is linked to a libtorch without `libtorch_cuda.so`
        hint: run `make setup CUDA=1` and build again, or use `--device cpu`
        ");
    }
}

#[test]
#[cfg(not(feature = "torch"))]
fn engine_missing_from_the_build_is_rejected() {
    assert_snapshot!(message(&["reproduce", "shapes_vit", "--engine", "torch"]), @r"
    error: engine `torch` can not be used: this build has no libtorch
    hint: build with the feature `torch`, or use `--engine rust`
    ");
}

#[test]
fn unknown_engine_is_rejected() {
    assert_snapshot!(message(&["reproduce", "shapes_vit", "--engine", "jax"]), @r"
    error: engine `jax` can not be used: there is no such engine
    hint: use `auto`, `torch`, `rust` or `ort`
    ");
}

#[test]
fn invalid_tolerance_is_rejected() {
    assert_snapshot!(message(&["reproduce", "shapes_vit", "--tolerance", "-1"]), @r"
    error: `--tolerance` can not be used
      expected: a number of points, not negative
      found: -1
    ");
    assert_snapshot!(message(&["reproduce", "shapes_vit", "--tolerance", "NaN"]), @r"
    error: `--tolerance` can not be used
      expected: a number of points, not negative
      found: NaN
    ");
}

#[test]
fn unwritable_outputs_are_rejected_before_the_work() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("absent/result.json");
    for option in ["--json", "--sims"] {
        // The data does not exist either, but is not looked for yet.
        let arguments = ["reproduce", "shapes_vit", "--data", "/nowhere", option, path.to_str().unwrap()];
        insta::allow_duplicates!(assert_snapshot!(expect_error(folder.path(), arguments), @r"
        error: can not write `DIR/absent/result.json`
          caused by: there is no folder `DIR/absent`
        "));
    }
    let arguments = ["reproduce", "shapes_vit", "--data", "/nowhere", "--json", folder.path().to_str().unwrap()];
    assert_snapshot!(expect_error(folder.path(), arguments), @r"
    error: can not write `DIR`
      caused by: is a directory
    ");
}

#[test]
#[cfg(feature = "fetch")]
fn missing_checkpoint_is_named_when_offline() {
    let folder = crate::full_size::write_data(&laps_hub::registry::find("f30k_vit").unwrap().data);
    let data = folder.path().to_str().unwrap();
    let text = expect_error(folder.path(), ["reproduce", "f30k_vit", "--offline", "--quiet", "--data", data]);
    assert!(text.starts_with("error: `checkpoints/f30k_vit/model_best.pth` is not here\n"), "{text}");
    assert!(text.contains("and `--offline` forbids to fetch it\nhint: "), "{text}");
    // Captions are checked first, since they are small.
    fs_err::remove_file(folder.path().join("f30k/captions/test_caps.txt")).unwrap();
    let text = expect_error(folder.path(), ["reproduce", "f30k_vit", "--offline", "--quiet", "--data", data]);
    assert_snapshot!(text, @r"
    error: `captions/f30k/test_caps.txt` is not here
      expected: the file in `DIR/f30k/captions/test_caps.txt`
      found: nothing, and `--offline` forbids to fetch it
    hint: run `laps-zoo fetch` where there is a network, or leave `--offline` out
    ");
}

#[test]
#[cfg(not(feature = "fetch"))]
fn missing_checkpoint_names_its_source() {
    assert_snapshot!(message(&["reproduce", "f30k_vit"]), @r"
    error: entry `f30k_vit` needs a checkpoint
      expected: a file given as --checkpoint
      found: none
    hint: download `model_best.pth` from https://drive.google.com/drive/folders/1m3Y9TMkas2efSbeDV_ESci6uwMGd3MUY and pass its path
    ");
}

#[test]
fn entry_without_published_checkpoint_needs_one() {
    assert_snapshot!(message(&["reproduce", "f30k_vit_384"]), @r"
    error: entry `f30k_vit_384` needs a checkpoint
      expected: a file given as --checkpoint
      found: none
    hint: this entry has no published checkpoint: pass the path of your own
    ");
}

#[test]
fn missing_data_is_named() {
    assert_snapshot!(message(&["reproduce", "f30k_vit", "--checkpoint", "model_best.pth"]), @r"
    error: entry `f30k_vit` needs its data
      expected: a folder given as --data
      found: none
    hint: the folder has to hold `f30k/captions`, `f30k/flickr30k-images`, `bert-base-uncased/vocab.txt`
    ");
    assert_snapshot!(message(&["reproduce", "f30k_vit", "--checkpoint", "model_best.pth", "--data", "/nowhere"]), @r"
    error: split `test` is not in `DIR/f30k/captions`
      expected: `test_ids.txt`
      found: no split
    hint: a split is two files, `NAME_ids.txt` and `NAME_caps.txt`, beside `id_mapping.json`
    ");
}

#[test]
fn unknown_split_lists_the_available_ones() {
    let folder = scenes(2);
    let data = folder.path().to_str().unwrap();
    assert_snapshot!(expect_error(folder.path(), ["reproduce", "shapes_vit", "--data", data, "--split", "val"]), @r"
    error: split `val` is not in `DIR/captions`
      expected: `val_ids.txt`
      found: the split `test`
    hint: choose one of the splits that are there, or put both files of the split there
    ");
    // Drawn splits are created on demand.
    assert_snapshot!(message(&["reproduce", "shapes_vit", "--split", "val"]), @r"
    error: `--split` can not be used
      expected: `train`, `dev`, `test`
      found: `val`
    ");
}

#[test]
fn unknown_arguments_are_rejected() {
    for arguments in [&["reproduce"][..], &["reproduce", "shapes_vit", "--limit", "0"], &["train"], &[]] {
        let run = laps_zoo(arguments);
        assert_eq!((run.status, run.stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(run.stderr.contains("Usage: laps-zoo") || run.stderr.contains("--help"), "{}", run.stderr);
    }
}

#[cfg(not(feature = "torch"))]
#[test]
fn training_without_libtorch_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let message = expect_error(folder.path(), ["train", "shapes_vit", "--out", out.to_str().unwrap()]);
    assert_eq!(
        message,
        "error: cannot train entry `shapes_vit`: this build has no libtorch\nhint: build with the feature `torch`\n"
    );
    assert!(!out.exists());
}
