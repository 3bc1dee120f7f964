//! Folders in place of a file: models in several files, Hugging Face folders, and unpacked `.pth` files.

use std::{collections::BTreeMap, path::Path};

use laps_files::sha256_hex;
use laps_hub::checkpoint::{Checkpoint, Format, convert};
use safetensors::{SafeTensors, serialize, tensor::TensorView};
use serde_json::json;
use tempfile::TempDir;
use zip::ZipArchive;

use crate::{golden, message, writer::safetensors};

const LIST: &str = "model.safetensors.index.json";

/// The tensors of a checkpoint: type, shape and values.
fn contents(checkpoint: &Checkpoint) -> BTreeMap<String, (String, Vec<usize>, Vec<f32>)> {
    let tensors = checkpoint.tensors().map(|(name, dtype, shape)| {
        // Only floats can be read; the indexes of Swin are integers.
        let values = if dtype.is_float() { checkpoint.read(name).unwrap().values().to_vec() } else { Vec::new() };
        (name.to_owned(), (dtype.to_string(), shape.to_vec(), values))
    });
    tensors.collect()
}

/// A model in two shards of one tensor each.
fn two_shards() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, tensor, value) in [("one.safetensors", "a", 1.5), ("two.safetensors", "b", 2.5)] {
        fs_err::write(folder.path().join(name), safetensors(&[(tensor, &[1], vec![value])])).unwrap();
    }
    list(folder.path(), r#"{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}"#);
    folder
}

fn list(folder: &Path, text: &str) {
    fs_err::write(folder.join(LIST), text).unwrap();
}

/// As `save_pretrained` of transformers writes a model that is larger than its `max_shard_size`.
#[test]
fn model_in_shards_is_the_model_in_one_file() {
    let bytes = fs_err::read(golden("vit_tiny.safetensors")).unwrap();
    let whole = SafeTensors::deserialize(&bytes).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut names = whole.names();
    names.sort();
    let mut map = BTreeMap::new();
    for (number, part) in names.chunks(names.len().div_ceil(3)).enumerate() {
        let shard = format!("model-{:05}-of-00003.safetensors", number + 1);
        let tensors: Vec<(&str, TensorView<'_>)> =
            part.iter().map(|&name| (name, whole.tensor(name).unwrap())).collect();
        fs_err::write(folder.path().join(&shard), serialize(tensors, None).unwrap()).unwrap();
        map.extend(part.iter().map(|name| (name.to_string(), shard.clone())));
    }
    let text = json!({"metadata": {"total_size": 1}, "weight_map": map}).to_string();
    list(folder.path(), &format!("\u{feff}{text}"));

    let expected = contents(&Checkpoint::open(golden("vit_tiny.safetensors")).unwrap());
    for path in [folder.path().to_owned(), folder.path().join(LIST)] {
        let found = Checkpoint::open(&path).unwrap();
        assert_eq!((found.format(), found.path()), (Format::SafeTensors, folder.path().join(LIST).as_path()));
        assert!(contents(&found) == expected);
    }
    // `(cd FOLDER && sha256sum *) | sha256sum`
    let files = fs_err::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs_err::read(path).unwrap()))
        .collect();
    files.sort();
    let lines: String = files.iter().map(|(name, bytes)| format!("{}  {name}\n", sha256_hex(bytes))).collect();
    let found = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(found.sha256().unwrap(), sha256_hex(lines.as_bytes()));
    assert_eq!(found.file_bytes(), files.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>());

    let output = folder.path().join("converted");
    let converted = convert(folder.path(), &output, None).unwrap();
    assert_eq!((converted.tensors, &converted.source_sha256), (expected.len(), &found.sha256().unwrap()));
    assert!(contents(&Checkpoint::open(&output).unwrap()) == expected);
    let shard = folder.path().join("model-00002-of-00003.safetensors");
    let error = convert(folder.path(), &shard, None).unwrap_err().to_string();
    assert!(error.starts_with("input and output are the same file"), "{error}");
}

#[test]
fn prefixes_are_removed_over_all_shards() {
    let folder = two_shards();
    fs_err::write(folder.path().join("one.safetensors"), safetensors(&[("model.img_enc.a", &[1], vec![1.0])])).unwrap();
    fs_err::write(folder.path().join("two.safetensors"), safetensors(&[("model.head.b", &[1], vec![2.0])])).unwrap();
    list(folder.path(), r#"{"weight_map": {"model.img_enc.a": "one.safetensors", "model.head.b": "two.safetensors"}}"#);
    let found = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(found.tensors().map(|(name, ..)| name).collect::<Vec<_>>(), ["head.b", "img_enc.a"]);
}

#[test]
fn list_that_does_not_fit_its_shards_is_rejected() {
    let refused = |text: &str, change: &dyn Fn(&Path)| {
        let folder = two_shards();
        list(folder.path(), text);
        change(folder.path());
        let message = message(&Checkpoint::open(folder.path()).unwrap_err());
        let (start, rest) = message.split_once('\n').unwrap();
        assert_eq!(start, format!("the files of `{LIST}` cannot be used"));
        let (rest, hint) = rest.split_once("\nhint: ").unwrap();
        assert_eq!(hint, "download the whole folder again, with every file that the list names");
        rest.to_owned()
    };
    let keep = |_: &Path| ();
    let good = r#"{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}"#;
    insta::assert_snapshot!(refused(good, &|folder| fs_err::remove_file(folder.join("two.safetensors")).unwrap()), @"
      expected: every shard beside the list
      found: no `two.safetensors`
    ");
    insta::assert_snapshot!(refused(r#"{"weight_map": {"a": "one.safetensors", "b": "one.safetensors"}}"#, &keep), @"
      expected: every tensor in the shard that the list names
      found: no `b` in it
    ");
    let twice = safetensors(&[("a", &[1], vec![1.0]), ("b", &[1], vec![1.0])]);
    insta::assert_snapshot!(refused(good, &|folder| fs_err::write(folder.join("two.safetensors"), &twice).unwrap()), @"
      expected: each tensor in one shard
      found: `a` in `one.safetensors` and `two.safetensors`
    ");
    insta::assert_snapshot!(refused(r#"{"weight_map": {"a": "one.safetensors", "a": "two.safetensors"}}"#, &keep), @"
      expected: a JSON object with `weight_map`, from tensor to file
      found: `a` twice at line 1 column 63
    ");
    for name in ["../one.safetensors", "/etc/passwd", "..", "x/one.safetensors", ""] {
        let text = refused(&json!({"weight_map": {"a": name}}).to_string(), &keep);
        assert!(text.starts_with("  expected: names of files beside the list\n  found: "), "{text}");
    }
    for text in ["", "{}", "[]", r#"{"weight_map": {"a": 1}}"#, r#"{"weight_map": []}"#] {
        assert!(refused(text, &keep).starts_with("  expected: a JSON object with"), "{text}");
    }
    assert!(refused(r#"{"weight_map": {}}"#, &keep).ends_with("found: none"));
}

#[test]
fn damaged_shard_is_named() {
    let folder = two_shards();
    fs_err::write(folder.path().join("two.safetensors"), &safetensors(&[("b", &[1], vec![1.0])])[..20]).unwrap();
    let error = Checkpoint::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("two.safetensors` is damaged"), "{error}");
}

/// Where a folder has several forms of a model, transformers takes them in this order.
#[test]
fn one_file_is_preferred_to_shards() {
    let folder = two_shards();
    let whole = folder.path().join("model.safetensors");
    fs_err::write(&whole, safetensors(&[("c", &[1], vec![3.5])])).unwrap();
    fs_err::write(folder.path().join("pytorch_model.bin"), "").unwrap();
    assert_eq!(Checkpoint::open(folder.path()).unwrap().path(), whole);
    fs_err::remove_file(&whole).unwrap();
    assert_eq!(Checkpoint::open(folder.path()).unwrap().path(), folder.path().join(LIST));
}

#[cfg(unix)]
#[test]
fn checkpoint_with_a_name_of_any_bytes_is_found() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

    let folder = tempfile::tempdir().unwrap();
    let [one, two] =
        [&b"a.safetensors"[..], b"\xff's.safetensors"].map(|name| folder.path().join(OsStr::from_bytes(name)));
    fs_err::write(&two, safetensors(&[("a", &[1], vec![1.5])])).unwrap();
    assert_eq!(Checkpoint::open(folder.path()).unwrap().path(), two);
    fs_err::copy(&two, one).unwrap();
    let hint = Checkpoint::open(folder.path()).unwrap_err().hint().unwrap();
    let expected = format!(r"name one of them, such as $'{}/\xff\'s.safetensors'", folder.path().display());
    assert_eq!(hint, expected);
}

/// Opening a FIFO would wait for its writer.
#[cfg(unix)]
#[test]
fn fifo_is_explained_and_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.pth");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    insta::assert_snapshot!(message(&Checkpoint::open(&path).unwrap_err()), @"
    `model.pth` is not a checkpoint
      expected: safetensors, or a file that `torch.save` wrote
      found: it is a FIFO, not a regular file
    hint: name a file on a disk
    ");
    // As the only file of a folder it is no checkpoint at all.
    assert!(Checkpoint::open(folder.path()).unwrap_err().to_string().ends_with("found: a folder without a checkpoint"));
}

/// Unpacks the archive of `torch.save` in `folder`.
fn unpack(archive: &Path, folder: &Path) {
    let mut archive = ZipArchive::new(fs_err::File::open(archive).unwrap()).unwrap();
    archive.extract(folder).unwrap();
}

#[test]
fn unpacked_archive_is_the_archive() {
    for name in ["vit_tiny.pth", "swin_tiny.pth"] {
        let folder = tempfile::tempdir().unwrap();
        unpack(&golden(name), folder.path());
        let inner = fs_err::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        let whole = Checkpoint::open(golden(name)).unwrap();
        for path in [folder.path(), &inner] {
            let found = Checkpoint::open(path).unwrap();
            assert!(contents(&found) == contents(&whole), "{name}");
            assert_eq!((found.path(), found.format()), (inner.as_path(), Format::TorchZip));
            assert_eq!((found.options(), found.training()), (whole.options(), whole.training()));
            assert_eq!(found.sha256().unwrap().len(), 64);
        }
    }
}

#[test]
fn unpacked_archive_without_a_storage_or_with_a_short_one_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    unpack(&golden("vit_tiny.pth"), folder.path());
    let data = fs_err::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path().join("data");
    fs_err::write(data.join("0"), "short").unwrap();
    let error = Checkpoint::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("is damaged") && error.contains("the storage `0` of 5 bytes"), "{error}");
    fs_err::remove_file(data.join("0")).unwrap();
    let error = Checkpoint::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("without its storage `0`"), "{error}");
}

/// The key of a storage is a text of the pickle, so it could lead to any file.
#[test]
fn unpacked_archive_cannot_name_files_outside() {
    let folder = tempfile::tempdir().unwrap();
    fs_err::create_dir_all(folder.path().join("m/data")).unwrap();
    fs_err::write(folder.path().join("secret"), [0; 64]).unwrap();
    for key in ["../../secret", "/dev/zero"] {
        let pickle = crate::writer::PickleWriter::default().op(b"\x80\x02}").text("a").whole("FloatStorage", key, &[1]);
        fs_err::write(folder.path().join("m/data.pkl"), pickle.op(b"s.").0).unwrap();
        let error = Checkpoint::open(folder.path().join("m")).unwrap_err().to_string();
        assert!(error.contains("`a` without its storage"), "{key}: {error}");
    }
}
