//! Files that `torch.load` reads and that are rarer than the ones of the authors: all of them are read.

use laps_hub::{
    checkpoint::{Checkpoint, Dtype, Format, OptionValue, Options, convert},
    registry::{embedded_checkpoint, find},
};
use laps_model::models;
use proptest::prelude::*;
use safetensors::SafeTensors;
use zip::CompressionMethod;

use crate::{
    message, open, parameter,
    writer::{PickleWriter, safetensors, torch_legacy, torch_zip, torch_zip_named},
};

/// A file with one weight, `a`, in its state dict, and `entries` beside the state dict.
fn with_entries(entries: &PickleWriter) -> Checkpoint {
    let start =
        PickleWriter::default().op(b"\x80\x02}(").text("model").op(b"}").text("a").whole("FloatStorage", "0", &[1]);
    let pickle = start.op(b"s").op(&entries.0).op(b"u.");
    let checkpoint = open(&torch_zip(&pickle.0, &[("0", 1.5_f32.to_le_bytes().to_vec())])).unwrap();
    assert_eq!(checkpoint.read("a").unwrap().values(), [1.5]);
    checkpoint
}

/// The options of a file whose `opt` is a dictionary of `entries`.
fn options(entries: &PickleWriter) -> Options {
    let checkpoint = with_entries(&PickleWriter::default().text("opt").op(b"}(").op(&entries.0).op(b"u"));
    checkpoint.options().unwrap().clone()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// A file is read whatever its stem, which `torch.save` takes as the name of the folder in an archive. The crate `zip`
    /// looks for the start of an archive and takes some lengths for another structure. The legacy container has no name in it.
    #[test]
    fn container_with_any_stem_is_read(letters in "[a-z0-9_]{80}") {
        let pickle = PickleWriter::default().op(b"\x80\x02}").text("a").whole("FloatStorage", "0", &[1]).op(b"s.");
        let values = 1.5_f32.to_le_bytes().to_vec();
        let folder = tempfile::tempdir().unwrap();
        for length in 1..=80 {
            let stem = &letters[..length];
            let path = folder.path().join(format!("{stem}.pth"));
            let zip = torch_zip_named(stem, CompressionMethod::Stored, &pickle.0, &[("0", values.clone())]);
            let legacy = torch_legacy(&pickle.0, &[("0", 1, values.clone())]);
            for (bytes, format) in [(zip, Format::TorchZip), (legacy, Format::TorchLegacy)] {
                fs_err::write(&path, bytes).unwrap();
                let opened = Checkpoint::open(&path);
                let checkpoint = opened.map_err(|error| TestCaseError::fail(format!("{length}: {error}")))?;
                prop_assert_eq!(checkpoint.format(), format);
                let tensor = checkpoint.read("a").unwrap();
                prop_assert_eq!(tensor.values(), [1.5]);
            }
        }
    }
}

#[test]
fn wrapper_prefixes_are_removed_and_reported() {
    let entry = find("shapes_vit").unwrap();
    let bytes = embedded_checkpoint("shapes_vit").unwrap().bytes;
    let plain = SafeTensors::deserialize(bytes).unwrap();
    let parameters = models::parameters(&entry.model).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let [input, output] = ["in.safetensors", "out.safetensors"].map(|name| folder.path().join(name));
    for prefix in ["module.", "_orig_mod.", "model.", "model._orig_mod.", "module._orig_mod.model."] {
        let tensors = plain.iter().map(|(name, view)| (format!("{prefix}{name}"), view));
        fs_err::write(&input, ::safetensors::serialize(tensors, None).unwrap()).unwrap();
        let checkpoint = Checkpoint::open(&input).unwrap();
        checkpoint.check(&parameters).unwrap();
        let mut steps: Vec<_> = prefix.split_inclusive('.').collect();
        steps.sort_unstable();
        assert_eq!(checkpoint.removed_prefixes().collect::<Vec<_>>(), steps);
        let named: Vec<String> = steps.iter().map(|step| format!("`{step}`")).collect();
        assert_eq!(checkpoint.notes(), [format!("removed from the names in the checkpoint: {}", named.join(", "))]);
        let converted = convert(&input, &output, Some(&entry.model)).unwrap();
        assert_eq!(converted.removed_prefixes, steps);
        let reread = fs_err::read(&output).unwrap();
        let reread = SafeTensors::deserialize(&reread).unwrap();
        for (name, view) in plain.iter() {
            assert_eq!(reread.tensor(name).unwrap().data(), view.data(), "{prefix}{name}");
        }
    }
    let bytes = safetensors(&[("_orig_mod.img_enc.a", &[1], vec![0.0]), ("_orig_mod.b", &[1], vec![0.0])]);
    let error = open(&bytes).unwrap().check(&[parameter("img_enc.a", &[1])]).unwrap_err();
    insta::assert_snapshot!(message(&error), @r"
    `file` does not fit the model of 1 parameters
      removed from the names: `_orig_mod.`
      unexpected: 1
        `b`
    ");
}

#[test]
fn option_that_is_a_text_of_a_number_or_none_is_no_difference() {
    let model = find("shapes_vit").unwrap().model;
    let size = model.image.image_size().to_string();
    let entries = |size: &str| PickleWriter::default().text("img_res").text(size).text("sparse_ratio").op(b"N");
    options(&entries(&size)).check(&model).unwrap();
    options(&entries(&format!(" {size}.0 "))).check(&model).unwrap();
    assert!(options(&entries("61")).check(&model).is_err());
    assert!(options(&entries("large")).check(&model).is_err());
}

#[test]
fn opt_that_is_not_options_counts_as_absent() {
    for opt in
        [PickleWriter::default().text("text"), PickleWriter::default().op(b"N"), PickleWriter::default().op(b"]")]
    {
        assert!(with_entries(&PickleWriter::default().text("opt").op(&opt.0)).options().is_none());
    }
    let view = |data| ::safetensors::tensor::TensorView::new(::safetensors::Dtype::F32, vec![1], data).unwrap();
    for opt in ["", "Namespace(embed_size=512)", "[1]", "{\"a\": 1"] {
        let metadata = std::collections::HashMap::from([("opt".to_owned(), opt.to_owned())]);
        let bytes = ::safetensors::serialize([("a", view(&[0; 4]))], Some(metadata)).unwrap();
        assert!(open(&bytes).unwrap().options().is_none(), "{opt}");
    }
}

#[test]
fn paths_that_are_not_utf8_are_read() {
    // "/data/\udcff", as Python's `surrogatepass` encodes it.
    let path = PickleWriter::default().text("path").op(b"X\x09\0\0\0/data/\xed\xb3\xbf");
    assert_eq!(options(&path).get("path"), Some(&OptionValue::Text("/data/\u{fffd}\u{fffd}\u{fffd}".to_owned())));
}

/// `numpy.core.multiarray.scalar(numpy.dtype(dtype), bytes)` as NumPy pickles it with protocol 3 and higher.
fn numpy_scalar(dtype: &str, order: &str, bytes: &[u8]) -> PickleWriter {
    let pickle = PickleWriter::default().global("numpy.core.multiarray", "scalar").global("numpy", "dtype");
    let pickle = pickle.text(dtype).op(b"\x89\x88\x87R(").int(3).text(order);
    let pickle = pickle.op(b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb");
    pickle.op(b"C").op(&[bytes.len() as u8]).op(bytes).op(b"\x86R")
}

#[test]
fn numpy_scalars_of_every_dtype_are_read() {
    let utf32: Vec<u8> = "f30k\0".chars().flat_map(|letter| u32::from(letter).to_le_bytes()).collect();
    for (dtype, bytes, expected) in [
        ("f8", 1.5_f64.to_le_bytes().to_vec(), OptionValue::Float(1.5)),
        ("f4", 1.5_f32.to_le_bytes().to_vec(), OptionValue::Float(1.5)),
        ("f2", half::f16::from_f32(1.5).to_le_bytes().to_vec(), OptionValue::Float(1.5)),
        ("i8", (-3_i64).to_le_bytes().to_vec(), OptionValue::Int(-3)),
        ("i4", (-3_i32).to_le_bytes().to_vec(), OptionValue::Int(-3)),
        ("i2", (-3_i16).to_le_bytes().to_vec(), OptionValue::Int(-3)),
        ("i1", (-3_i8).to_le_bytes().to_vec(), OptionValue::Int(-3)),
        ("u8", 250_u64.to_le_bytes().to_vec(), OptionValue::Int(250)),
        ("u4", 250_u32.to_le_bytes().to_vec(), OptionValue::Int(250)),
        ("u2", 250_u16.to_le_bytes().to_vec(), OptionValue::Int(250)),
        ("u1", vec![250], OptionValue::Int(250)),
        ("b1", vec![1], OptionValue::Bool(true)),
        ("U5", utf32, OptionValue::Text("f30k".to_owned())),
        ("S4", b"f30k".to_vec(), OptionValue::Other("bytes")),
        ("c8", vec![0; 8], OptionValue::Other("numpy.generic")),
        ("f16", vec![0; 16], OptionValue::Other("numpy.generic")),
        ("M8", vec![0; 8], OptionValue::Other("numpy.generic")),
    ] {
        let found = options(&PickleWriter::default().text("x").op(&numpy_scalar(dtype, "<", &bytes).0));
        assert_eq!(found.get("x"), Some(&expected), "{dtype}");
    }
    let big_endian = numpy_scalar("f8", ">", &1.5_f64.to_be_bytes());
    let checkpoint = with_entries(&PickleWriter::default().text("best_rsum").op(&big_endian.0));
    assert_eq!(checkpoint.training().best_rsum, Some(1.5));
}

#[test]
fn plain_objects_beside_the_weights_are_read() {
    let counter = PickleWriter::default().global("collections", "Counter").op(b"}").text("a").int(3).op(b"s\x85R");
    let complex = PickleWriter::default().global("builtins", "complex").float(1.0).float(2.0).op(b"\x86R");
    let empty_bytes = PickleWriter::default().global("__builtin__", "bytes").op(b")R");
    let array = PickleWriter::default().global("numpy._core.multiarray", "_reconstruct").global("numpy", "ndarray");
    let array = array.op(b"K\0\x85C\x01b\x87R(K\x01K\x02\x85").global("numpy", "dtype").text("f8").op(b"\x89\x88\x87R");
    let array = array.op(b"\x89C\x10").op(&[0; 16]).op(b"tb");
    let dtype = PickleWriter::default().global("torch", "uint16");
    for value in [counter, complex, empty_bytes, array, dtype] {
        with_entries(&PickleWriter::default().text("extra").op(&value.0));
        options(&PickleWriter::default().text("extra").op(&value.0));
    }
}

/// PyTorch writes element types without a storage class of their own, such as `uint16`, over untyped bytes.
#[test]
fn tensors_over_untyped_storages_are_read() {
    let pickle =
        PickleWriter::default().op(b"\x80\x02}").text("a").global("torch._utils", "_rebuild_tensor_v3").op(b"((");
    let pickle =
        pickle.text("storage").global("torch.storage", "UntypedStorage").text("0").text("cpu").int(8).op(b"tQ");
    let pickle = pickle.int(1).op(b"(").int(3).op(b"t(").int(1).op(b"t\x89").global("collections", "OrderedDict");
    let pickle = pickle.op(b")R").global("torch", "uint16").op(b"tRs.");
    let folder = tempfile::tempdir().unwrap();
    let [input, output] = ["in.pth", "out.safetensors"].map(|name| folder.path().join(name));
    let data = vec![0, 0, 1, 0, 2, 0, 3, 0];
    for bytes in [torch_zip(&pickle.0, &[("0", data.clone())]), torch_legacy(&pickle.0, &[("0", 8, data.clone())])] {
        fs_err::write(&input, bytes).unwrap();
        let checkpoint = Checkpoint::open(&input).unwrap();
        assert_eq!(checkpoint.tensors().collect::<Vec<_>>(), [("a", Dtype::U16, &[3][..])]);
        convert(&input, &output, None).unwrap();
        let bytes = fs_err::read(&output).unwrap();
        assert_eq!(SafeTensors::deserialize(&bytes).unwrap().tensor("a").unwrap().data(), [1, 0, 2, 0, 3, 0]);
    }
}

#[test]
fn expanded_tensors_are_read() {
    let pickle = PickleWriter::default().op(b"\x80\x02}(").text("rows");
    let pickle = pickle.tensor("FloatStorage", "0", 2, 0, &[3, 2], &[0, 1]);
    let pickle = pickle.text("one").tensor("FloatStorage", "0", 2, 1, &[2, 2], &[0, 0]).op(b"u.");
    let data: Vec<u8> = [1.0_f32, 2.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("expanded.pth");
    for bytes in [torch_zip(&pickle.0, &[("0", data.clone())]), torch_legacy(&pickle.0, &[("0", 2, data.clone())])] {
        fs_err::write(&path, bytes).unwrap();
        let checkpoint = Checkpoint::open(&path).unwrap();
        assert_eq!(checkpoint.read("rows").unwrap().values(), [1.0, 2.0, 1.0, 2.0, 1.0, 2.0]);
        assert_eq!(checkpoint.read("one").unwrap().values(), [2.0; 4]);
    }
}

#[test]
fn compressed_storages_are_read() {
    let pickle = PickleWriter::default().op(b"\x80\x02}(").text("a").whole("FloatStorage", "0", &[64]);
    let pickle = pickle.text("b").tensor("FloatStorage", "0", 64, 62, &[2], &[1]).op(b"u.");
    let values: Vec<f32> = (0..64).map(|value| value as f32).collect();
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deflated.pth");
    fs_err::write(&path, torch_zip_named("a", CompressionMethod::Deflated, &pickle.0, &[("0", data)])).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.read("a").unwrap().values(), values);
    assert_eq!(checkpoint.read("b").unwrap().values(), [62.0, 63.0]);
}
