use std::path::Path;

use super::{CONTRACT, edited, printed, read};
use crate::registry::{RegistryError, find};

/// The printed error of the contract with one passage replaced.
fn refused(from: &str, to: &str) -> String {
    printed(&edited(from, to).unwrap_err())
}

#[test]
fn unknown_entry_is_reported_with_the_nearest_name() {
    let print = |name| printed(&find(name).unwrap_err());
    insta::assert_snapshot!(print("f30k_vitt"), @r"
    there is no entry `f30k_vitt`
      expected: the path of a YAML file, or the name of a built-in entry
      found: `f30k_vitt`
    hint: did you mean `f30k_vit`?
    ");
    insta::assert_snapshot!(print("xyz"), @r"
    there is no entry `xyz`
      expected: the path of a YAML file, or the name of a built-in entry
      found: `xyz`
    hint: `laps-zoo list` shows the built-in entries
    ");
    insta::assert_snapshot!(print("swin_coco").lines().last().unwrap(), @"hint: did you mean `coco_swin`?");
}

#[test]
fn unreadable_file_is_reported_with_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let print = |path: &Path| {
        let error = find(path.to_str().unwrap()).unwrap_err();
        assert!(matches!(error, RegistryError::Read { .. }), "{error}");
        printed(&error).replace(folder.path().to_str().unwrap(), "FOLDER")
    };
    insta::assert_snapshot!(print(&folder.path().join("f30k_swin.yaml")), @r"
    cannot read the entry file `FOLDER/f30k_swin.yaml`
      cause: failed to open file `FOLDER/f30k_swin.yaml`: No such file or directory (os error 2)
    hint: the built-in entry is `f30k_swin`, without a suffix
    ");
    insta::assert_snapshot!(print(folder.path()), @r"
    cannot read the entry file `FOLDER`
      cause: failed to read from file `FOLDER`: Is a directory (os error 21)
    ");
    std::fs::write(folder.path().join("large.yaml"), vec![b' '; (1 << 16) + 1]).unwrap();
    insta::assert_snapshot!(print(&folder.path().join("large.yaml")), @r"
    cannot read the entry file `FOLDER/large.yaml`
      cause: an entry file has at most 65536 bytes
    ");
    std::fs::write(folder.path().join("binary.yaml"), [0xff, 0xfe, 0x00]).unwrap();
    insta::assert_snapshot!(print(&folder.path().join("binary.yaml")), @r"
    cannot read the entry file `FOLDER/binary.yaml`
      cause: stream did not contain valid UTF-8
    ");
}

#[test]
fn unknown_key_is_rejected_at_any_depth() {
    insta::assert_snapshot!(refused("sparse_ratio", "sparse_ration"), @r"
    `models/mine.yaml`, line 6: there is no key `model.sparse_ration`
      expected: `image`, `text`, `embed_size`, `sparse_ratio`, `aggr_ratio`, `head`
      found: `sparse_ration`
    hint: did you mean `sparse_ratio`?
    ");
    insta::assert_snapshot!(refused("patch_size: 14", "patchsize: 14"), @r"
    `models/mine.yaml`, line 3: there is no key `model.image.patchsize`
      expected: `image_size`, `patch_size`, `hidden_size`, `num_hidden_layers`, `num_attention_heads`, `intermediate_size`, `layer_norm_eps`, `interpolate_pos_encoding`, `preprocessing`
      found: `patchsize`
    hint: did you mean `patch_size`?
    ");
    insta::assert_snapshot!(refused("text:  { model_type: bert", "text:  { heads: 12, model_type: bert"), @r"
    `models/mine.yaml`, line 4: there is no key `model.text.heads`
      expected: `model_type`, `vocab_size`, `hidden_size`, `num_hidden_layers`, `num_attention_heads`, `intermediate_size`, `max_position_embeddings`, `type_vocab_size`, `layer_norm_eps`
      found: `heads`
    hint: did you mean `num_attention_heads`?
    ");
    insta::assert_snapshot!(refused("references: { }", "training: { epochs: 30 }"), @r"
    `models/mine.yaml`, line 9: there is no key `training`
      expected: `name`, `model`, `data`, `train`, `checkpoint`, `references`, `choices`
      found: `training`
    ");
    insta::assert_snapshot!(refused("test: test,", "test: test,\n  drawn: { seed: 1, train: 1,\n    devel: 1, test: 1 },"), @r"
    `models/mine.yaml`, line 10: there is no key `data.drawn.devel`
      expected: `seed`, `train`, `dev`, `test`
      found: `devel`
    ");
    insta::assert_snapshot!(refused("{ }", "{ mine: { f30kk: { i2t: [1, 2, 3], t2i: [1, 2, 3] } } }"), @r"
    `models/mine.yaml`, line 9: there is no key `references.mine.f30kk`
      expected: `f30k`, `coco_5k`, `coco_1k`
      found: `f30kk`
    hint: did you mean `f30k`?
    ");
    insta::assert_snapshot!(refused("{ }", "{ mine: { f30k: { i2t: [1, 2, 3], t2i: [1, 2, 3], r_sum: 12 } } }"), @r"
    `models/mine.yaml`, line 9: there is no key `references.mine.f30k.r_sum`
      expected: `i2t`, `t2i`, `rsum`, `status`, `printed_t2i`
      found: `r_sum`
    hint: did you mean `rsum`?
    ");
}

#[test]
fn keys_of_another_encoder_are_rejected() {
    insta::assert_snapshot!(refused("model_type: vit", "model_type: swin"), @r"
    `models/mine.yaml`, line 3: there is no key `model.image.hidden_size`
      expected: `image_size`, `patch_size`, `embed_dim`, `depths`, `num_heads`, `window_size`, `mlp_ratio`, `layer_norm_eps`, `preprocessing`
      found: `hidden_size`
    ");
    insta::assert_snapshot!(refused("model_type: vit", "model_type: vitt"), @r"
    `models/mine.yaml`, line 3: the value of `model.image.model_type` cannot be used
      expected: one of `vit`, `swin`, `clip_vision_model`
      found: `vitt`
    hint: did you mean `vit`?
    ");
    insta::assert_snapshot!(refused("model_type: bert", "model_type: roberta"), @r"
    `models/mine.yaml`, line 4: the value of `model.text.model_type` cannot be used
      expected: one of `bert`, `clip_text_model`
      found: `roberta`
    ");
}

#[test]
fn missing_key_is_reported_with_its_path() {
    insta::assert_snapshot!(refused("name: f30k_mini\n", ""), @"`models/mine.yaml`: the key `name` is missing");
    insta::assert_snapshot!(refused("  embed_size: 256\n", ""), @"`models/mine.yaml`, line 2: the key `model.embed_size` is missing");
    insta::assert_snapshot!(refused("patch_size: 14, ", ""), @"`models/mine.yaml`, line 3: the key `model.image.patch_size` is missing");
    insta::assert_snapshot!(refused("model_type: vit, ", ""), @"`models/mine.yaml`, line 3: the key `model.image.model_type` is missing");
    insta::assert_snapshot!(printed(&read("").unwrap_err()), @"`models/mine.yaml`: the key `name` is missing");
}

#[test]
fn duplicate_key_is_rejected_with_its_line() {
    insta::assert_snapshot!(refused("aggr_ratio: 0.4", "aggr_ratio: 0.4\n  embed_size: 256"), @r"
    `models/mine.yaml` is not valid YAML
      cause: model: the key `embed_size` is given twice at line 8 column 3
    ");
    insta::assert_snapshot!(refused("patch_size: 14,", "patch_size: 14, image_size: 224,"), @r"
    `models/mine.yaml` is not valid YAML
      cause: model.image: the key `image_size` is given twice at line 3 column 62
    ");
}

#[test]
fn value_of_the_wrong_kind_is_rejected() {
    insta::assert_snapshot!(refused("patch_size: 14", "patch_size: \"14\""), @r"
    `models/mine.yaml`, line 3: the value of `model.image.patch_size` cannot be used
      expected: a whole number, not negative
      found: the text `14`
    ");
    insta::assert_snapshot!(refused("embed_size: 256", "embed_size: 256.5"), @r"
    `models/mine.yaml`, line 5: the value of `model.embed_size` cannot be used
      expected: a whole number, not negative
      found: `256.5`
    ");
    insta::assert_snapshot!(refused("embed_size: 256", "embed_size: -256"), @r"
    `models/mine.yaml`, line 5: the value of `model.embed_size` cannot be used
      expected: a whole number, not negative
      found: `-256`
    ");
    insta::assert_snapshot!(refused("embed_size: 256", "embed_size:"), @r"
    `models/mine.yaml`, line 5: the value of `model.embed_size` cannot be used
      expected: a whole number, not negative
      found: nothing
    ");
    insta::assert_snapshot!(refused("sparse_ratio: 0.5", "sparse_ratio: half"), @r"
    `models/mine.yaml`, line 6: the value of `model.sparse_ratio` cannot be used
      expected: a number
      found: the text `half`
    ");
    insta::assert_snapshot!(refused("name: f30k_mini", "name: 30"), @r"
    `models/mine.yaml`, line 1: the value of `name` cannot be used
      expected: text
      found: `30`
    ");
    insta::assert_snapshot!(refused("{ model_type: bert, vocab_size: 30522, hidden_size: 384, num_hidden_layers: 6, num_attention_heads: 12, intermediate_size: 1536 }", "bert"), @r"
    `models/mine.yaml`, line 4: the value of `model.text` cannot be used
      expected: a mapping
      found: the text `bert`
    ");
    insta::assert_snapshot!(refused("{ model_type: bert, vocab_size: 30522, hidden_size: 384, num_hidden_layers: 6, num_attention_heads: 12, intermediate_size: 1536 }", "[bert, 30522]"), @r"
    `models/mine.yaml`, line 4: the value of `model.text` cannot be used
      expected: a mapping
      found: a list of the text `bert`, `30522`
    ");
    insta::assert_snapshot!(printed(&read("- name\n- model").unwrap_err()), @r"
    `models/mine.yaml`: the value of `(top level)` cannot be used
      expected: a mapping
      found: a list of the text `name`, the text `model`
    ");
    insta::assert_snapshot!(refused("model_type: vit", "model_type: 3"), @r"
    `models/mine.yaml`, line 3: the value of `model.image.model_type` cannot be used
      expected: one of `vit`, `swin`, `clip_vision_model`
      found: `3`
    ");
}

#[test]
fn list_of_the_wrong_length_or_kind_is_rejected() {
    let swin = |depths: &str| {
        let image = &CONTRACT.lines().nth(2).unwrap()[..60];
        let image = CONTRACT[CONTRACT.find(image).unwrap()..].lines().next().unwrap();
        let swin = format!(
            "  image:\n    model_type: swin\n    image_size: 224\n    patch_size: 4\n    embed_dim: 128\n    depths: {depths}\n    num_heads: [4, 8, 16, 32]\n    window_size: 7\n    mlp_ratio: 4"
        );
        read(&CONTRACT.replace(image, &swin))
            .map(|entry| entry.model.image.num_patches())
            .map_err(|error| printed(&error))
    };
    assert_eq!(swin("[2, 2, 18, 2]"), Ok(49));
    insta::assert_snapshot!(swin("[2, 2, 18]").unwrap_err(), @r"
    `models/mine.yaml`, line 9: the value of `model.image.num_heads` cannot be used
      expected: 3 stages, as in depths
      found: `4`
    ");
    insta::assert_snapshot!(swin("\n      - 2\n      - 2\n      - many\n      - 2").unwrap_err(), @r"
    `models/mine.yaml`, line 11: the value of `model.image.depths[2]` cannot be used
      expected: a whole number, not negative
      found: the text `many`
    ");
    insta::assert_snapshot!(swin("18").unwrap_err(), @r"
    `models/mine.yaml`, line 8: the value of `model.image.depths` cannot be used
      expected: a list
      found: `18`
    ");
    insta::assert_snapshot!(refused("{ }", "{ mine: { f30k: { i2t: [1, 2], t2i: [1, 2, 3] } } }"), @r"
    `models/mine.yaml`, line 9: the value of `references.mine.f30k.i2t` cannot be used
      expected: a list of 3
      found: a list of 2
    ");
    insta::assert_snapshot!(refused("{ }", "{ mine: { f30k: { i2t: [1, 2, 3, 4], t2i: [1, 2, 3] } } }"), @r"
    `models/mine.yaml`, line 9: the value of `references.mine.f30k.i2t` cannot be used
      expected: a shorter list
      found: a list of 4
    ");
}

#[test]
fn value_out_of_range_is_rejected() {
    insta::assert_snapshot!(refused("sparse_ratio: 0.5", "sparse_ratio: 1.5"), @r"
    `models/mine.yaml`, line 6: the value of `model.sparse_ratio` cannot be used
      expected: more than 0 and at most 1
      found: `1.5`
    ");
    insta::assert_snapshot!(refused("sparse_ratio: 0.5", "sparse_ratio: 0"), @r"
    `models/mine.yaml`, line 6: the value of `model.sparse_ratio` cannot be used
      expected: more than 0 and at most 1
      found: `0`
    ");
    insta::assert_snapshot!(refused("aggr_ratio: 0.4", "aggr_ratio: .nan"), @r"
    `models/mine.yaml`, line 7: the value of `model.aggr_ratio` cannot be used
      expected: more than 0 and at most 1
      found: `NaN`
    ");
    insta::assert_snapshot!(refused("aggr_ratio: 0.4", "aggr_ratio: 0.001"), @r"
    `models/mine.yaml`, line 7: the value of `model.aggr_ratio` cannot be used
      expected: at least one group of patches
      found: `0.001`
    ");
    insta::assert_snapshot!(refused("1e-6", ".inf"), @r"
    `models/mine.yaml`, line 3: the value of `model.image.layer_norm_eps` cannot be used
      expected: a small number, not negative
      found: `inf`
    ");
    insta::assert_snapshot!(refused("patch_size: 14", "patch_size: 0"), @r"
    `models/mine.yaml`, line 3: the value of `model.image.patch_size` cannot be used
      expected: at least 1 and at most 1048576
      found: `0`
    ");
    insta::assert_snapshot!(refused("patch_size: 14", "patch_size: 15"), @r"
    `models/mine.yaml`, line 3: the value of `model.image.image_size` cannot be used
      expected: a multiple of patch_size = 15
      found: `224`
    ");
    insta::assert_snapshot!(refused("vocab_size: 30522", "vocab_size: 18446744073709551615"), @r"
    `models/mine.yaml`, line 4: the value of `model.text.vocab_size` cannot be used
      expected: at least 1 and at most 1048576
      found: `18446744073709551615`
    ");
    insta::assert_snapshot!(refused("name: f30k_mini", "name: ../f30k"), @r"
    `models/mine.yaml`, line 1: the value of `name` cannot be used
      expected: ASCII letters, digits, `_`, `-` and `.`, starting with a letter or digit
      found: `../f30k`
    ");
    insta::assert_snapshot!(refused("test: test", "test: ../test"), @r"
    `models/mine.yaml`, line 8: the value of `data.test` cannot be used
      expected: the name of a split, as in `<split>_ids.txt`
      found: `../test`
    ");
    insta::assert_snapshot!(refused("protocol: f30k", "protocol: f30k, drawn: { seed: 1, train: 1, dev: 1, test: 0 }"), @r"
    `models/mine.yaml`, line 8: the value of `data.drawn.test` cannot be used
      expected: at least one image
      found: `0`
    ");
    insta::assert_snapshot!(refused("captions: f30k_mini/captions", "captions: \"\""), @r"
    `models/mine.yaml`, line 8: the value of `data.captions` cannot be used
      expected: a path
      found: no path
    ");
}

#[test]
fn unknown_or_duplicate_protocol_is_rejected() {
    insta::assert_snapshot!(refused("protocol: f30k", "protocol: coco5k"), @r"
    `models/mine.yaml`, line 8: the value of `data.protocol` cannot be used
      expected: one of `f30k`, `coco_5k`, `coco_1k`
      found: `coco5k`
    hint: did you mean `coco_5k`?
    ");
    insta::assert_snapshot!(refused("protocol: f30k", "protocol: [coco_5k, coco_2k]"), @r"
    `models/mine.yaml`, line 8: the value of `data.protocol[1]` cannot be used
      expected: one of `f30k`, `coco_5k`, `coco_1k`
      found: `coco_2k`
    hint: did you mean `coco_1k`?
    ");
    insta::assert_snapshot!(refused("protocol: f30k", "protocol: [f30k, f30k]"), @r"
    `models/mine.yaml`, line 8: the value of `data.protocol` cannot be used
      expected: a protocol, or a list of different protocols
      found: a list of the text `f30k`, the text `f30k`
    ");
    insta::assert_snapshot!(refused("protocol: f30k", "protocol: []"), @r"
    `models/mine.yaml`, line 8: the value of `data.protocol` cannot be used
      expected: a protocol, or a list of different protocols
      found: an empty list
    ");
    insta::assert_snapshot!(refused("protocol: f30k", "protocol: 5"), @r"
    `models/mine.yaml`, line 8: the value of `data.protocol` cannot be used
      expected: a protocol, or a list of different protocols
      found: `5`
    ");
}

#[test]
fn unknown_reference_or_checkpoint_is_rejected() {
    insta::assert_snapshot!(refused("{ }", "{ paper: vit_225 }"), @r"
    `models/mine.yaml`, line 9: the value of `references.paper` cannot be used
      expected: one of `swin_224`, `swin_224/chan`, `swin_224/scan`, `swin_224/sgr`, `swin_224/vsepp`, `swin_384`, `swin_384/chan`, `swin_384/scan`, `swin_384/sgr`, `swin_384/vsepp`, `vit_224`, `vit_224/chan`, `vit_224/scan`, `vit_224/sgr`, `vit_224/vsepp`, `vit_384`, `vit_384/chan`, `vit_384/scan`, `vit_384/sgr`, `vit_384/vsepp`
      found: `vit_225`
    hint: did you mean `vit_224`?
    ");
    insta::assert_snapshot!(refused("{ }", "{ papre: vit_224 }"), @r"
    `models/mine.yaml`, line 9: there is no key `references.papre`
      expected: `paper`, `paper_clip`, `paper_ablation`, `readme`, `d2s_vse`, `seps`, `clip_zero_shot`
      found: `papre`
    hint: did you mean `paper`?
    ");
    insta::assert_snapshot!(refused("{ }", "{ readme: coco_vit }"), @r"
    `models/mine.yaml`, line 9: the value of `references.readme` cannot be used
      expected: tables for a protocol of `data.protocol`
      found: tables for other protocols only
    ");
    insta::assert_snapshot!(refused("{ }", "{ mine: { coco_1k: { i2t: [1, 2, 3], t2i: [1, 2, 3] } } }"), @r"
    `models/mine.yaml`, line 9: the value of `references.mine.coco_1k` cannot be used
      expected: a protocol of `data.protocol`
      found: `coco_1k`
    ");
    insta::assert_snapshot!(refused("{ }", "{ mine: { f30k: { i2t: [3, 2, 1], t2i: [1, 2, 3] } } }"), @r"
    `models/mine.yaml`, line 9: the value of `references.mine.f30k.i2t` cannot be used
      expected: recalls that do not decrease from R@1 to R@5 to R@10
      found: [3.0, 2.0, 1.0]
    ");
    insta::assert_snapshot!(refused("{ }", "{ mine: { f30k: { i2t: [1, 2, 103], t2i: [1, 2, 3] } } }"), @r"
    `models/mine.yaml`, line 9: the value of `references.mine.f30k.i2t` cannot be used
      expected: percents from 0 to 100
      found: [1.0, 2.0, 103.0]
    ");
    insta::assert_snapshot!(refused("{ }", "{ paper: { f30k: { i2t: [1, 2, 3], t2i: [1, 2, 3] } } }"), @r"
    `models/mine.yaml`, line 9: the value of `references.paper` cannot be used
      expected: the name of a row, because this source is built in; other tables need another source name
      found: tables
    ");
    insta::assert_snapshot!(refused("{ }", "{ mine: 507.3 }"), @r"
    `models/mine.yaml`, line 9: the value of `references.mine` cannot be used
      expected: the name of a row of references.yaml, or tables by protocol
      found: `507.3`
    ");
    insta::assert_snapshot!(refused("references: { }", "checkpoint: f30k_vitt"), @r"
    `models/mine.yaml`, line 9: the value of `checkpoint` cannot be used
      expected: one of `clip_vit_b16`, `clip_vit_b32`, `clip_vit_l14`, `coco_swin`, `coco_vit`, `coco_vit_384_d2s`, `coco_vit_384_d2s_pretrain`, `coco_vit_480_d2s`, `coco_vit_480_d2s_pretrain`, `f30k_swin`, `f30k_swin_384_d2s`, `f30k_swin_384_d2s_pretrain`, `f30k_swin_480_d2s`, `f30k_swin_480_d2s_pretrain`, `f30k_vit`, `f30k_vit_384_d2s`, `f30k_vit_384_d2s_pretrain`, `f30k_vit_480_d2s`, `f30k_vit_480_d2s_pretrain`
      found: `f30k_vitt`
    hint: did you mean `f30k_vit`?
    ");
}

#[test]
fn invalid_yaml_is_rejected() {
    insta::assert_snapshot!(printed(&read("name: [").unwrap_err()), @r"
    `models/mine.yaml` is not valid YAML
      cause: did not find expected node content at line 2 column 1, while parsing a flow node
    ");
    insta::assert_snapshot!(printed(&read("name: a\n---\nname: b\n").unwrap_err()), @r"
    `models/mine.yaml` is not valid YAML
      cause: deserializing from YAML containing more than one document is not supported
    ");
    insta::assert_snapshot!(printed(&read(&"[".repeat(30_000)).unwrap_err()), @r"
    `models/mine.yaml` is not valid YAML
      cause: recursion limit exceeded at line 1 column 129
    ");
    insta::assert_snapshot!(refused("name: f30k_mini", "name: !python/object f30k_mini"), @r"
    `models/mine.yaml` is not valid YAML
      cause: name: a tag such as `!name` is not allowed at line 1 column 7
    ");
    insta::assert_snapshot!(refused("name: f30k_mini", "[name]: f30k_mini"), @r"
    `models/mine.yaml` is not valid YAML
      cause: invalid type: sequence, expected a key that is text
    ");
    let aliases =
        (1..30).fold("a0: &a0 [x, x]\n".to_owned(), |text, i| text + &format!("a{i}: &a{i} [*a{0}, *a{0}]\n", i - 1));
    insta::assert_snapshot!(printed(&read(&aliases).unwrap_err()), @r"
    `models/mine.yaml` is not valid YAML
      cause: repetition limit exceeded
    ");
}

#[test]
fn built_in_entry_needs_a_data_folder() {
    insta::assert_snapshot!(printed(&find("f30k_vit").unwrap().data_paths(None).unwrap_err()), @r"
    entry `f30k_vit` needs its data
      expected: a data folder
      found: none
    hint: the folder has to contain `f30k/captions`, `f30k/flickr30k-images`, `bert-base-uncased/vocab.txt`
    ");
}

#[test]
fn head_that_cannot_be_used_is_named() {
    let without = "sparse_ratio: 0.5\n  aggr_ratio: 0.4";
    let refused = |head: &str| refused(without, &format!("head: {head}"));
    insta::assert_snapshot!(refused("scna_t2i"), @r"
    `models/mine.yaml`, line 6: the value of `model.head` cannot be used
      expected: one of `laps`, `laps_ablation`, `cosine`, `vsepp`, `scan_t2i`, `scan_i2t`, `scan_all`, `max_mean`, `sgr`, `chan`, `d2s_vse`
      found: `scna_t2i`
    hint: did you mean `scan_t2i`?
    ");
    insta::assert_snapshot!(refused("{ type: sgr, simdim: 3 }"), @r"
    `models/mine.yaml`, line 6: there is no key `model.head.simdim`
      expected: `sim_dim`, `steps`
      found: `simdim`
    hint: did you mean `sim_dim`?
    ");
    insta::assert_snapshot!(refused("{ type: max_mean, steps: 3 }"), @r"
    `models/mine.yaml`, line 6: there is no key `model.head.steps`
      expected: `type`
      found: `steps`
    ");
    insta::assert_snapshot!(refused("{ type: vsepp, pooling: max }"), @r"
    `models/mine.yaml`, line 6: the value of `model.head.pooling` cannot be used
      expected: one of `mean`, `cls`, `gpo`
      found: `max`
    ");
    insta::assert_snapshot!(refused("{ pooling: gpo }"), @r"
    `models/mine.yaml`, line 6: the key `model.head.type` is missing
    ");
    insta::assert_snapshot!(refused("{ type: sgr, steps: 0 }"), @r"
    `models/mine.yaml`, line 6: the value of `model.head.steps` cannot be used
      expected: from 1 to 65536
      found: `0`
    ");
    // The head projects to 512, the model has 256.
    insta::assert_snapshot!(refused("d2s_vse"), @r"
    `models/mine.yaml`: the value of `model.head.embed_size` cannot be used
      expected: the model's embed_size, 256
      found: `512`
    ");
    insta::assert_snapshot!(refused("chan\n  sparse_ratio: 0.5"), @r"
    `models/mine.yaml`, line 7: the value of `model.sparse_ratio` cannot be used
      expected: no value: the head `chan` selects no patches
      found: `0.5`
    ");
    insta::assert_snapshot!(refused("laps"), @r"
    `models/mine.yaml`: the value of `model.sparse_ratio` cannot be used
      expected: more than 0 and at most 1
      found: `0`
    ");
}

/// `cosine` compares the class token, which Swin does not have.
#[test]
fn cosine_without_a_class_token_is_rejected() {
    let image = CONTRACT.lines().nth(2).unwrap();
    let swin = "  image: { model_type: swin, image_size: 224, patch_size: 4, embed_dim: 128, depths: [2, 2, 18, 2], \
                num_heads: [4, 8, 16, 32], window_size: 7, mlp_ratio: 4 }";
    let ratios = "  sparse_ratio: 0.5\n  aggr_ratio: 0.4\n";
    let text = CONTRACT.replace(ratios, "  head: { type: cosine, embed_size: 256 }\n");
    assert!(read(&text).is_ok());
    insta::assert_snapshot!(printed(&read(&text.replace(image, swin)).unwrap_err()), @r"
    `models/mine.yaml`, line 6: the value of `model.head` cannot be used
      expected: an image encoder with a class token (`vit` or `clip_vision_model`) for the head `cosine`
      found: `swin`
    hint: use the head `vsepp`, which pools all tokens
    ");
}
