//! Conversion to safetensors: the same tensors, bit for bit, and no partial files.

use laps_files::{ExpectedDigest, digest_file};
use laps_hub::{
    checkpoint::{Checkpoint, Format, OptionValue, convert, convert_verified},
    registry::find,
};
use safetensors::SafeTensors;

use crate::{
    golden,
    writer::{PickleWriter, torch_zip},
};

/// The safetensors file of the same model was written by the `safetensors` package for Python.
#[test]
fn torch_file_becomes_the_file_that_python_writes() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["vit_tiny", "swin_tiny"] {
        let (input, output) = (golden(&format!("{name}.pth")), folder.path().join(format!("{name}.safetensors")));
        let converted = convert(&input, &output, None).unwrap();
        let [ours, theirs] = [&output, &golden(&format!("{name}.safetensors"))].map(|path| fs_err::read(path).unwrap());
        let [ours, theirs] = [&ours, &theirs].map(|bytes| SafeTensors::deserialize(bytes).unwrap());
        assert_eq!(converted.tensors, theirs.len());
        let mut names = ours.names();
        names.sort();
        let mut expected = theirs.names();
        expected.sort();
        assert_eq!(names, expected);
        for name in names {
            let [ours, theirs] = [&ours, &theirs].map(|file| file.tensor(name).unwrap());
            assert_eq!((ours.dtype(), ours.shape()), (theirs.dtype(), theirs.shape()), "{name}");
            assert!(ours.data() == theirs.data(), "{name}");
        }
        let found = digest_file(&output, &ExpectedDigest::default()).unwrap();
        // With the hash of the source known, the written file is hashed instead; the file is the same.
        let verified = folder.path().join("verified.safetensors");
        let (same, sha256) = convert_verified(&input, &verified, &converted.source_sha256, None).unwrap();
        assert_eq!((converted.bytes, same.bytes, &sha256), (found.bytes, found.bytes, &found.sha256));
        assert_eq!(fs_err::read(&verified).unwrap(), fs_err::read(&output).unwrap());
        let [before, after] = [&input, &output].map(|path| Checkpoint::open(path).unwrap());
        assert_eq!(converted.source_sha256, before.sha256().unwrap());
        assert_eq!((before.options(), before.training()), (after.options(), after.training()));
        assert_eq!(after.format(), Format::SafeTensors);
        // Converting the result again keeps the tensors and the options.
        let again = folder.path().join("again.safetensors");
        convert(&output, &again, None).unwrap();
        let again = Checkpoint::open(&again).unwrap();
        assert_eq!((again.options(), again.training()), (before.options(), before.training()));
        assert!(again.tensors().eq(after.tensors()));
    }
}

#[test]
fn every_dtype_and_stride_is_converted() {
    let pickle = PickleWriter::default()
        .op(b"\x80\x02}(")
        .text("model")
        .op(b"}(")
        .text("module.half")
        .whole("HalfStorage", "0", &[3])
        .text("transposed")
        .tensor("FloatStorage", "1", 6, 0, &[3, 2], &[1, 3])
        .text("count")
        .whole("LongStorage", "2", &[1])
        .text("flag")
        .whole("BoolStorage", "3", &[3])
        .text("scalar")
        .whole("DoubleStorage", "4", &[])
        .op(b"u")
        .text("opt")
        .op(b"}")
        .text("note")
        .text("a \"b\" \u{e9}")
        .op(b"su.");
    let floats: Vec<u8> = (0..6).flat_map(|value| (value as f32).to_le_bytes()).collect();
    let bytes = torch_zip(
        &pickle.0,
        &[
            ("0", vec![1, 2, 3, 4, 5, 6]),
            ("1", floats),
            ("2", 7_i64.to_le_bytes().to_vec()),
            ("3", vec![1, 0, 1]),
            ("4", 2.5_f64.to_le_bytes().to_vec()),
        ],
    );
    let folder = tempfile::tempdir().unwrap();
    let [input, output] = ["in.pth", "out.safetensors"].map(|name| folder.path().join(name));
    fs_err::write(&input, bytes).unwrap();
    convert(&input, &output, None).unwrap();
    let bytes = fs_err::read(&output).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let transposed: Vec<u8> = [0, 3, 1, 4, 2, 5].into_iter().flat_map(|value| (value as f32).to_le_bytes()).collect();
    assert_eq!(file.tensor("transposed").unwrap().data(), transposed);
    assert_eq!(file.tensor("half").unwrap().data(), [1, 2, 3, 4, 5, 6]);
    assert_eq!(file.tensor("count").unwrap().data(), 7_i64.to_le_bytes());
    assert_eq!(file.tensor("flag").unwrap().data(), [1, 0, 1]);
    assert_eq!(
        (file.tensor("scalar").unwrap().shape(), file.tensor("scalar").unwrap().data()),
        (&[][..], &2.5_f64.to_le_bytes()[..])
    );
    let note = Checkpoint::open(&output).unwrap().options().unwrap().get("note").cloned();
    assert_eq!(note, Some(OptionValue::Text("a \"b\" \u{e9}".to_owned())));
}

#[test]
fn failed_conversion_leaves_the_output_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.safetensors");
    fs_err::write(&output, b"existing").unwrap();
    let entry = find("f30k_vit").unwrap();
    let infinite = {
        let pickle = PickleWriter::default().op(b"\x80\x02}").text("a").whole("FloatStorage", "0", &[1]).op(b"s.");
        let path = folder.path().join("infinite.pth");
        fs_err::write(&path, torch_zip(&pickle.0, &[("0", f32::INFINITY.to_le_bytes().to_vec())])).unwrap();
        path
    };
    let cut = folder.path().join("cut.pth");
    let whole = fs_err::read(golden("vit_tiny.pth")).unwrap();
    fs_err::write(&cut, &whole[..whole.len() / 2]).unwrap();
    for input in [&golden("swin_tiny.pth"), &infinite, &cut, &folder.path().join("absent")] {
        convert(input, &output, Some(&entry.model)).unwrap_err();
        assert_eq!(fs_err::read(&output).unwrap(), b"existing");
    }
    let mut left: Vec<_> = fs_err::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["cut.pth", "infinite.pth", "out.safetensors"]);
}

/// A model of the sizes of `shapes_vit` with one value that is not finite: it is found while copying, and no file is left.
#[test]
fn non_finite_value_is_found_while_copying() {
    let entry = find("shapes_vit").unwrap();
    let bytes = laps_hub::registry::embedded_checkpoint("shapes_vit").unwrap().bytes;
    let folder = tempfile::tempdir().unwrap();
    let [good, bad, output] = ["good", "bad", "out"].map(|name| folder.path().join(name));
    fs_err::write(&good, bytes).unwrap();
    let mut spoiled = bytes.to_vec();
    let end = spoiled.len();
    // The file has f16 or f32; with all bits set either is NaN.
    spoiled[end - 4..].fill(0xff);
    fs_err::write(&bad, spoiled).unwrap();
    convert(&good, &output, Some(&entry.model)).unwrap();
    fs_err::remove_file(&output).unwrap();
    let error = convert(&bad, &output, Some(&entry.model)).unwrap_err();
    assert!(error.to_string().contains("not finite: 1"), "{error}");
    let mut left: Vec<_> = fs_err::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["bad", "good"]);
}

/// Entries of the state dict that are not tensors do not stop the conversion, and neither does a type that safetensors
/// lacks.
#[test]
fn unsupported_tensors_are_skipped_and_counted() {
    let pickle =
        PickleWriter::default().op(b"\x80\x02}(").text("model").op(b"}(").text("a").whole("FloatStorage", "0", &[1]);
    let pickle = pickle.text("wide").whole("ComplexDoubleStorage", "1", &[1]).text("_extra_state").op(b"Nu");
    let pickle = pickle.text("optimizer").op(b"](").whole("FloatStorage", "0", &[1]).op(b"eu.");
    let folder = tempfile::tempdir().unwrap();
    let [input, output] = ["in.pth", "out.safetensors"].map(|name| folder.path().join(name));
    fs_err::write(&input, torch_zip(&pickle.0, &[("0", vec![0; 4]), ("1", vec![0; 16])])).unwrap();
    let converted = convert(&input, &output, None).unwrap();
    let skipped: Vec<String> = converted.skipped.iter().map(ToString::to_string).collect();
    assert_eq!(skipped, ["`_extra_state`: None", "`wide`: complex128, which safetensors has no type for"]);
    assert_eq!((converted.tensors, converted.tensors_outside), (1, 1));
    // A parameter of the model is not skipped in silence.
    let error = Checkpoint::open(&input).unwrap().check(&[crate::parameter("_extra_state", &[1])]).unwrap_err();
    assert!(error.to_string().ends_with("skipped: 1\n    `_extra_state`: None"), "{error}");
}

/// Name of the variable that makes [`conversion_is_a_function_of_its_input`] convert to the path in it.
const OUTPUT: &str = "LAPS_TEST_CONVERT_TO";

/// Two processes, because hash maps of one process can have the same order.
#[test]
fn conversion_is_a_function_of_its_input() {
    let input = golden("vit_tiny.pth");
    if let Some(output) = std::env::var_os(OUTPUT) {
        convert(&input, output.as_ref(), None).unwrap();
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = ["first", "second"].map(|name| {
        let path = folder.path().join(name);
        let program = std::env::current_exe().unwrap();
        let mut command = std::process::Command::new(program);
        command.args(["--exact", "convert::conversion_is_a_function_of_its_input"]).env(OUTPUT, &path);
        assert!(command.output().unwrap().status.success());
        fs_err::read(path).unwrap()
    });
    assert!(first == second);
    let header = String::from_utf8_lossy(&first[8..]);
    let keys = ["Eiters", "best_rsum", "converted_by", "epoch", "format", "opt", "source_format", "source_sha256"];
    let places: Vec<_> = keys.iter().map(|key| header.find(&format!("\"{key}\":"))).collect();
    assert!(places.is_sorted() && places.iter().all(Option::is_some), "{places:?}");
}

#[cfg(unix)]
mod outputs {
    use std::{
        os::unix::fs::{FileTypeExt, MetadataExt, symlink},
        path::Path,
        process::Command,
        thread,
    };

    use laps_hub::checkpoint::convert;

    use crate::golden;

    #[test]
    fn device_and_pipe_are_written_into() {
        let folder = tempfile::tempdir().unwrap();
        let [regular, fifo] = ["regular", "fifo"].map(|name| folder.path().join(name));
        let input = golden("vit_tiny.pth");
        let converted = convert(&input, &regular, None).unwrap();
        assert_eq!(convert(&input, Path::new("/dev/null"), None).unwrap().bytes, converted.bytes);
        assert!(fs_err::metadata("/dev/null").unwrap().file_type().is_char_device());
        assert!(!Path::new("/dev/null.lock").exists());
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let reader = thread::spawn({
            let fifo = fifo.clone();
            move || fs_err::read(fifo).unwrap()
        });
        convert(&input, &fifo, None).unwrap();
        assert!(reader.join().unwrap() == fs_err::read(&regular).unwrap());
    }

    #[test]
    fn link_stays_and_its_target_has_the_mode_of_a_new_file() {
        let folder = tempfile::tempdir().unwrap();
        let [plain, target, link] = ["plain", "target", "link"].map(|name| folder.path().join(name));
        fs_err::write(&plain, "").unwrap();
        symlink("target", &link).unwrap();
        convert(&golden("vit_tiny.pth"), &link, None).unwrap();
        assert!(fs_err::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs_err::metadata(&target).unwrap().mode(), fs_err::metadata(&plain).unwrap().mode());
    }
}
