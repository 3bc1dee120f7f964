//! Unusable checkpoints: exit code 2 and a message, and no code in them is run.

use std::{io::Write, path::PathBuf};

use insta::assert_snapshot;
use laps_hub::registry;
use laps_model::models;
use tempfile::TempDir;

use crate::{
    files::{authors_checkpoint, repository_file, scenes, shapes_vit},
    support::{expect_error, laps_zoo},
    writer::{safetensors, torch_zip},
};

/// The error message for a checkpoint with this content.
fn message(name: &str, bytes: &[u8]) -> String {
    let folder = scenes(2);
    let path = folder.path().join(name);
    fs_err::write(&path, bytes).unwrap();
    message_about(&folder, "shapes_vit", &path)
}

fn message_about(folder: &TempDir, entry: &str, checkpoint: &std::path::Path) -> String {
    let [data, checkpoint] = [folder.path(), checkpoint].map(|path| path.to_str().unwrap());
    expect_error(folder.path(), ["reproduce", entry, "--quiet", "--data", data, "--checkpoint", checkpoint])
}

fn embedded() -> Vec<u8> {
    fs_err::read(repository_file("checkpoints/shapes_vit.safetensors")).unwrap()
}

/// The embedded checkpoint with modified tensors.
fn altered(alter: impl Fn(&str, &mut Vec<usize>, &mut Vec<f32>)) -> Vec<u8> {
    let mut tensors = shapes_vit();
    tensors.iter_mut().for_each(|(name, shape, values)| alter(name, shape, values));
    let views: Vec<_> =
        tensors.iter().map(|(name, shape, values)| (name.as_str(), &shape[..], values.clone())).collect();
    safetensors(&views)
}

#[test]
fn unmodified_checkpoint_is_accepted() {
    let folder = scenes(2);
    let path = folder.path().join("same.safetensors");
    fs_err::write(&path, altered(|_, _, _| ())).unwrap();
    let [data, path] = [folder.path(), &path].map(|path| path.to_str().unwrap());
    let run = laps_zoo(["reproduce", "shapes_vit", "--quiet", "--data", data, "--checkpoint", path]);
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    assert!(!run.stdout.contains("the embedded checkpoint"), "{}", run.stdout);
}

#[test]
fn prefixes_that_are_removed_are_noted() {
    let folder = scenes(2);
    let path = folder.path().join("wrapped.safetensors");
    let mut tensors = shapes_vit();
    tensors.iter_mut().for_each(|(name, ..)| *name = format!("module.{name}"));
    let views: Vec<_> =
        tensors.iter().map(|(name, shape, values)| (name.as_str(), &shape[..], values.clone())).collect();
    fs_err::write(&path, safetensors(&views)).unwrap();
    let [data, path] = [folder.path(), &path].map(|path| path.to_str().unwrap());
    let run = laps_zoo(["reproduce", "shapes_vit", "--quiet", "--data", data, "--checkpoint", path]);
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    assert!(run.stdout.contains("note: removed from the names in the checkpoint: `module.`\n"), "{}", run.stdout);
}

#[test]
fn missing_checkpoint_is_rejected() {
    let folder = scenes(2);
    assert_snapshot!(message_about(&folder, "shapes_vit", &folder.path().join("model_best.pth")), @r"
    error: cannot read `DIR/model_best.pth`
      caused by: failed to open file `DIR/model_best.pth`: No such file or directory (os error 2)
    ");
}

#[test]
fn truncated_checkpoint_is_rejected() {
    let bytes = embedded();
    assert_snapshot!(message("half.safetensors", &bytes[..bytes.len() / 2]), @r"
    error: `DIR/half.safetensors` is damaged
      expected: a complete safetensors checkpoint
      found: 405588 bytes where the header describes 811176
    hint: the file is truncated, damaged or not written by torch: download it again and compare its size and sha256
    ");
    let zip = fs_err::read(repository_file("tests/golden/vit_tiny.pth")).unwrap();
    assert_snapshot!(message("half.pth", &zip[..zip.len() / 2]), @r"
    error: `DIR/half.pth` is damaged
      expected: a complete torch (zip) checkpoint
      found: a truncated or damaged zip archive: invalid Zip archive: Could not find EOCD
    hint: the file is truncated, damaged or not written by torch: download it again and compare its size and sha256
    ");
    let legacy = fs_err::read(repository_file("tests/golden/vit_tiny_legacy.pth")).unwrap();
    assert_snapshot!(message("half.pth", &legacy[..legacy.len() / 2]), @r"
    error: `DIR/half.pth` is damaged
      expected: a complete torch (legacy) checkpoint
      found: the storage `94411721295184` of 98304 bytes, beyond the end of the file
    hint: the file is truncated, damaged or not written by torch: download it again and compare its size and sha256
    ");
}

#[test]
fn file_that_is_not_a_checkpoint_is_rejected() {
    assert_snapshot!(message("page.pth", b"<!DOCTYPE html><html>Quota exceeded</html>"), @r"
    error: `DIR/page.pth` is not a checkpoint
      expected: safetensors, or a file that `torch.save` wrote
      found: a web page, which a server sends in place of a file that it refuses
    hint: a checkpoint is a `.safetensors` file, or a `.pth` file with a state dict
    ");
    assert_snapshot!(message("empty.pth", b""), @r"
    error: `DIR/empty.pth` is not a checkpoint
      expected: safetensors, or a file that `torch.save` wrote
      found: an empty file
    hint: a checkpoint is a `.safetensors` file, or a `.pth` file with a state dict
    ");
    let image = fs_err::read(scenes(1).path().join("images/test_00000.png")).unwrap();
    assert_snapshot!(message("picture.pth", &image), @r"
    error: `DIR/picture.pth` is not a checkpoint
      expected: safetensors, or a file that `torch.save` wrote
      found: a file of unknown kind
    hint: a checkpoint is a `.safetensors` file, or a `.pth` file with a state dict
    ");
}

#[test]
fn wrong_missing_and_unexpected_tensors_are_reported_together() {
    // As if the alignment had been trained with embed_size 32.
    let narrow = altered(|name, shape, values| {
        if name.starts_with("cross_net") {
            shape.iter_mut().filter(|size| **size == 64).for_each(|size| *size = 32);
            values.truncate(shape.iter().product());
        }
    });
    assert_snapshot!(message("narrow.safetensors", &narrow), @r"
    error: `DIR/narrow.safetensors` does not fit the model of 98 parameters
      wrong shape: 3
        `cross_net.aggr_net.weight.0.weight`
          expected: [64]
          found: [32]
        `cross_net.aggr_net.weight.0.bias`
          expected: [64]
          found: [32]
        `cross_net.aggr_net.weight.1.weight`
          expected: [12, 64]
          found: [12, 32]
    hint: the checkpoint probably has another embed_size: 32, the model has 64
    ");
    let tiny = fs_err::read(repository_file("checkpoints/shapes_swin.safetensors")).unwrap();
    assert_snapshot!(message("swin.safetensors", &tiny), @r"
    error: the options in the checkpoint differ from the entry
      `vit_type`
        expected: vit
        found: swin
      `sparse_ratio`
        expected: 0.5
        found: 0.8
      `aggr_ratio`
        expected: 0.4
        found: 0.6
    hint: choose the entry that the checkpoint was trained for, or change its ratios and sizes
    ");
}

#[test]
fn non_finite_weights_are_rejected() {
    let nan = altered(|name, _, values| {
        if name == "cross_net.aggr_net.scale" {
            values[0] = f32::NAN;
        }
        if name == "img_enc.visual_encoder.layernorm.weight" {
            values[..2].fill(f32::INFINITY);
        }
    });
    assert_snapshot!(message("nan.safetensors", &nan), @r"
    error: `DIR/nan.safetensors` does not fit the model of 98 parameters
      not finite: 2
        `img_enc.visual_encoder.layernorm.weight`: 2 of 64 values are NaN or infinite
        `cross_net.aggr_net.scale`: 1 of 1 values are NaN or infinite
    hint: the training had diverged before the weights were saved, or the file is damaged
    ");
}

#[test]
fn malicious_pickle_is_not_executed() {
    let folder = scenes(2);
    let trace = folder.path().join("trace");
    let program = format!("cos\nsystem\n(S'touch {}'\ntR.", trace.display());
    for (name, bytes) in [("zip.pth", torch_zip(program.as_bytes(), &[])), ("bare.pth", program.clone().into_bytes())] {
        let path = folder.path().join(name);
        fs_err::write(&path, bytes).unwrap();
        let text = message_about(&folder, "shapes_vit", &path).replace(name, "FILE");
        insta::allow_duplicates!(assert_snapshot!(text, @r"
        error: `DIR/FILE` asks for `os.system` and was refused
          expected: tensors and plain data
          found: a pickle that needs `os.system`
        hint: nothing of the file was executed; trust it only from its authors, and ask them to save the state dict alone
        "));
        assert!(!trace.exists(), "{name} was run");
    }
    // Check that running the command would have left a trace.
    let command = format!("touch {}", trace.display());
    assert!(std::process::Command::new("sh").arg("-c").arg(command).status().unwrap().success());
    assert!(trace.exists());
}

/// A checkpoint in the authors' layout with the tensors of `shapes_vit` and these options.
fn with_options(folder: &TempDir, options: &[(&str, f64)]) -> PathBuf {
    let path = folder.path().join("model_best.pth");
    let tensors = shapes_vit();
    let parameters = models::parameters(&registry::find("shapes_vit").unwrap().model).unwrap();
    authors_checkpoint(&path, &parameters, options, |parameter, file: &mut dyn Write| {
        let (.., values) = tensors.iter().find(|(name, ..)| *name == parameter.name).unwrap();
        values.iter().for_each(|value| file.write_all(&value.to_le_bytes()).unwrap());
    });
    path
}

#[test]
fn options_that_differ_from_the_entry_are_rejected() {
    let folder = scenes(2);
    let path = with_options(&folder, &[("sparse_ratio", 0.8), ("embed_size", 512.0), ("aggr_ratio", 0.4)]);
    assert_snapshot!(message_about(&folder, "shapes_vit", &path), @r"
    error: the options in the checkpoint differ from the entry
      `embed_size`
        expected: 64
        found: 512
      `sparse_ratio`
        expected: 0.5
        found: 0.8
    hint: choose the entry that the checkpoint was trained for, or change its ratios and sizes
    ");
    // With the entry's own values the same file is accepted.
    let path = with_options(&folder, &[("sparse_ratio", 0.5), ("embed_size", 64.0), ("aggr_ratio", 0.4)]);
    let [data, path] = [folder.path(), &path].map(|path| path.to_str().unwrap());
    let run = laps_zoo(["reproduce", "shapes_vit", "--quiet", "--data", data, "--checkpoint", path]);
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
}
