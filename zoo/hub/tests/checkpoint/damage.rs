//! Truncated, altered and foreign files: an error each, and never a panic.

use laps_hub::checkpoint::{Checkpoint, CheckpointError};

use crate::{
    golden, message, open, parameter,
    writer::{PickleWriter, safetensors, torch_legacy, torch_zip},
};

const GOLDENS: [&str; 3] = ["vit_tiny.safetensors", "vit_tiny.pth", "vit_tiny_legacy.pth"];

/// Opens the file and reads every tensor that it lists.
fn read_all(bytes: &[u8]) -> Result<usize, CheckpointError> {
    let checkpoint = open(bytes)?;
    let names: Vec<_> = checkpoint.tensors().filter(|(_, dtype, _)| dtype.is_float()).map(|(name, ..)| name).collect();
    let model: Vec<_> = checkpoint.tensors().map(|(name, _, shape)| parameter(name, shape)).collect();
    match checkpoint.check(&model) {
        Ok(()) | Err(CheckpointError::Mismatch(_)) => {}
        Err(error) => return Err(error),
    }
    names.iter().try_fold(0, |sum, name| Ok(sum + checkpoint.read(name)?.values().len()))
}

#[test]
fn truncated_file_is_rejected_at_any_length() {
    for file in GOLDENS {
        let bytes = fs_err::read(golden(file)).unwrap();
        assert!(read_all(&bytes).unwrap() > 70_000, "{file}");
        let start = (0..128).chain((128..20_000).step_by(197));
        let end = (bytes.len() - 300)..bytes.len();
        for length in start.chain((20_000..bytes.len()).step_by(4_001)).chain(end) {
            let error = open(&bytes[..length]).expect_err(&format!("{file} cut to {length} bytes"));
            let is_clear = matches!(error, CheckpointError::Damaged { .. } | CheckpointError::Foreign { .. });
            assert!(is_clear && error.hint().is_some(), "{file} cut to {length} bytes: {error:?}");
        }
    }
}

#[test]
fn truncated_file_is_reported_as_damaged() {
    for file in GOLDENS {
        let bytes = fs_err::read(golden(file)).unwrap();
        let words = message(&open(&bytes[..bytes.len() / 2]).unwrap_err());
        match file {
            "vit_tiny.safetensors" => insta::assert_snapshot!(words, @r"
            `file` is damaged
              expected: a complete safetensors checkpoint
              found: 165748 bytes where the header describes 331496
            hint: the file is truncated, damaged or not written by torch: download it again and compare its size and sha256
            "),
            "vit_tiny.pth" => insta::assert_snapshot!(words, @r"
            `file` is damaged
              expected: a complete torch (zip) checkpoint
              found: a truncated or damaged zip archive: invalid Zip archive: Could not find EOCD
            hint: the file is truncated, damaged or not written by torch: download it again and compare its size and sha256
            "),
            _ => insta::assert_snapshot!(words, @r"
            `file` is damaged
              expected: a complete torch (legacy) checkpoint
              found: the storage `94411721295184` of 98304 bytes, beyond the end of the file
            hint: the file is truncated, damaged or not written by torch: download it again and compare its size and sha256
            "),
        }
    }
}

/// The archive as `torch.save` writes it without checksums.
fn without_checksums(archive: &[u8]) -> Vec<u8> {
    let mut bytes = archive.to_vec();
    for (signature, field) in [(b"PK\x03\x04", 14), (b"PK\x01\x02", 16)] {
        let places: Vec<_> = (0..bytes.len() - 4).filter(|&place| bytes[place..].starts_with(signature)).collect();
        places.iter().for_each(|place| bytes[place + field..place + field + 4].fill(0));
    }
    bytes
}

#[test]
fn altered_bytes_never_panic() {
    // A linear congruential generator (Knuth, MMIX), so that every run alters the same bytes.
    let mut state = 7_u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let goldens = GOLDENS.map(|file| (file, fs_err::read(golden(file)).unwrap()));
    let bare = ("vit_tiny.pth without checksums", without_checksums(&goldens[1].1));
    assert_eq!(read_all(&bare.1).unwrap(), read_all(&goldens[1].1).unwrap());
    for (file, original) in goldens.into_iter().chain([bare]) {
        let (mut read, mut refused) = (0, 0);
        for round in 0..400 {
            let mut bytes = original.clone();
            for _ in 0..=random(4) {
                // Half of them in the structure: headers and pickle at the front, the zip directory at the end.
                let place = match round % 4 {
                    0 => random(bytes.len()),
                    1 => bytes.len() - 1 - random(8_000),
                    _ => random(14_000),
                };
                bytes[place] = random(256) as u8;
            }
            match read_all(&bytes) {
                Ok(_) => read += 1,
                Err(error) => {
                    refused += 1;
                    assert!(!error.to_string().is_empty());
                }
            }
        }
        assert!(read > 5 && refused > 100, "{file}: {read} read, {refused} refused");
    }
}

#[test]
fn altered_weight_in_a_zip_is_found_by_its_checksum() {
    let mut bytes = fs_err::read(golden("vit_tiny.pth")).unwrap();
    let place = bytes.len() / 2;
    bytes[place] ^= 1;
    let error = read_all(&bytes).unwrap_err();
    assert!(error.to_string().contains("checksum"), "{error}");
}

#[test]
fn foreign_files_are_named() {
    let page = message(&open(b"<!DOCTYPE html><html>Quota exceeded</html>").unwrap_err());
    insta::assert_snapshot!(page, @r"
    `file` is not a checkpoint
      expected: safetensors, or a file that `torch.save` wrote
      found: a web page, which a server sends in place of a file that it refuses
    hint: a checkpoint is a `.safetensors` file, or a `.pth` file with a state dict
    ");
    for (bytes, found) in [
        (&b""[..], "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"\x1f\x8b\x08\0\0\0\0\0", "gzip"),
        (b"\x80\x02}.", "a pickle without tensors"),
        (b"hello, world", "unknown kind"),
    ] {
        let error = open(bytes).unwrap_err();
        assert!(matches!(&error, CheckpointError::Foreign { found: text, .. } if text.contains(found)), "{error}");
    }
    let error = Checkpoint::open("/nonexistent/file.pth").unwrap_err();
    assert!(matches!(error, CheckpointError::Io(_)));
}

#[test]
fn archive_without_a_state_dict_is_rejected() {
    let empty = torch_zip(b"\x80\x02}.", &[]);
    insta::assert_snapshot!(message(&open(&empty).unwrap_err()), @r"
    `file` is not a checkpoint
      expected: safetensors, or a file that `torch.save` wrote
      found: a torch file without a state dict, with the keys []
    hint: a checkpoint is a `.safetensors` file, or a `.pth` file with a state dict
    ");
    let optimizer = PickleWriter::default().op(b"\x80\x02}(").text("optimizer").op(b"}").text("epoch").int(3).op(b"u.");
    insta::assert_snapshot!(message(&open(&torch_zip(&optimizer.0, &[])).unwrap_err()), @r#"
    `file` is not a checkpoint
      expected: safetensors, or a file that `torch.save` wrote
      found: a torch file without a state dict, with the keys ["optimizer", "epoch"]
    hint: a checkpoint is a `.safetensors` file, or a `.pth` file with a state dict
    "#);
    let text = PickleWriter::default().op(b"\x80\x02}").text("model").op(b"}").text("a").int(3).op(b"ss.");
    insta::assert_snapshot!(message(&open(&torch_zip(&text.0, &[])).unwrap_err()), @r#"
    `file` is not a checkpoint
      expected: safetensors, or a file that `torch.save` wrote
      found: a torch file without a state dict, with the keys ["model"]
    hint: a checkpoint is a `.safetensors` file, or a `.pth` file with a state dict
    "#);
}

#[test]
fn archives_of_other_programs_are_explained() {
    let archive = |names: &[&str]| {
        let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for name in names {
            writer.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        }
        writer.finish().unwrap().into_inner()
    };
    let found = |names: &[&str]| message(&open(&archive(names)).unwrap_err());
    insta::assert_snapshot!(found(&["LAPS/model_best.pth", "LAPS/log.txt", "LAPS/last.pth"]), @r"
    `file` is not a checkpoint
      expected: safetensors, or a file that `torch.save` wrote
      found: a zip archive with the file `LAPS/model_best.pth` and 1 more in it
    hint: unpack the archive, and use the checkpoint in it
    ");
    insta::assert_snapshot!(found(&["model/data.pkl", "model/constants.pkl", "model/code/a.py"]), @r"
    `file` is not a checkpoint
      expected: safetensors, or a file that `torch.save` wrote
      found: a TorchScript archive, which is a program
    hint: save its weights in Python: `torch.save(torch.jit.load(FILE).state_dict(), NEW)`
    ");
    assert!(found(&["readme.txt"]).contains("found: a zip archive that torch did not write"));
}

#[test]
fn folder_is_read_or_explained() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("a b");
    fs_err::create_dir_all(root.join("model")).unwrap();
    let explained = || {
        let error = Checkpoint::open(&root).unwrap_err();
        let folder = format!("{}/", folder.path().display());
        format!("{error}\nhint: {}", error.hint().unwrap()).replace(&folder, "")
    };
    insta::assert_snapshot!(explained(), @r"
    `a b` is not a checkpoint
      expected: safetensors, or a file that `torch.save` wrote
      found: a folder without a checkpoint
    hint: name the file of the checkpoint
    ");
    fs_err::write(root.join("config.json"), "{}").unwrap();
    fs_err::write(root.join("model_best.safetensors"), safetensors(&[("a", &[1], vec![1.5])])).unwrap();
    assert_eq!(Checkpoint::open(&root).unwrap().path(), root.join("model_best.safetensors"));
    fs_err::write(root.join("last.pth"), "").unwrap();
    insta::assert_snapshot!(explained(), @r"
    `a b` is not a checkpoint
      expected: safetensors, or a file that `torch.save` wrote
      found: a folder with 2 checkpoints
    hint: name one of them, such as 'a b/model_best.safetensors'
    ");
    // The weights of a Hugging Face model, whatever lies beside them.
    fs_err::rename(root.join("model_best.safetensors"), root.join("model.safetensors")).unwrap();
    assert_eq!(Checkpoint::open(&root).unwrap().read("a").unwrap().values(), [1.5]);
}

#[test]
fn duplicate_names_are_rejected() {
    let twice = PickleWriter::default().op(b"\x80\x02}(");
    let twice = twice.text("a").whole("FloatStorage", "0", &[1]).text("a").whole("FloatStorage", "1", &[1]).op(b"u.");
    let error = open(&torch_zip(&twice.0, &[("0", vec![0; 4]), ("1", vec![0; 4])])).unwrap_err();
    assert!(error.to_string().contains("`a` twice"), "{error}");
    let wrapped = safetensors(&[("a", &[1], vec![0.0]), ("module.a", &[1], vec![0.0])]);
    assert!(open(&wrapped).unwrap_err().to_string().contains("`a` twice"));
}

#[test]
fn missing_or_short_storage_is_rejected() {
    let pickle = PickleWriter::default().op(b"\x80\x02}").text("a").whole("FloatStorage", "0", &[2]).op(b"s.").0;
    let model = [parameter("a", &[2])];
    for (bytes, words) in [
        (torch_zip(&pickle, &[]), "without its storage"),
        (torch_zip(&pickle, &[("0", vec![0; 4])]), "of 4 bytes, of which `a` needs 8"),
    ] {
        let error = open(&bytes).and_then(|checkpoint| checkpoint.check(&model)).unwrap_err();
        assert!(matches!(error, CheckpointError::Damaged { .. }) && error.to_string().contains(words), "{error}");
    }
    let error = open(&torch_legacy(&pickle, &[("0", 2, vec![0; 4])])).unwrap_err();
    assert!(error.to_string().contains("beyond the end of the file"), "{error}");
}
