use std::{num::NonZeroUsize, path::Path};

use super::{CONTRACT, edited, read};
use crate::registry::{DataConfig, Entry, Origin, Protocol, Status, find, names, sha256};
use laps_data::scenes::DrawnConfig;
use laps_model::{
    heads::{Ablation, HeadConfig},
    models::config::{ImageConfig, ModelConfig, PreprocessingType},
};

#[test]
fn built_in_entries_are_valid_and_named_after_their_file() {
    for name in names() {
        let entry = find(name).unwrap();
        assert_eq!(entry.name, name);
        assert_eq!(entry.origin, Origin::BuiltIn(name));
        entry.model.check().unwrap();
    }
}

#[test]
fn rows_are_entries() {
    let rows = super::super::rows::expand(super::super::ROWS).unwrap();
    assert_eq!(rows.len(), 32 + 4 + 6 + 7 + 12 + 8);
    for (name, text) in rows {
        let entry = find(&name).unwrap();
        assert_eq!(entry.text_sha256, sha256(text.as_bytes()), "{name}");
        assert!(!text.contains("parts:"), "{text}");
    }
}

#[test]
fn every_file_in_configs_is_built_in() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/configs"));
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|name| !["references", "successors", "rows"].contains(&name.as_str()))
        .collect();
    files.sort();
    let mut known: Vec<_> = super::super::BUILT_IN.iter().map(|(name, _)| *name).collect();
    known.sort_unstable();
    assert_eq!(files, known);
}

/// Patches, kept patches and groups by the formulas of LAPS, computed by hand: 384 / 16 = 24, 24 * 24 = 576, 576 * 0.5 = 288,
/// 576 * 0.4 * 0.5 = 115.2; 384 / 4 / 8 = 12, 12 * 12 = 144, 144 * 0.8 = 115.2, 144 * 0.6 * 0.8 = 69.12; 60 / 10 = 6,
/// 6 * 6 = 36, 36 * 0.4 * 0.5 = 7.2; 60 / 5 / 2 = 6, 6 * 6 = 36, 36 * 0.8 = 28.8, 36 * 0.6 * 0.8 = 17.28;
/// 224 / 14 = 16, 16 * 16 = 256, 256 * 0.5 = 128, 256 * 0.4 * 0.5 = 51.2; 480 / 16 = 30, 30 * 30 = 900;
/// 480 / 4 / 8 = 15, 15 * 15 = 225.
#[test]
fn built_in_patch_counts_are_those_of_the_method() {
    for name in names() {
        let model = find(name).unwrap().model;
        let expected = match (&model.image, model.image.image_size()) {
            (ImageConfig::Vit(_), 224) => (768, 196, 98, 39),
            (ImageConfig::Swin(_), 224) => (1024, 49, 40, 23),
            (ImageConfig::Vit(_), 384) => (768, 576, 288, 115),
            (ImageConfig::Swin(_), 384) => (1024, 144, 116, 69),
            (ImageConfig::Vit(_), 480) => (768, 900, 0, 0),
            (ImageConfig::Swin(_), 480) => (1024, 225, 0, 0),
            (ImageConfig::Vit(_), 60) => (64, 36, 18, 7),
            (ImageConfig::Swin(_), 60) => (64, 36, 29, 17),
            (ImageConfig::ClipVisionModel(clip), 224) if clip.patch_size == 16 => (768, 196, 98, 39),
            (ImageConfig::ClipVisionModel(clip), 224) if clip.patch_size == 32 => (768, 49, 0, 0),
            (ImageConfig::ClipVisionModel(clip), 224) if clip.patch_size == 14 => (1024, 256, 128, 51),
            (_, size) => panic!("no geometry is known for `{name}` at {size}"),
        };
        let expected = if model.head.has_ratios() { expected } else { (expected.0, expected.1, 0, 0) };
        let found = (model.image.hidden_size(), model.image.num_patches(), model.kept(), model.groups());
        assert_eq!(found, expected, "{name}");
        let embed_size = match name {
            "f30k_swin_1024" => 1024,
            name if name.starts_with("clip_vit_l14") => 768,
            "shapes_vit" | "shapes_swin" => 64,
            _ => 512,
        };
        assert_eq!(model.embed_size, embed_size, "{name}");
    }
}

#[test]
fn data_sets_have_their_splits_and_protocols() {
    for name in names() {
        let DataConfig { captions, train, dev, test, protocol, .. } = find(name).unwrap().data;
        let dev_split = if name.ends_with("_docci") { "qual_dev" } else { "dev" };
        assert_eq!((train.as_str(), dev.as_str()), ("train", dev_split), "{name}");
        if captions.starts_with("coco") {
            assert_eq!(
                (test.as_str(), protocol.as_slice()),
                ("testall", [Protocol::Coco5k, Protocol::Coco1k].as_slice())
            );
        } else {
            assert_eq!((test.as_str(), protocol.as_slice()), ("test", [Protocol::F30k].as_slice()));
        }
    }
}

#[test]
fn only_the_four_author_entries_clip_and_d2s_vse_have_a_published_checkpoint() {
    for name in names() {
        let published = ["f30k_vit", "f30k_swin", "coco_vit", "coco_swin"].contains(&name)
            || name.starts_with("clip_vit_")
            || name.contains("_d2s");
        let source = find(name).unwrap().checkpoint_source().unwrap();
        assert_eq!(source.is_some(), published, "{name}");
        assert!(source.is_none_or(|source| source.url().is_some()), "{name}");
    }
}

#[test]
fn published_tables_belong_to_the_entry() {
    let values = |entry: &str, protocol| -> Vec<_> {
        find(entry)
            .unwrap()
            .published(protocol)
            .iter()
            .map(|table| (table.source.clone(), table.t2i[0].unwrap()))
            .collect()
    };
    let show = |cells: Vec<(String, crate::registry::Cell)>| {
        cells.iter().map(|(source, cell)| format!("{source} {} {}", cell.value, cell.status)).collect::<Vec<_>>()
    };
    assert_eq!(show(values("f30k_vit", Protocol::F30k)), ["paper 62.5 printed", "readme 62.5 printed"]);
    assert_eq!(show(values("coco_vit", Protocol::Coco5k)), ["paper 44.5 printed", "readme 43.9 restored"]);
    assert_eq!(show(values("coco_swin", Protocol::Coco1k)), ["paper 72.1 printed", "readme 71.9 inferred"]);
    assert_eq!(show(values("f30k_swin_384", Protocol::F30k)), ["paper 74 printed"]);
    // The row of the paper also has COCO results, which are of another model.
    assert!(values("f30k_vit", Protocol::Coco5k).is_empty());
    assert!(values("f30k_swin_1024", Protocol::F30k).is_empty());

    let readme = &find("coco_swin").unwrap().published(Protocol::Coco1k)[1];
    assert_eq!(readme.i2t[0].unwrap().status, Status::Printed);
    assert_eq!(readme.printed_t2i, Some([Some(51.2), Some(79.3), None]));
    assert!(readme.t2i[2].is_none() && readme.rsum.is_none());
}

#[test]
fn contract_is_read_completely() {
    let entry = read(CONTRACT).unwrap();
    assert_eq!(entry.name, "f30k_mini");
    assert_eq!((entry.model.image.num_patches(), entry.model.kept(), entry.model.groups()), (256, 128, 51));
    let ImageConfig::Vit(vit) = &entry.model.image else { panic!("a ViT") };
    assert_eq!((vit.layer_norm_eps, entry.model.text.layer_norm_eps), (1e-6, 1e-12));
    assert_eq!((entry.data.train.as_str(), entry.data.dev.as_str()), ("train", "dev"));
    assert_eq!(entry.data.protocol, [Protocol::F30k]);
    assert!(entry.published(Protocol::F30k).is_empty() && entry.checkpoint.is_none() && entry.data.drawn.is_none());
    assert!(edited("references: { }", "").unwrap().published(Protocol::F30k).is_empty());
    assert!(edited("references: { }", "references:").unwrap().published(Protocol::F30k).is_empty());

    let shared = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/real/f30k_mini.yaml");
    if Path::new(shared).exists() {
        let real = find(shared).unwrap();
        assert_eq!(real.config_sha256, entry.config_sha256);
        assert!(real.data_paths(None).unwrap().captions.ends_with("real/f30k_mini/captions"));
    } else {
        println!("skipped: {shared} does not exist");
    }
}

#[test]
fn model_type_can_be_any_key_of_its_mapping() {
    let moved = edited("model_type: vit, image_size: 224,", "image_size: 224, model_type: vit,").unwrap();
    assert_eq!(moved.config_sha256, read(CONTRACT).unwrap().config_sha256);
    let json = serde_json::to_value(&moved.model).unwrap();
    assert_eq!(serde_json::from_value::<laps_model::models::config::ModelConfig>(json).unwrap(), moved.model);
}

#[test]
fn drawn_scenes_and_inline_tables_are_read() {
    let drawn =
        edited("protocol: f30k }", "protocol: f30k, drawn: { seed: 7, train: 100, dev: 10, test: 20 } }").unwrap();
    assert_eq!(drawn.data.drawn, Some(DrawnConfig { seed: 7, train: 100, dev: 10, test: 20 }));
    let tables = "{ paper: vit_224, rerun 1: { f30k: { i2t: [74, 93.2, null], t2i: [62.3, 87, 92.4] } } }";
    let published = edited("{ }", tables).unwrap().published(Protocol::F30k);
    assert_eq!(published.iter().map(|table| table.source.as_str()).collect::<Vec<_>>(), ["paper", "rerun 1"]);
    assert_eq!(published[0].rsum.unwrap().value, 507.3);
    assert_eq!(published[1].i2t.map(|cell| cell.map(|cell| cell.value)), [Some(74.0), Some(93.2), None]);
}

#[test]
fn paths_are_relative_to_the_data_folder_or_the_entry_file() {
    let entry = read(CONTRACT).unwrap();
    assert_eq!(entry.data_paths(None).unwrap().vocab, Path::new("models/tokenizer/vocab.txt"));
    let below = entry.data_paths(Some(Path::new("/data"))).unwrap();
    assert_eq!(below.captions, Path::new("/data/f30k_mini/captions"));
    assert_eq!(below.images, Path::new("/data/f30k_mini/images"));
    let absolute = edited("tokenizer/vocab.txt", "/vocab.txt").unwrap();
    assert_eq!(absolute.data_paths(Some(Path::new("/data"))).unwrap().vocab, Path::new("/vocab.txt"));
}

#[test]
fn authors_tree_is_found_and_a_missing_one_is_described() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for (name, set, images) in [("f30k_vit", "f30k", "flickr30k-images"), ("coco_swin", "coco", "coco-images")] {
        let entry = find(name).unwrap();
        let own = entry.data_paths(Some(root)).unwrap();
        assert!(own.captions.ends_with(format!("{set}/captions")), "{own:?}");
        std::fs::create_dir_all(root.join(images)).unwrap();
        std::fs::create_dir_all(root.join(set)).unwrap();
        let error = entry.existing_data_paths(Some(root)).unwrap_err().to_string();
        assert!(error.contains(&format!("or captions in `{set}` and images in `{images}`")), "{error}");
        std::fs::write(root.join(set).join("id_mapping.json"), "{}").unwrap();
        let found = entry.existing_data_folders(Some(root)).unwrap();
        assert_eq!((found.captions, found.images), (root.join(set), root.join(images)));
        let error = entry.existing_data_paths(Some(root)).unwrap_err().to_string();
        let vocabulary = root.join("bert-base-uncased/vocab.txt");
        assert!(error.contains(&format!("there is no vocabulary `{}`\n", vocabulary.display())), "{error}");
        std::fs::create_dir_all(vocabulary.parent().unwrap()).unwrap();
        std::fs::write(&vocabulary, "").unwrap();
        assert_eq!(entry.existing_data_paths(Some(root)).unwrap().vocab, vocabulary);
        std::fs::remove_dir_all(vocabulary.parent().unwrap()).unwrap();
        // The project's own tree comes first.
        std::fs::create_dir_all(&own.captions).unwrap();
        std::fs::create_dir_all(&own.images).unwrap();
        assert_eq!(entry.existing_data_folders(Some(root)).unwrap(), own);
    }
    std::fs::remove_dir_all(root.join("f30k")).unwrap();
    let error = find("f30k_vit").unwrap().existing_data_paths(Some(root)).unwrap_err().to_string();
    let found = format!("found: `coco`, `coco-images`, `flickr30k-images` in `{}`", root.display());
    assert!(error.ends_with(&found), "{error}");
    let none = root.join("none");
    let error = find("f30k_vit").unwrap().existing_data_paths(Some(&none)).unwrap_err().to_string();
    assert!(error.ends_with(&format!("found: no folder `{}`", none.display())), "{error}");
}

#[test]
fn byte_order_mark_of_an_entry_is_not_content() {
    let plain = read(CONTRACT).unwrap();
    let marked = read(&format!("\u{feff}{CONTRACT}")).unwrap();
    assert_eq!(marked.config_sha256, plain.config_sha256);
    assert_eq!(marked.text_sha256, sha256(format!("\u{feff}{CONTRACT}").as_bytes()));
}

#[test]
fn do_lower_case_of_an_entry_belongs_to_its_configuration() {
    let plain = read(CONTRACT).unwrap();
    let cased = edited("protocol: f30k }", "protocol: f30k, do_lower_case: false }").unwrap();
    assert_eq!((plain.data.do_lower_case, cased.data.do_lower_case), (None, Some(false)));
    assert_ne!(cased.config_sha256, plain.config_sha256);
}

#[test]
fn hash_depends_on_the_configuration_not_on_its_spelling() {
    let entry = read(CONTRACT).unwrap();
    let same = [
        edited("layer_norm_eps: 1e-6", "layer_norm_eps: 0.000001").unwrap(),
        edited("sparse_ratio: 0.5\n  aggr_ratio: 0.4", "aggr_ratio: 0.40   # first\n  sparse_ratio: .5").unwrap(),
        edited("test: test", "test: test, dev: dev").unwrap(),
        edited("protocol: f30k", "protocol: [f30k]").unwrap(),
        edited("name: f30k_mini", "name: other").unwrap(),
        edited("{ }", "{ paper: vit_224 }").unwrap(),
    ];
    for other in &same {
        assert_eq!(other.config_sha256, entry.config_sha256);
        assert_ne!(other.text_sha256, entry.text_sha256);
    }
    for (from, to) in [("aggr_ratio: 0.4", "aggr_ratio: 0.41"), ("test: test", "test: dev"), ("1e-6", "1e-5")] {
        assert_ne!(edited(from, to).unwrap().config_sha256, entry.config_sha256, "{to}");
    }
    let hashes: std::collections::HashSet<_> = names().iter().map(|name| find(name).unwrap().config_sha256).collect();
    assert_eq!(hashes.len(), names().len());
}

/// Results of different versions are compared by this hash, so the canonical form must not change.
#[test]
fn canonical_form_is_unchanged() {
    let entry = read(CONTRACT).unwrap();
    insta::assert_snapshot!(entry.canonical().unwrap(), @r#"{"data":{"captions":"f30k_mini/captions","dev":"dev","images":"f30k_mini/images","protocol":["f30k"],"test":"test","train":"train","vocab":"tokenizer/vocab.txt"},"model":{"aggr_ratio":0.4,"embed_size":256,"image":{"hidden_size":384,"image_size":224,"intermediate_size":1536,"layer_norm_eps":1e-6,"model_type":"vit","num_attention_heads":6,"num_hidden_layers":12,"patch_size":14},"sparse_ratio":0.5,"text":{"hidden_size":384,"intermediate_size":1536,"layer_norm_eps":1e-12,"max_position_embeddings":512,"model_type":"bert","num_attention_heads":12,"num_hidden_layers":6,"type_vocab_size":2,"vocab_size":30522}}}"#);
    assert_eq!(entry.config_sha256, sha256(entry.canonical().unwrap().as_bytes()));
    insta::assert_snapshot!(entry.config_sha256, @"e68a57ad351736aaac5b504a4b9c0c05348b724cb31b6b8fe577743576a1d4f9");
}

/// A name and a mapping are the same head, and the default changes neither the configuration nor its hash.
/// Entries of Table 4 differ from `f30k_vit` in the head alone, and there is one for each ablation.
#[test]
fn ablations_are_f30k_vit_with_another_head() {
    let laps = find("f30k_vit").unwrap();
    for ablation in Ablation::ALL {
        let head = HeadConfig::LapsAblation { ablation };
        let kind = serde_json::to_value(ablation).unwrap();
        let kind = kind.as_str().unwrap();
        let entry = find(&format!("f30k_vit_{kind}")).unwrap();
        assert_eq!(entry.model, ModelConfig { head, ..laps.model.clone() });
        assert_eq!((&entry.data, &entry.train), (&laps.data, &laps.train));
        assert_eq!(entry.reference_row("paper_ablation"), Some(kind));
        assert_eq!(entry.published(Protocol::F30k).len(), 1);
    }
}

/// Pixels and Drive folders are those of the shared file, and an entry names the pixels that its model is run at.
#[test]
fn entries_of_d2s_vse_are_those_of_the_shared_file() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/successors.yaml");
    let Ok(text) = std::fs::read_to_string(path) else {
        println!("skipped: {path} does not exist");
        return;
    };
    let shared: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
    let rows = shared["d2s_vse"]["rows"].as_mapping().unwrap();
    let entries: Vec<_> =
        names().into_iter().filter(|name| name.contains("_d2s")).map(|name| find(name).unwrap()).collect();
    assert_eq!((rows.len(), entries.len()), (6, 12));
    for (key, row) in rows {
        let of_row = |entry: &&Entry| entry.reference_row("d2s_vse") == key.as_str();
        let [distilled] = entries.iter().filter(of_row).collect::<Vec<_>>()[..] else { panic!("{key:?}") };
        let pretrained = entries.iter().find(|entry| entry.name == format!("{}_pretrain", distilled.name)).unwrap();
        for (entry, folder) in [(distilled, "gdrive_distill"), (pretrained, "gdrive_pretrain")] {
            let source = entry.checkpoint_source().unwrap().unwrap();
            assert_eq!(source.gdrive_folder.as_deref(), row[folder].as_str(), "{}", entry.name);
            assert_eq!(Some(entry.model.image.image_size() as u64), row["pixels"].as_u64(), "{}", entry.name);
            assert!(entry.name.contains(&format!("_{}_", entry.model.image.image_size())), "{}", entry.name);
            assert_eq!(entry.model.image.preprocessing(), PreprocessingType::D2sVse);
            assert_eq!(entry.data.padded_batch.map(NonZeroUsize::get), (folder == "gdrive_distill").then_some(128));
        }
        assert!(pretrained.data.protocol.iter().all(|&protocol| pretrained.published(protocol).is_empty()));
    }
}

#[test]
fn padded_batch_needs_a_head_that_reads_padding() {
    let error = edited("protocol: f30k", "protocol: f30k, padded_batch: 128").unwrap_err().to_string();
    insta::assert_snapshot!(error, @r"
    `models/mine.yaml`, line 8: the value of `data.padded_batch` cannot be used
      expected: no value: the head `laps` does not read padding
      found: `128`
    ");
    let entry = find("f30k_vit_384_d2s").unwrap();
    let unpadded = entry.clone().without_padding().unwrap();
    assert_eq!(unpadded.data.padded_batch, None);
    assert_ne!(unpadded.config_sha256, entry.config_sha256);
    let laps = find("f30k_vit").unwrap();
    assert_eq!(laps.clone().without_padding().unwrap(), laps);
}

#[test]
fn head_is_a_name_or_a_mapping() {
    let without = "sparse_ratio: 0.5\n  aggr_ratio: 0.4";
    let head = |head: &str| edited(without, &format!("head: {head}")).unwrap().model.head.to_string();
    assert_eq!(head("scan_t2i"), "scan_t2i");
    assert_eq!(head("sgr"), head("{ type: sgr, sim_dim: 256, steps: 3 }"));
    assert_eq!(head("{ pooling: gpo, type: vsepp }"), "vsepp, pooling gpo");
    assert_eq!(head("{ type: chan, aggregation: lse }"), "chan, aggregation lse");
    let explicit = edited(without, &format!("{without}\n  head: laps")).unwrap();
    assert_eq!(explicit.config_sha256, read(CONTRACT).unwrap().config_sha256);
    let other = edited(without, "head: scan_i2t").unwrap();
    assert_ne!(other.config_sha256, explicit.config_sha256);
    assert_eq!(read(&other.run_file().unwrap()).unwrap().model, other.model);
}
