//! The report of a mismatch is complete, and its wording is fixed.

use laps_hub::checkpoint::{Checkpoint, CheckpointError, convert};
use laps_model::{
    heads::{D2sVseConfig, HeadConfig},
    models::{
        self,
        config::{ImageConfig, ModelConfig, VitConfig},
    },
    params::{Init, Parameter},
};

use crate::{
    golden, message, model, open, parameter,
    support::{swin_tiny, vit_tiny},
    writer::{PickleWriter, safetensors, torch_zip},
};

#[test]
fn all_differences_are_in_one_report() {
    let mut bytes = safetensors(&[
        ("img_enc.vision_proj.weight", &[2, 3], vec![0.0; 6]),
        ("img_enc.visual_encoder.pooler.dense.weight", &[1], vec![f32::NAN]),
        ("surprise.weight", &[1], vec![0.0]),
        ("txt_enc.fc.bias", &[4], vec![1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY]),
    ]);
    // A tensor stored as integers of the same width.
    let whole = safetensors(&[("txt_enc.fc.bias", &[1], vec![0.0]), ("txt_enc.fc.weight", &[1], vec![0.0])]);
    let model = [
        parameter("cross_net.aggr_net.scale", &[1, 1, 1]),
        parameter("img_enc.vision_proj.weight", &[3, 2]),
        parameter("txt_enc.fc.bias", &[4]),
    ];
    let error = open(&bytes).unwrap().check(&model).unwrap_err();
    insta::assert_snapshot!(message(&error), @r"
    `file` does not fit the model of 3 parameters
      missing: 1
        `cross_net.aggr_net.scale`
      unexpected: 1
        `surprise.weight`
      wrong shape: 1
        `img_enc.vision_proj.weight`
          expected: [3, 2]
          found: [2, 3]
      not finite: 1
        `txt_enc.fc.bias`: 3 of 4 values are NaN or infinite
    ");

    let place = whole.windows(3).position(|window| window == b"F32").unwrap();
    bytes = whole;
    bytes[place..place + 3].copy_from_slice(b"I32");
    let model = [parameter("txt_enc.fc.bias", &[1]), parameter("txt_enc.fc.weight", &[1])];
    insta::assert_snapshot!(message(&open(&bytes).unwrap().check(&model).unwrap_err()), @r"
    `file` does not fit the model of 2 parameters
      wrong type: 1
        `txt_enc.fc.bias`
          expected: f32, f16, bf16 or f64
          found: i32
    ");
}

#[test]
fn long_lists_are_truncated_and_counted() {
    let model: Vec<_> = (0..20).map(|index| parameter(&format!("layer.{index:02}"), &[1])).collect();
    let error = open(&safetensors(&[("other", &[1], vec![0.0])])).unwrap().check(&model).unwrap_err();
    insta::assert_snapshot!(message(&error), @r"
    `file` does not fit the model of 20 parameters
      missing: 20
        `layer.00`
        `layer.01`
        `layer.02`
        `layer.03`
        `layer.04`
        `layer.05`
        `layer.06`
        `layer.07`
        ... and 12 more
      unexpected: 1
        `other`
    hint: the checkpoint is probably of another model: no tensor name is in both
    ");
}

#[test]
fn hint_names_the_likely_cause() {
    let vit = Checkpoint::open(golden("vit_tiny.pth")).unwrap();
    let swin = Checkpoint::open(golden("swin_tiny.pth")).unwrap();
    let hint = |checkpoint: &Checkpoint, model: &[_]| checkpoint.check(model).unwrap_err().hint().unwrap();
    insta::assert_snapshot!(hint(&swin, &model(&vit)), @"the checkpoint is probably of another architecture: its image encoder is Swin, the model has ViT");
    insta::assert_snapshot!(hint(&vit, &model(&swin)), @"the checkpoint is probably of another architecture: its image encoder is ViT, the model has Swin");

    let resized = |ending: &str, shape: &[usize]| {
        let mut model = model(&vit);
        let parameter = model.iter_mut().find(|parameter| parameter.name.ends_with(ending)).unwrap();
        parameter.shape = shape.to_vec();
        hint(&vit, &model)
    };
    insta::assert_snapshot!(resized("aggr_net.weight.0.weight", &[64]), @"the checkpoint probably has another embed_size: 24, the model has 64");
    insta::assert_snapshot!(resized("aggr_net.weight.3.weight", &[40, 4]), @"the checkpoint probably has another sparse_ratio, aggr_ratio or image size: 39 groups of patches, the model has 40");
    insta::assert_snapshot!(resized("visual_encoder.embeddings.position_embeddings", &[1, 577, 32]), @"the checkpoint probably has another image size or patch size: 197 tokens, the model has 577");
    insta::assert_snapshot!(resized("word_embeddings.weight", &[30_522, 16]), @"the checkpoint probably has another vocabulary: 1024 tokens, the model has 30522");

    let name = "sim_enc.v_global_w.embedding_local.1.weight";
    let sgr = open(&safetensors(&[(name, &[3], vec![1.0; 3])])).unwrap();
    let of_49 = Parameter { name: name.to_owned(), shape: vec![49], init: Init::Ones };
    insta::assert_snapshot!(hint(&sgr, &[of_49]), @"the head `sgr` has a scale for each token of an image: 3 in the checkpoint, and the image encoder of the model has 49 tokens");

    let base = open(&safetensors(&[("bert.encoder.layer.0.output.dense.bias", &[1], vec![0.0])])).unwrap();
    insta::assert_snapshot!(hint(&base, &model(&vit)), @"the checkpoint is probably a Hugging Face base model: one encoder, not a complete LAPS model");
    let narrow: Vec<_> = model(&vit).into_iter().filter(|parameter| !parameter.name.contains("txt_enc.fc.")).collect();
    insta::assert_snapshot!(hint(&vit, &narrow), @"the checkpoint probably has another embed_size: there is a projection only where it changes the width");
}

#[test]
fn nan_is_found_in_every_container() {
    for file in ["vit_tiny.safetensors", "vit_tiny_legacy.pth"] {
        let mut bytes = fs_err::read(golden(file)).unwrap();
        let whole = open(&bytes).unwrap();
        let name = "txt_enc.bert.embeddings.word_embeddings.weight";
        let values = whole.read(name).unwrap();
        let stored: Vec<u8> = values.values().iter().flat_map(|value| value.to_le_bytes()).collect();
        let place = bytes.windows(stored.len()).position(|window| window == stored).unwrap();
        bytes[place..place + 4].copy_from_slice(&f32::NAN.to_le_bytes());
        let CheckpointError::Mismatch(report) = open(&bytes).unwrap().check(&model(&whole)).unwrap_err() else {
            panic!("{file}");
        };
        assert_eq!(report.non_finite.len(), 1, "{file}");
        assert_eq!((report.non_finite[0].name.as_str(), report.non_finite[0].count), (name, 1), "{file}");
        assert!(report.missing.is_empty() && report.unexpected.is_empty() && report.shapes.is_empty());
    }
    let pickle = PickleWriter::default().op(b"\x80\x02}").text("a").whole("FloatStorage", "0", &[2]).op(b"s.");
    let values = [1.0, f32::NAN].iter().flat_map(|value: &f32| value.to_le_bytes()).collect();
    let checkpoint = open(&torch_zip(&pickle.0, &[("0", values)])).unwrap();
    let error = checkpoint.check(&[parameter("a", &[2])]).unwrap_err();
    insta::assert_snapshot!(message(&error), @r"
    `file` does not fit the model of 1 parameters
      not finite: 1
        `a`: 1 of 2 values are NaN or infinite
    hint: the training had diverged before the weights were saved, or the file is damaged
    ");
}

fn tiny(image: ImageConfig, embed_size: usize, sparse_ratio: f64, aggr_ratio: f64) -> ModelConfig {
    ModelConfig { image, embed_size, sparse_ratio, aggr_ratio, ..vit_tiny() }
}

fn vit() -> ImageConfig {
    vit_tiny().image
}

#[test]
fn options_are_compared_with_the_entry() {
    let swin = swin_tiny().image;
    for file in ["vit_tiny.safetensors", "vit_tiny.pth", "vit_tiny_legacy.pth"] {
        let checkpoint = Checkpoint::open(golden(file)).unwrap();
        let options = checkpoint.options().unwrap();
        options.check(&tiny(vit(), 24, 0.5, 0.4)).unwrap();
        let error = options.check(&tiny(vit(), 512, 0.8, 0.4)).unwrap_err();
        insta::allow_duplicates! { insta::assert_snapshot!(message(&error), @r"
        the options in the checkpoint differ from the entry
          `embed_size`
            expected: 512
            found: 24
          `sparse_ratio`
            expected: 0.8
            found: 0.5
        hint: choose the entry that the checkpoint was trained for, or change its ratios and sizes
        "); }
        let error = options.check(&tiny(swin.clone(), 24, 0.5, 0.6)).unwrap_err();
        insta::allow_duplicates! { insta::assert_snapshot!(message(&error), @r"
        the options in the checkpoint differ from the entry
          `vit_type`
            expected: swin
            found: vit
          `num_patches`
            expected: 49
            found: 196
          `aggr_ratio`
            expected: 0.6
            found: 0.4
        hint: choose the entry that the checkpoint was trained for, or change its ratios and sizes
        "); }
    }
    let checkpoint = Checkpoint::open(golden("swin_tiny.pth")).unwrap();
    checkpoint.options().unwrap().check(&tiny(swin, 96, 0.8, 0.6)).unwrap();
}

#[test]
fn absent_option_is_not_a_difference_and_other_text_is() {
    let weights =
        |pickle: PickleWriter| pickle.text("model").op(b"}").text("a").whole("FloatStorage", "0", &[1]).op(b"s");
    let options = |entries: PickleWriter| {
        let start = weights(PickleWriter::default().op(b"\x80\x02}(")).text("opt").op(b"}(");
        let pickle = start.op(&entries.0).op(b"uu.");
        open(&torch_zip(&pickle.0, &[("0", vec![0; 4])])).unwrap().options().unwrap().clone()
    };
    let model = tiny(vit(), 24, 1.0, 0.4);
    options(PickleWriter::default()).check(&model).unwrap();
    options(PickleWriter::default().text("sparse_ratio").int(1).text("embed_size").float(24.0)).check(&model).unwrap();
    let error = options(PickleWriter::default().text("embed_size").text("many")).check(&model).unwrap_err();
    assert!(matches!(error, CheckpointError::Options(differences) if differences[0].key == "embed_size"));
}

/// A model on a ViT of `image_size` pixels, with the 16 x 16 pixels of a patch, and a head without parameters.
fn vit_of_size(image_size: usize, hidden_size: usize, interpolate_pos_encoding: bool) -> ModelConfig {
    let ImageConfig::Vit(vit) = vit() else { panic!("ViT") };
    let image = ImageConfig::Vit(VitConfig { image_size, hidden_size, interpolate_pos_encoding, ..vit });
    ModelConfig { head: HeadConfig::ScanT2i, ..tiny(image, 32, 0.0, 0.0) }
}

#[test]
fn position_embeddings_of_another_image_size_are_resized_where_the_entry_allows_it() {
    const POSITIONS: &str = "img_enc.visual_encoder.embeddings.position_embeddings";
    let parameters = models::parameters(&vit_of_size(48, 32, true)).unwrap();
    let values = |parameter: &Parameter| (0..parameter.elements()).map(|index| (index % 97) as f32 / 97.0).collect();
    let tensors: Vec<(&str, &[usize], Vec<f32>)> =
        parameters.iter().map(|parameter| (parameter.name.as_str(), &*parameter.shape, values(parameter))).collect();
    let folder = tempfile::tempdir().unwrap();
    let [path, converted] = ["small", "converted"].map(|name| folder.path().join(format!("{name}.safetensors")));
    fs_err::write(&path, safetensors(&tensors)).unwrap();
    let open = |path: &std::path::Path, image_size, hidden_size, interpolate| {
        Checkpoint::open(path).unwrap().for_model(&vit_of_size(image_size, hidden_size, interpolate))
    };

    let small = open(&path, 48, 32, true).unwrap().read(POSITIONS).unwrap();
    assert_eq!(small.dims(), [1, 10, 32]);
    let large = open(&path, 80, 32, true).unwrap();
    let positions = large.read(POSITIONS).unwrap();
    assert_eq!(positions.dims(), [1, 26, 32]);
    // The class token stays; the centers of both grids coincide.
    assert_eq!(positions.values()[..32], small.values()[..32]);
    assert_eq!(positions.values()[13 * 32..14 * 32], small.values()[5 * 32..6 * 32]);
    let other = "img_enc.visual_encoder.layernorm.weight";
    assert_eq!(large.read(other).unwrap(), open(&path, 48, 32, true).unwrap().read(other).unwrap());

    let error = open(&path, 80, 32, false).unwrap_err();
    assert!(message(&error).contains("the checkpoint probably has another image size"), "{}", message(&error));
    assert!(matches!(open(&path, 80, 64, true), Err(CheckpointError::Mismatch(_))));
    // A converted file has the values of its source.
    convert(&path, &converted, Some(&vit_of_size(80, 32, true))).unwrap();
    assert_eq!(open(&converted, 48, 32, true).unwrap().read(POSITIONS).unwrap(), small);
    assert_eq!(open(&converted, 80, 32, true).unwrap().read(POSITIONS).unwrap(), positions);
}

#[test]
fn image_size_in_the_options_of_d2s_vse_is_not_compared() {
    let head = HeadConfig::D2sVse(D2sVseConfig { embed_size: 24, ..D2sVseConfig::default() });
    let ImageConfig::Vit(vit) = vit() else { panic!("ViT") };
    let image = |image_size| ImageConfig::Vit(VitConfig { image_size, ..vit.clone() });
    let checkpoint = Checkpoint::open(golden("vit_tiny.safetensors")).unwrap();
    let options = checkpoint.options().unwrap();
    options.check(&ModelConfig { head, ..tiny(image(384), 24, 0.0, 0.0) }).unwrap();
    assert!(options.check(&tiny(image(384), 24, 0.5, 0.4)).is_err());
    assert!(options.check(&ModelConfig { head, ..tiny(image(384), 48, 0.0, 0.0) }).is_err());
}

/// The second stage has a frozen copy of the first one's text encoder, a token for masked training, and a norm that is never
/// applied.
#[test]
fn second_stage_of_d2s_vse_is_read_without_its_teacher() {
    let model = |prompt_tokens| {
        let head = D2sVseConfig { embed_size: 24, mlp_size: 6, prompt_tokens, blocks: 1, heads: 2 };
        ModelConfig { head: HeadConfig::D2sVse(head), ..tiny(vit(), 24, 0.0, 0.0) }
    };
    let parameters = models::parameters(&model(3)).unwrap();
    let others: [(&str, &[usize]); 6] = [
        ("long_txt_enc.fc.weight", &[24, 32]),
        ("prompt_learner.mask_token", &[3, 24]),
        ("txt_enc.mlp.bns.1.running_var", &[24]),
        ("txt_enc.mlp.bns.0.num_batches_tracked", &[]),
        ("img_enc.visual_encoder.pooler.dense.bias", &[32]),
        ("txt_enc.bert.pooler.dense.bias", &[32]),
    ];
    let own = parameters.iter().map(|parameter| (parameter.name.as_str(), parameter.shape.as_slice()));
    let tensors: Vec<(&str, &[usize], Vec<f32>)> =
        own.chain(others).map(|(name, shape)| (name, shape, vec![0.5; shape.iter().product()])).collect();
    let bytes = safetensors(&tensors);
    open(&bytes).unwrap().for_model(&model(3)).unwrap();
    let error = open(&bytes).unwrap().for_model(&model(0)).unwrap_err();
    assert!(
        message(&error).ends_with("a second-stage model of D2S-VSE: it has a prompt, the model has none"),
        "{}",
        message(&error)
    );

    let first: Vec<_> = tensors.into_iter().filter(|(name, ..)| !name.starts_with("prompt_learner.")).collect();
    let bytes = safetensors(&first);
    open(&bytes).unwrap().for_model(&model(0)).unwrap();
    let error = open(&bytes).unwrap().for_model(&model(3)).unwrap_err();
    assert!(
        message(&error).ends_with("a first-stage model of D2S-VSE: it has no prompt, the model has one"),
        "{}",
        message(&error)
    );
}
