//! Invalid requests: exit code 2 and a message, before any work.

use insta::assert_snapshot;

use crate::{
    files::scenes,
    support::{expect_error, finished, laps_zoo},
};

/// The error message of a request that does not use the cache.
fn message(arguments: &[&str]) -> String {
    expect_error(std::path::Path::new("/nowhere"), arguments)
}

#[test]
fn unknown_entry_suggests_the_nearest_name() {
    assert_snapshot!(message(&["reproduce", "f30k_vti"]), @r"
    error: there is no entry `f30k_vti`
      expected: the path of a YAML file, or the name of a built-in entry
      found: `f30k_vti`
    hint: did you mean `f30k_vit`?
    ");
    assert_snapshot!(message(&["info", "my_model.yaml"]), @r"
    error: cannot read the entry file `my_model.yaml`
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
      expected: `image`, `text`, `embed_size`, `sparse_ratio`, `aggr_ratio`, `head`
      found: `sparse_ration`
    hint: did you mean `sparse_ratio`?
    ");
}

/// The machine may have GPUs, but not this many.
#[test]
fn missing_device_is_rejected() {
    let text = message(&["reproduce", "shapes_vit", "--device", "cuda:4000"]);
    // Without `laps-zoo-torch` there is no program for GPUs.
    let no_program = text.starts_with("error: engine `torch` cannot be used: this request needs libtorch");
    assert!(no_program || text.starts_with("error: device `cuda:4000` cannot be used: "), "{text}");
    assert!(text.contains("\nhint: "), "{text}");
    assert_snapshot!(message(&["reproduce", "shapes_vit", "--device", "tpu"]), @r"
    error: device `tpu` cannot be used: there is no such kind of device
    hint: use `auto`, `cpu` or `cuda:N`
    ");
    assert_snapshot!(message(&["reproduce", "shapes_vit", "--engine", "rust", "--device", "cuda:0"]), @r"
    error: device `cuda:0` cannot be used: the engine `rust` computes on the CPU only
    hint: use the device `cpu`, or the engine `torch` with CUDA
    ");
}

/// The test program lies without `laps-zoo-torch` in a folder of its own.
#[test]
fn request_for_libtorch_without_its_program_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("laps-zoo");
    fs_err::copy(crate::PROGRAM, &program).unwrap();
    for arguments in [
        &["reproduce", "shapes_vit", "--engine", "torch"][..],
        &["reproduce", "shapes_vit", "--device", "cuda:0"],
        &["train", "shapes_vit", "--out", "run"],
        &["score", "a.png", "--caption", "a", "--engine", "torch", "--entry", "shapes_vit"],
        &["bench", "--entry", "shapes_vit", "--parts", "training"],
    ] {
        let mut command = std::process::Command::new(&program);
        let run = finished(command.args(arguments).env("PATH", "").current_dir(folder.path()).output().unwrap());
        assert_eq!((run.status, run.stdout.as_str()), (2, ""), "{arguments:?}");
        assert_eq!(
            run.stderr,
            "error: engine `torch` cannot be used: this request needs libtorch, and the program `laps-zoo-torch` is \
             neither beside this one nor on PATH\n\
             hint: `pip install laps-zoo[torch]` installs it, and `make build` in the repository builds it: `target/release/laps-zoo-torch`\n"
        );
        assert!(!folder.path().join("run").exists());
    }
}

/// A program of that name on `PATH` replaces the process, with all arguments and its own exit status.
#[cfg(unix)]
#[test]
fn request_for_libtorch_is_handed_to_its_program() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("laps-zoo");
    fs_err::copy(crate::PROGRAM, &program).unwrap();
    let path = folder.path().join("bin");
    fs_err::create_dir(&path).unwrap();
    let other = path.join("laps-zoo-torch");
    fs_err::write(&other, "#!/bin/sh\necho \"$@\"\nexit 7\n").unwrap();
    fs_err::set_permissions(&other, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = std::process::Command::new(&program);
    let path = format!("{}:/bin:/usr/bin", path.display());
    let run = finished(command.args(["train", "shapes_vit", "--out", "run"]).env("PATH", path).output().unwrap());
    assert_eq!((run.status, run.stdout.as_str(), run.stderr.as_str()), (7, "train shapes_vit --out run\n", ""));
}

#[test]
fn unknown_engine_is_rejected() {
    assert_snapshot!(message(&["reproduce", "shapes_vit", "--engine", "jax"]), @r"
    error: engine `jax` cannot be used: there is no such engine
    hint: use `auto`, `torch`, `rust` or `ort`
    ");
}

#[test]
fn invalid_tolerance_is_rejected() {
    assert_snapshot!(message(&["reproduce", "shapes_vit", "--tolerance", "-1"]), @r"
    error: `tolerance` cannot be used
      expected: a non-negative number of points
      found: -1
    ");
    assert_snapshot!(message(&["reproduce", "shapes_vit", "--tolerance", "NaN"]), @r"
    error: `tolerance` cannot be used
      expected: a non-negative number of points
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
        error: cannot write `DIR/absent/result.json`
          caused by: there is no folder `DIR/absent`
        "));
    }
    let arguments = ["reproduce", "shapes_vit", "--data", "/nowhere", "--json", folder.path().to_str().unwrap()];
    assert_snapshot!(expect_error(folder.path(), arguments), @r"
    error: cannot write `DIR`
      caused by: is a directory
    ");
}

#[test]
fn missing_checkpoint_is_named_when_offline() {
    let folder = crate::full_size::write_data(&laps_hub::registry::find("f30k_vit").unwrap().data);
    let data = folder.path().to_str().unwrap();
    let text = expect_error(folder.path(), ["reproduce", "f30k_vit", "--offline", "--quiet", "--data", data]);
    assert!(text.starts_with("error: `checkpoints/f30k_vit/model_best.pth` is not in the cache\n"), "{text}");
    assert!(text.contains("and downloads are disabled\nhint: "), "{text}");
    // Captions are checked first, since they are small.
    fs_err::remove_file(folder.path().join("f30k/captions/test_caps.txt")).unwrap();
    let text = expect_error(folder.path(), ["reproduce", "f30k_vit", "--offline", "--quiet", "--data", data]);
    assert_snapshot!(text, @r"
    error: `captions/f30k/test_caps.txt` is not in the cache
      expected: the file `DIR/f30k/captions/test_caps.txt`
      found: nothing, and downloads are disabled
    hint: fetch it once with network access; `HF_HUB_OFFLINE` and `TRANSFORMERS_OFFLINE` disable downloads too
    ");
}

#[test]
fn entry_without_published_checkpoint_needs_one() {
    assert_snapshot!(message(&["reproduce", "f30k_vit_384"]), @r"
    error: entry `f30k_vit_384` needs a checkpoint
      expected: the path of a checkpoint
      found: none
    hint: this entry has no published checkpoint: pass the path of your own
    ");
}

#[test]
fn missing_data_is_named() {
    assert_snapshot!(message(&["reproduce", "f30k_vit", "--checkpoint", "model_best.pth"]), @r"
    error: entry `f30k_vit` needs its data
      expected: a data folder
      found: none
    hint: the folder has to contain `f30k/captions`, `f30k/flickr30k-images`, `bert-base-uncased/vocab.txt`
    ");
    assert_snapshot!(message(&["reproduce", "f30k_vit", "--checkpoint", "model_best.pth", "--data", "/nowhere"]), @r"
    error: the data of entry `f30k_vit` are incomplete: there is no folder `DIR/f30k/captions`
      expected: captions in `f30k/captions` and images in `f30k/flickr30k-images`, or captions in `f30k` and images in `flickr30k-images`; and the vocabulary `bert-base-uncased/vocab.txt`
      found: no folder `DIR`
    hint: a caption folder holds `<split>_ids.txt`, `<split>_caps.txt` and `id_mapping.json`
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
    error: split `val` cannot be drawn
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
