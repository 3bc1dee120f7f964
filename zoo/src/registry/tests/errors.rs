use std::path::Path;

use super::{CONTRACT, edited, printed, read};
use crate::registry::{RegistryError, find};

/// What is printed for the contract with one passage replaced.
fn refused(from: &str, to: &str) -> String {
    printed(&edited(from, to).unwrap_err())
}

#[test]
fn unknown_entries() {
    insta::assert_snapshot!(printed(&find("f30k_vitt").unwrap_err()), @"");
    insta::assert_snapshot!(printed(&find("xyz").unwrap_err()), @"");
    insta::assert_snapshot!(printed(&find("swin_coco").unwrap_err()).lines().last().unwrap(), @"");
}

#[test]
fn unreadable_files() {
    let folder = tempfile::tempdir().unwrap();
    let print = |path: &Path| {
        let error = find(path.to_str().unwrap()).unwrap_err();
        assert!(matches!(error, RegistryError::Read { .. }), "{error}");
        printed(&error).replace(folder.path().to_str().unwrap(), "FOLDER")
    };
    insta::assert_snapshot!(print(&folder.path().join("f30k_swin.yaml")), @"");
    insta::assert_snapshot!(print(folder.path()), @"");
    std::fs::write(folder.path().join("large.yaml"), vec![b' '; (1 << 20) + 1]).unwrap();
    insta::assert_snapshot!(print(&folder.path().join("large.yaml")), @"");
    std::fs::write(folder.path().join("binary.yaml"), [0xff, 0xfe, 0x00]).unwrap();
    insta::assert_snapshot!(print(&folder.path().join("binary.yaml")), @"");
}

#[test]
fn unknown_keys_at_any_depth() {
    insta::assert_snapshot!(refused("sparse_ratio", "sparse_ration"), @"");
    insta::assert_snapshot!(refused("patch_size: 14", "patchsize: 14"), @"");
    insta::assert_snapshot!(refused("text:  { model_type: bert", "text:  { heads: 12, model_type: bert"), @"");
    insta::assert_snapshot!(refused("references: { }", "train: { epochs: 30 }"), @"");
    insta::assert_snapshot!(refused("test: test,", "test: test,\n  drawn: { seed: 1, train: 1,\n    devel: 1, test: 1 },"), @"");
    insta::assert_snapshot!(refused("{ }", "{ mine: { f30kk: { i2t: [1, 2, 3], t2i: [1, 2, 3] } } }"), @"");
    insta::assert_snapshot!(refused("{ }", "{ mine: { f30k: { i2t: [1, 2, 3], t2i: [1, 2, 3], r_sum: 12 } } }"), @"");
}

#[test]
fn keys_of_the_other_encoder() {
    insta::assert_snapshot!(refused("model_type: vit", "model_type: swin"), @"");
    insta::assert_snapshot!(refused("model_type: vit", "model_type: vitt"), @"");
    insta::assert_snapshot!(refused("model_type: bert", "model_type: roberta"), @"");
}

#[test]
fn missing_keys() {
    insta::assert_snapshot!(refused("name: f30k_mini\n", ""), @"");
    insta::assert_snapshot!(refused("  embed_size: 256\n", ""), @"");
    insta::assert_snapshot!(refused("patch_size: 14, ", ""), @"");
    insta::assert_snapshot!(refused("model_type: vit, ", ""), @"");
    insta::assert_snapshot!(printed(&read("").unwrap_err()), @"");
}

#[test]
fn keys_that_are_there_twice() {
    insta::assert_snapshot!(refused("aggr_ratio: 0.4", "aggr_ratio: 0.4\n  embed_size: 256"), @"");
    insta::assert_snapshot!(refused("patch_size: 14,", "patch_size: 14, image_size: 224,"), @"");
}

#[test]
fn values_of_the_wrong_kind() {
    insta::assert_snapshot!(refused("patch_size: 14", "patch_size: \"14\""), @"");
    insta::assert_snapshot!(refused("embed_size: 256", "embed_size: 256.5"), @"");
    insta::assert_snapshot!(refused("embed_size: 256", "embed_size: -256"), @"");
    insta::assert_snapshot!(refused("embed_size: 256", "embed_size:"), @"");
    insta::assert_snapshot!(refused("sparse_ratio: 0.5", "sparse_ratio: half"), @"");
    insta::assert_snapshot!(refused("name: f30k_mini", "name: 30"), @"");
    insta::assert_snapshot!(refused("{ model_type: bert, vocab_size: 30522, hidden_size: 384, num_hidden_layers: 6, num_attention_heads: 12, intermediate_size: 1536 }", "bert"), @"");
    insta::assert_snapshot!(refused("{ model_type: bert, vocab_size: 30522, hidden_size: 384, num_hidden_layers: 6, num_attention_heads: 12, intermediate_size: 1536 }", "[bert, 30522]"), @"");
    insta::assert_snapshot!(printed(&read("- name\n- model").unwrap_err()), @"");
    insta::assert_snapshot!(refused("model_type: vit", "model_type: 3"), @"");
}

#[test]
fn lists_of_the_wrong_length_or_kind() {
    let swin = |depths: &str| {
        let image = &CONTRACT.lines().nth(2).unwrap()[..60];
        let image = CONTRACT[CONTRACT.find(image).unwrap()..].lines().next().unwrap();
        let swin = format!(
            "  image:\n    model_type: swin\n    image_size: 224\n    patch_size: 4\n    embed_dim: 128\n    depths: {depths}\n    num_heads: [4, 8, 16, 32]\n    window_size: 7\n    mlp_ratio: 4"
        );
        read(&CONTRACT.replace(image, &swin)).map(|entry| entry.model.image.num_patches()).map_err(|error| printed(&error))
    };
    assert_eq!(swin("[2, 2, 18, 2]"), Ok(49));
    insta::assert_snapshot!(swin("[2, 2, 18]").unwrap_err(), @"");
    insta::assert_snapshot!(swin("\n      - 2\n      - 2\n      - many\n      - 2").unwrap_err(), @"");
    insta::assert_snapshot!(swin("18").unwrap_err(), @"");
    insta::assert_snapshot!(refused("{ }", "{ mine: { f30k: { i2t: [1, 2], t2i: [1, 2, 3] } } }"), @"");
    insta::assert_snapshot!(refused("{ }", "{ mine: { f30k: { i2t: [1, 2, 3, 4], t2i: [1, 2, 3] } } }"), @"");
}

#[test]
fn values_outside_their_range() {
    insta::assert_snapshot!(refused("sparse_ratio: 0.5", "sparse_ratio: 1.5"), @"");
    insta::assert_snapshot!(refused("sparse_ratio: 0.5", "sparse_ratio: 0"), @"");
    insta::assert_snapshot!(refused("aggr_ratio: 0.4", "aggr_ratio: .nan"), @"");
    insta::assert_snapshot!(refused("aggr_ratio: 0.4", "aggr_ratio: 0.001"), @"");
    insta::assert_snapshot!(refused("1e-6", ".inf"), @"");
    insta::assert_snapshot!(refused("patch_size: 14", "patch_size: 0"), @"");
    insta::assert_snapshot!(refused("patch_size: 14", "patch_size: 15"), @"");
    insta::assert_snapshot!(refused("vocab_size: 30522", "vocab_size: 18446744073709551615"), @"");
    insta::assert_snapshot!(refused("name: f30k_mini", "name: ../f30k"), @"");
    insta::assert_snapshot!(refused("test: test", "test: ../test"), @"");
    insta::assert_snapshot!(refused("protocol: f30k", "protocol: f30k, drawn: { seed: 1, train: 1, dev: 1, test: 0 }"), @"");
    insta::assert_snapshot!(refused("captions: f30k_mini/captions", "captions: \"\""), @"");
}

#[test]
fn protocols() {
    insta::assert_snapshot!(refused("protocol: f30k", "protocol: coco5k"), @"");
    insta::assert_snapshot!(refused("protocol: f30k", "protocol: [coco_5k, coco_2k]"), @"");
    insta::assert_snapshot!(refused("protocol: f30k", "protocol: [f30k, f30k]"), @"");
    insta::assert_snapshot!(refused("protocol: f30k", "protocol: []"), @"");
    insta::assert_snapshot!(refused("protocol: f30k", "protocol: 5"), @"");
}

#[test]
fn references_and_checkpoints_that_lead_nowhere() {
    insta::assert_snapshot!(refused("{ }", "{ paper: vit_225 }"), @"");
    insta::assert_snapshot!(refused("{ }", "{ papre: vit_224 }"), @"");
    insta::assert_snapshot!(refused("{ }", "{ readme: coco_vit }"), @"");
    insta::assert_snapshot!(refused("{ }", "{ mine: { coco_1k: { i2t: [1, 2, 3], t2i: [1, 2, 3] } } }"), @"");
    insta::assert_snapshot!(refused("{ }", "{ mine: { f30k: { i2t: [3, 2, 1], t2i: [1, 2, 3] } } }"), @"");
    insta::assert_snapshot!(refused("{ }", "{ mine: { f30k: { i2t: [1, 2, 103], t2i: [1, 2, 3] } } }"), @"");
    insta::assert_snapshot!(refused("{ }", "{ mine: 507.3 }"), @"");
    insta::assert_snapshot!(refused("references: { }", "checkpoint: f30k_vitt"), @"");
}

#[test]
fn texts_that_are_not_yaml() {
    insta::assert_snapshot!(printed(&read("name: [").unwrap_err()), @"");
    insta::assert_snapshot!(printed(&read("name: a\n---\nname: b\n").unwrap_err()), @"");
    insta::assert_snapshot!(printed(&read(&"[".repeat(100_000)).unwrap_err()), @"");
    insta::assert_snapshot!(refused("name: f30k_mini", "name: !python/object f30k_mini"), @"");
    insta::assert_snapshot!(refused("name: f30k_mini", "[name]: f30k_mini"), @"");
    let aliases = (1..30).fold("a0: &a0 [x, x]\n".to_owned(), |text, i| text + &format!("a{i}: &a{i} [*a{0}, *a{0}]\n", i - 1));
    insta::assert_snapshot!(printed(&read(&aliases).unwrap_err()), @"");
}

#[test]
fn built_in_data_needs_a_root() {
    insta::assert_snapshot!(printed(&find("f30k_vit").unwrap().data_paths(None).unwrap_err()), @"");
}
