//! Every container and layout gives the same tensors, options and training progress.

use laps_hub::checkpoint::{BackboneKind, Checkpoint, Dtype, Format, OptionValue};

use crate::{
    golden, model, open, parameter,
    writer::{PickleWriter, safetensors, torch_legacy, torch_zip},
};

#[test]
fn every_container_gives_the_same_bits_and_options() {
    for (reference, others) in [
        ("vit_tiny", &[("vit_tiny.pth", Format::TorchZip), ("vit_tiny_legacy.pth", Format::TorchLegacy)][..]),
        ("swin_tiny", &[("swin_tiny.pth", Format::TorchZip)]),
    ] {
        let reference = Checkpoint::open(golden(&format!("{reference}.safetensors"))).unwrap();
        assert_eq!(reference.format(), Format::SafeTensors);
        let names: Vec<_> = reference.tensors().collect();
        assert!(names.len() >= 90, "{}", names.len());
        for (file, format) in others {
            let checkpoint = Checkpoint::open(golden(file)).unwrap();
            assert_eq!(checkpoint.format(), *format);
            assert_eq!(checkpoint.tensors().collect::<Vec<_>>(), names, "{file}");
            for &(name, dtype, _) in names.iter().filter(|(_, dtype, _)| dtype.is_float()) {
                let bits = |checkpoint: &Checkpoint| {
                    let array = checkpoint.read(name).unwrap();
                    (array.dims().to_vec(), array.values().iter().map(|value| value.to_bits()).collect::<Vec<_>>())
                };
                assert_eq!(bits(&checkpoint), bits(&reference), "{file}: {name} {dtype}");
            }
            assert_eq!(checkpoint.options(), reference.options(), "{file}");
            let training = checkpoint.training();
            assert_eq!(
                (training.epoch, training.best_rsum, training.iterations),
                (Some(13), Some(507.3), Some(29_000))
            );
            checkpoint.check(&model(&reference)).unwrap();
        }
        let options = reference.options().unwrap();
        assert_eq!(options.get("dataset"), Some(&OptionValue::Text("f30k".to_owned())));
        assert_eq!(options.get("max_violation"), Some(&OptionValue::Bool(false)));
        let schedule = [9, 15, 20, 25].map(OptionValue::Int).to_vec();
        assert_eq!(options.get("lr_schedules"), Some(&OptionValue::List(schedule)));
        assert_eq!(options.iter().count(), 29);
    }
}

#[test]
fn sha256_is_that_of_the_file() {
    let bytes = safetensors(&[("a", &[1], vec![1.0])]);
    use sha2::Digest;
    let expected: String = sha2::Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let checkpoint = open(&bytes).unwrap();
    assert_eq!(checkpoint.sha256().unwrap(), expected);
    assert_eq!(checkpoint.read("a").unwrap().values(), [1.0]);
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// `module.a` of 2x3 row-major, and its transpose `module.b` over the same storage, in an OrderedDict with `_metadata` as
/// PyTorch writes it.
fn state_dict(pickle: PickleWriter) -> PickleWriter {
    let pickle = pickle.global("collections", "OrderedDict").op(b")R(");
    let pickle = pickle.text("module.a").whole("FloatStorage", "0", &[2, 3]);
    let pickle = pickle.text("module.b").tensor("FloatStorage", "0", 6, 0, &[3, 2], &[1, 3]);
    let pickle = pickle.text("module.c").tensor("FloatStorage", "0", 6, 4, &[2], &[1]).op(b"u");
    let pickle = pickle.op(b"}").text("_metadata").global("collections", "OrderedDict").op(b")R(").text("");
    pickle.op(b"}").text("version").int(1).op(b"sus").op(b"b")
}

#[test]
fn state_dict_is_found_and_wrapper_prefixes_are_removed() {
    let start = || PickleWriter::default().op(b"\x80\x02");
    let layouts = [
        state_dict(start()).op(b"."),
        state_dict(start().op(b"}").text("model")).op(b"s."),
        state_dict(start().op(b"}(").text("epoch").int(3).text("state_dict")).op(b"u."),
        state_dict(start().op(b"}").text("best_rsum").float(1.5).op(b"s").text("model_state_dict")).op(b"s."),
    ];
    for pickle in layouts {
        let values = floats(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        for bytes in
            [torch_zip(&pickle.0, &[("0", values.clone())]), torch_legacy(&pickle.0, &[("0", 6, values.clone())])]
        {
            let checkpoint = open(&bytes).unwrap();
            let names: Vec<_> = checkpoint.tensors().map(|(name, ..)| name).collect();
            assert_eq!(names, ["a", "b", "c"]);
        }
    }
}

#[test]
fn strided_views_are_read_row_major() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("strided.pth");
    let pickle = state_dict(PickleWriter::default().op(b"\x80\x02}").text("model")).op(b"s.");
    fs_err::write(&path, torch_zip(&pickle.0, &[("0", floats(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]))])).unwrap();
    let checkpoint = Checkpoint::open(path).unwrap();
    assert_eq!(checkpoint.read("a").unwrap().values(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(checkpoint.read("b").unwrap().values(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    assert_eq!(checkpoint.read("c").unwrap().values(), [4.0, 5.0]);
}

#[test]
fn floats_become_f32_and_integers_are_rejected() {
    let pickle = PickleWriter::default().op(b"\x80\x02}(");
    let pickle = pickle.text("double").whole("DoubleStorage", "0", &[1]).text("half").whole("HalfStorage", "1", &[1]);
    let pickle = pickle.text("brain").whole("BFloat16Storage", "2", &[1]).text("long").whole("LongStorage", "3", &[1]);
    let storages = [
        ("0", (-2.5_f64).to_le_bytes().to_vec()),
        ("1", half::f16::from_f32(-2.5).to_le_bytes().to_vec()),
        ("2", half::bf16::from_f32(-2.5).to_le_bytes().to_vec()),
        ("3", 7_i64.to_le_bytes().to_vec()),
    ];
    let checkpoint = open(&torch_zip(&pickle.op(b"u.").0, &storages)).unwrap();
    for name in ["double", "half", "brain"] {
        assert_eq!(checkpoint.read(name).unwrap().values(), [-2.5], "{name}");
    }
    let error = checkpoint.read("long").unwrap_err();
    insta::assert_snapshot!(error, @r"
    tensor `long` cannot be a parameter
      expected: f32, f16, bf16 or f64
      found: i64
    ");
    insta::assert_snapshot!(checkpoint.read("none").unwrap_err(), @"the checkpoint has no tensor `none`");
    assert!(checkpoint.tensors().any(|(name, dtype, _)| (name, dtype) == ("long", Dtype::I64)));
}

#[test]
fn plain_data_of_every_protocol_is_read() {
    let weights =
        |pickle: PickleWriter| pickle.text("model").op(b"}").text("a").whole("FloatStorage", "0", &[1]).op(b"s");
    // Protocol 2 with a NumPy scalar, its type and its bytes as Latin-1 text.
    let numpy =
        PickleWriter::default().text("best_rsum").global("numpy.core.multiarray", "scalar").global("numpy", "dtype");
    let numpy =
        numpy.text("f8").op(b"\x89\x88\x87R(").int(3).text("<").op(b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb");
    let rsum: String = 500.5_f64.to_le_bytes().iter().map(|&byte| char::from(byte)).collect();
    let numpy = numpy.global("_codecs", "encode").text(&rsum).text("latin1").op(b"\x86R\x86R");
    let two = weights(PickleWriter::default().op(b"\x80\x02}(")).op(&numpy.0).op(b"u.");
    // Protocol 4: a frame, short texts, names from the stack, implicit memo numbers, a set, sharing.
    let four = PickleWriter::default()
        .op(b"\x80\x04\x95\0\0\0\0\0\0\0\0}\x94(\x8c\x03opt\x94\x8c\x08argparse\x8c\x09Namespace\x93)\x81\x94}(");
    let four =
        four.op(b"\x8c\x05seeds\x94\x8f(K\x01K\x02\x90\x94\x8c\x05again\x94h\x04\x8c\x04path\x8d\x03\0\0\0\0\0\0\0a/b");
    let four = four
        .op(b"\x8c\x04long\x8a\x02\xff\x7f\x8c\x05bytes\x8e\x01\0\0\0\0\0\0\0z\x8c\x04none\x4e\x8c\x05tuple(K\x01t");
    let four = weights(four.op(b"ub")).op(b"u.");
    let open = |pickle: &PickleWriter| open(&torch_zip(&pickle.0, &[("0", floats(&[1.0]))])).unwrap();
    assert_eq!(open(&two).training().best_rsum, Some(500.5));
    let checkpoint = open(&four);
    let options = checkpoint.options().unwrap();
    let seeds = OptionValue::List(vec![OptionValue::Int(1), OptionValue::Int(2)]);
    for (key, expected) in [
        ("seeds", &seeds),
        ("again", &seeds),
        ("path", &OptionValue::Text("a/b".to_owned())),
        ("long", &OptionValue::Int(32_767)),
        ("bytes", &OptionValue::Other("bytes")),
        ("none", &OptionValue::None),
        ("tuple", &OptionValue::List(vec![OptionValue::Int(1)])),
    ] {
        assert_eq!(options.get(key), Some(expected), "{key}");
    }
}

#[test]
fn base_model_is_renamed_to_its_encoder() {
    let ones = |count: usize| vec![1.0; count];
    let bare = safetensors(&[
        ("embeddings.LayerNorm.gamma", &[2], ones(2)),
        ("embeddings.LayerNorm.beta", &[2], ones(2)),
        ("embeddings.position_ids", &[1], ones(1)),
        ("pooler.dense.weight", &[2, 2], ones(4)),
    ]);
    let headed = safetensors(&[
        ("bert.embeddings.LayerNorm.weight", &[2], ones(2)),
        ("bert.embeddings.LayerNorm.bias", &[2], ones(2)),
        ("cls.predictions.bias", &[9], ones(9)),
    ]);
    let expected = [
        parameter("txt_enc.bert.embeddings.LayerNorm.weight", &[2]),
        parameter("txt_enc.bert.embeddings.LayerNorm.bias", &[2]),
    ];
    let folder = tempfile::tempdir().unwrap();
    for bytes in [bare, headed] {
        let path = folder.path().join("model.safetensors");
        fs_err::write(&path, bytes).unwrap();
        let text = Checkpoint::open(path).unwrap().backbone(BackboneKind::Bert).unwrap();
        text.check(&expected).unwrap();
        assert_eq!(text.read(&expected[0].name).unwrap().values(), [1.0, 1.0]);
    }
    for (kind, prefix) in [(BackboneKind::Vit, "vit."), (BackboneKind::Swin, "swin.")] {
        for prefix in [prefix, ""] {
            let name = format!("{prefix}layernorm.weight");
            let bytes = safetensors(&[(&name, &[2], ones(2)), ("classifier.weight", &[3, 2], ones(6))]);
            let image = open(&bytes).unwrap().backbone(kind).unwrap();
            image.check(&[parameter("img_enc.visual_encoder.layernorm.weight", &[2])]).unwrap();
        }
    }
}

/// CLIP comes as one file of both encoders, with the positions as a buffer in older releases.
#[test]
fn each_side_of_a_clip_file_is_read_as_a_base_model() {
    let bytes = safetensors(&[
        ("logit_scale", &[], vec![1.0]),
        ("text_model.final_layer_norm.weight", &[3], vec![2.0; 3]),
        ("text_model.embeddings.position_ids", &[1, 4], vec![0.0; 4]),
        ("text_projection.weight", &[2, 3], vec![1.0; 6]),
        ("vision_model.pre_layrnorm.weight", &[2], vec![3.0; 2]),
        ("vision_model.embeddings.position_ids", &[1, 5], vec![0.0; 5]),
        ("visual_projection.weight", &[2, 2], vec![1.0; 4]),
    ]);
    for (kind, name, size) in [
        (BackboneKind::ClipVision, "img_enc.visual_encoder.vision_model.pre_layrnorm.weight", 2),
        (BackboneKind::ClipText, "txt_enc.clip.text_model.final_layer_norm.weight", 3),
    ] {
        let side = open(&bytes).unwrap().backbone(kind).unwrap();
        side.check(&[parameter(name, &[size])]).unwrap();
        assert_eq!(side.read(name).unwrap().values(), vec![if size == 2 { 3.0 } else { 2.0 }; size]);
    }
}

#[test]
fn encoder_of_a_golden_checkpoint_is_read_as_a_base_model() {
    let whole = Checkpoint::open(golden("vit_tiny.safetensors")).unwrap();
    let place = "txt_enc.bert.";
    let tensors: Vec<_> = whole.tensors().filter(|(name, ..)| name.starts_with(place)).collect();
    let values: Vec<_> = tensors.iter().map(|(name, ..)| whole.read(name).unwrap().into_values()).collect();
    let short: Vec<_> =
        tensors.iter().zip(values).map(|((name, _, shape), values)| (&name[place.len()..], *shape, values)).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    fs_err::write(&path, safetensors(&short)).unwrap();
    let text = Checkpoint::open(path).unwrap().backbone(BackboneKind::Bert).unwrap();
    let model: Vec<_> = model(&whole).into_iter().filter(|parameter| parameter.name.starts_with(place)).collect();
    assert!(model.len() > 30);
    text.check(&model).unwrap();
    for parameter in &model {
        assert_eq!(text.read(&parameter.name).unwrap(), whole.read(&parameter.name).unwrap(), "{}", parameter.name);
    }
}
