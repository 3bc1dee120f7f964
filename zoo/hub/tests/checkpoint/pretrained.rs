//! Real pretrained backbones with Hugging Face names, and the complete checkpoint that contains them.

use std::path::{Path, PathBuf};

use laps_hub::{
    checkpoint::{BackboneKind, Checkpoint},
    registry,
};
use laps_model::{models, params::Parameter};

/// The folder of the reference data and the entry of its model, if both exist.
fn reference() -> Option<(PathBuf, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let (made, entry) = (root.join(".runtime/real"), root.join("../shared/real/f30k_mini.yaml"));
    let exists = made.join("f30k_mini.safetensors").exists() && entry.exists();
    if !exists {
        println!("skipped: the reference data are not installed");
    }
    exists.then_some((made, entry))
}

#[test]
fn pretrained_backbones_are_read_as_the_encoders_of_a_model() {
    let Some((made, entry)) = reference() else { return };
    let entry = registry::find(entry.to_str().unwrap()).unwrap();
    let parameters = models::parameters(&entry.model).unwrap();
    let whole = Checkpoint::open(made.join("f30k_mini.safetensors")).unwrap();
    whole.check(&parameters).unwrap();
    for (kind, folder, expected) in [(BackboneKind::Vit, "vit-s14", 198), (BackboneKind::Bert, "bert-minilm-l6", 101)] {
        let place = format!("{}.", kind.model_prefix());
        let wanted: Vec<Parameter> = parameters.iter().filter(|p| p.name.starts_with(&place)).cloned().collect();
        assert_eq!(wanted.len(), expected);
        let backbone = Checkpoint::open(made.join(folder).join("model.safetensors")).unwrap().backbone(kind).unwrap();
        backbone.check(&wanted).unwrap();
        for parameter in &wanted {
            assert_eq!(backbone.read(&parameter.name).unwrap(), whole.read(&parameter.name).unwrap());
        }
    }
}
