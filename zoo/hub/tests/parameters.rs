//! The complete parameter lists: names and shapes are those of the checkpoints, so that these are read strictly.
#![allow(clippy::unwrap_used)] // a helper of tests is a test

#[path = "../../model/tests/support/mod.rs"]
mod support;

use std::collections::BTreeSet;

use laps_hub::{
    checkpoint::{Checkpoint, is_ignored},
    registry,
};
use laps_model::{
    models::{self, config::ModelConfig},
    params::Parameter,
};
use safetensors::SafeTensors;
use sha2::{Digest, Sha256};
use support::{clip_text, clip_vision, golden, swin_tiny, vit_tiny};

/// Number of tensors and of elements, and the hash of the lines `name shape`.
fn summary(name: &str) -> String {
    let parameters = models::parameters(&registry::find(name).unwrap().model).unwrap();
    let elements: usize = parameters.iter().map(Parameter::elements).sum();
    let lines: String = parameters.iter().map(|p| format!("{} {:?}\n", p.name, p.shape)).collect();
    let hash: String = Sha256::digest(lines).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{name}: {} tensors, {elements} numbers, {hash}", parameters.len())
}

#[test]
fn parameter_lists_are_unchanged() {
    let names = [
        "f30k_vit",
        "f30k_swin",
        "f30k_swin_1024",
        "shapes_vit",
        "shapes_swin",
        "f30k_vit_480_d2s",
        "f30k_swin_384_d2s",
        "f30k_swin_384_d2s_pretrain",
    ];
    let lines: Vec<String> = names.map(summary).into();
    insta::assert_snapshot!(lines.join("\n"), @r"
    f30k_vit: 406 tensors, 195535128 numbers, 2378e9b77c4a9ec36368a883bd61a64704a4681ebf236f3467d82de44abca95e
    f30k_swin: 631 tensors, 196609120 numbers, 2ef8fdf1aa5a2f4d63b94c40bc5df6f52c7c732019836a042d863628d3e5e092
    f30k_swin_1024: 629 tensors, 196638192 numbers, 466cb2883b9d40d1cb686b0d5bb811fd3ab44fe36d50e057dbe72022ac2de19c
    shapes_vit: 98 tensors, 199784 numbers, 35ece35027e4b3b4b4625d7bd60a0d60e2e6ea2090b6e4da1002bd498634ac9e
    shapes_swin: 121 tensors, 174230 numbers, 0ece7372fdddbb254a4b67703724d3f27ebaa863e2a7b13d50cf258acdf4e306
    f30k_vit_480_d2s: 478 tensors, 209036096 numbers, 2506cf03657d4f543f849b83af245c9636c6cbf6835ce4958097625fc124862c
    f30k_swin_384_d2s: 703 tensors, 209571064 numbers, 07872f5ab4ed5d9fe8ea83dab654dcbb5233f82d9b0a6536f5b2cf4ac5c153c7
    f30k_swin_384_d2s_pretrain: 652 tensors, 196909304 numbers, 141080d7c2ce35f9a3fade2db52ba0cd6e6a41932bf20d0c6ee3e6eb56671e7a
    ");
}

/// Compares the names and shapes with a state dict that the authors' code wrote, without ignored tensors.
fn assert_matches_golden(config: &ModelConfig, file: &str) {
    let bytes = std::fs::read(golden(file)).unwrap();
    let stored = SafeTensors::deserialize(&bytes).unwrap();
    let (ignored, expected): (BTreeSet<_>, BTreeSet<_>) = stored
        .iter()
        .map(|(name, view)| (name.to_owned(), view.shape().to_vec()))
        .partition(|(name, _)| is_ignored(name));
    let parameters = models::parameters(config).unwrap();
    let found: BTreeSet<_> = parameters.iter().map(|p| (p.name.clone(), p.shape.clone())).collect();
    assert_eq!(found.len(), parameters.len(), "a duplicate name");
    assert_eq!(found, expected);
    assert!(ignored.iter().any(|(name, _)| name.contains("pooler")), "{ignored:?}");
}

#[test]
fn parameter_lists_match_the_reference() {
    assert_matches_golden(&vit_tiny(), "vit_tiny.safetensors");
    assert_matches_golden(&swin_tiny(), "swin_tiny.safetensors");
}

/// The names of Hugging Face's `CLIPVisionModel` and `CLIPTextModel`, and the size of `openai/clip-vit-base-patch16`, which
/// has 149,620,737 numbers: 393,216 and 262,144 of them in the projections, and the logit scale.
#[test]
fn parameter_lists_of_clip_match_the_reference() {
    let config = ModelConfig { image: clip_vision(), text: clip_text(), ..vit_tiny() };
    let sides = [
        ("clip_vision_tiny.safetensors", "vision_model.", "img_enc.visual_encoder."),
        ("clip_text_tiny.safetensors", "text_model.", "txt_enc.clip."),
    ];
    let parameters = models::parameters(&config).unwrap();
    let published = models::parameters(&registry::find("f30k_clip_b16").unwrap().model).unwrap();
    let mut elements = 0;
    for (file, own, prefix) in sides {
        let bytes = std::fs::read(golden(file)).unwrap();
        let stored = SafeTensors::deserialize(&bytes).unwrap();
        let stored = stored.iter().filter(|(name, _)| name.starts_with(own));
        let expected: BTreeSet<_> =
            stored.map(|(name, view)| (format!("{prefix}{name}"), view.shape().to_vec())).collect();
        let of_side = parameters.iter().filter(|parameter| parameter.name.starts_with(prefix));
        assert_eq!(of_side.map(|p| (p.name.clone(), p.shape.clone())).collect::<BTreeSet<_>>(), expected);
        elements += published.iter().filter(|p| p.name.starts_with(prefix)).map(Parameter::elements).sum::<usize>();
    }
    assert_eq!(elements, 149_620_737 - 393_216 - 262_144 - 1);
    let total: usize = published.iter().map(Parameter::elements).sum();
    assert_eq!((published.len(), total), (404, 149_416_472));
    let large = models::parameters(&registry::find("f30k_clip_l14").unwrap().model).unwrap();
    assert_eq!((large.len(), large.iter().map(Parameter::elements).sum::<usize>()), (598, 427_217_388));
}

/// The hidden size of Swin-B is 1024, so that an embed_size of 1024 needs no projection.
#[test]
fn projection_exists_only_where_the_width_changes() {
    let has = |name: &str, part: &str| {
        let parameters = models::parameters(&registry::find(name).unwrap().model).unwrap();
        parameters.iter().any(|parameter| parameter.name.contains(part))
    };
    assert!(has("f30k_swin", "img_enc.vision_proj") && has("f30k_swin", "txt_enc.fc"));
    assert!(!has("f30k_swin_1024", "img_enc.vision_proj") && has("f30k_swin_1024", "txt_enc.fc"));
}

/// The embedded checkpoints are complete and finite.
#[test]
fn embedded_checkpoints_fit_their_entries() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["shapes_vit", "shapes_swin"] {
        let model = registry::find(name).unwrap().model;
        let path = folder.path().join(format!("{name}.safetensors"));
        fs_err::write(&path, registry::embedded_checkpoint(name).unwrap().bytes).unwrap();
        let checkpoint = Checkpoint::open(&path).unwrap();
        checkpoint.options().unwrap().check(&model).unwrap();
        checkpoint.check(&models::parameters(&model).unwrap()).unwrap();
    }
}
