//! Real pretrained backbones in Hugging Face naming, and the whole checkpoint that holds them.

use std::path::{Path, PathBuf};

use laps_hub::{
    checkpoint::{Backbone, Checkpoint},
    registry,
};
use laps_model::{models, params::Parameter};

/// The folder that the reference data's script fills and the entry that describes its model; both or a word of skipping.
fn reference() -> Option<(PathBuf, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let (made, entry) = (root.join(".runtime/real"), root.join("../shared/real/f30k_mini.yaml"));
    let there = made.join("f30k_mini.safetensors").exists() && entry.exists();
    if !there {
        println!("skipped: there is no evaluated checkpoint of the reference data");
    }
    there.then_some((made, entry))
}

#[test]
fn pretrained_backbones_are_read_as_the_encoders_of_a_model() {
    let Some((made, entry)) = reference() else { return };
    let entry = registry::find(entry.to_str().unwrap()).unwrap();
    let parameters = models::parameters(&entry.model).unwrap();
    let whole = Checkpoint::open(made.join("f30k_mini.safetensors")).unwrap();
    whole.check(&parameters).unwrap();
    for (kind, folder, expected) in [(Backbone::Vit, "vit-s14", 198), (Backbone::Bert, "bert-minilm-l6", 101)] {
        let place = format!("{}.", kind.place());
        let wanted: Vec<Parameter> = parameters.iter().filter(|p| p.name.starts_with(&place)).cloned().collect();
        assert_eq!(wanted.len(), expected);
        let backbone = Checkpoint::open(made.join(folder).join("model.safetensors")).unwrap().backbone(kind).unwrap();
        backbone.check(&wanted).unwrap();
        for parameter in &wanted {
            assert_eq!(backbone.read(&parameter.name).unwrap(), whole.read(&parameter.name).unwrap());
        }
    }
}
