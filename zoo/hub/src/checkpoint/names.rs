//! Names of tensors: wrapper prefixes, and tensors that no model needs.

use std::collections::{BTreeMap, BTreeSet};

/// Tensors that checkpoints have and the model does not, so that they are not reported as unexpected. `*` stands for any
/// text; before the first dot it can be empty. Poolers sit on encoders of which only the sequence output is used. The two
/// indexes are constants that older Hugging Face releases stored, and batch norms count batches. The last three are in
/// checkpoints of D2S-VSE: the teacher of its second stage, a token for masked training, and a norm that is never applied.
pub const IGNORED: &[&str] = &[
    "*.pooler.*",
    "*.position_ids",
    "*.relative_position_index",
    "*.num_batches_tracked",
    "long_txt_enc.*",
    "prompt_learner.mask_token",
    "txt_enc.mlp.bns.1.*",
];

/// Steps that wrappers put into names: `DataParallel` and `DistributedDataParallel`, and `torch.compile`.
const WRAPPERS: [&str; 2] = ["module", "_orig_mod"];

/// First steps of the names of a LAPS model.
const ROOTS: [&str; 3] = ["img_enc", "txt_enc", "cross_net"];

/// The two encoders of Hugging Face's `CLIPModel`, and where a model has them.
const CLIP: [(&str, &str); 2] = [("vision_model", "img_enc.visual_encoder"), ("text_model", "txt_enc.clip")];

/// The step that Lightning and other trainers put in front of the names of the model they train.
const TRAINER: &str = "model";

/// Whether `name` matches a pattern of [`IGNORED`].
pub fn is_ignored(name: &str) -> bool {
    IGNORED.iter().any(|pattern| {
        let dotted = format!(".{name}");
        match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
            (Some(end), None) => dotted.ends_with(end),
            (Some(rest), Some(_)) => dotted.contains(rest.trim_end_matches('*')),
            (None, Some(start)) => name.starts_with(start),
            (None, None) => name == *pattern,
        }
    })
}

/// The tensors under the names that their model has for them, and the steps that were removed from the names, each with a
/// dot at its end. The encoders of `CLIPModel` get the names that a model has for them. `module.` and `_orig_mod.` are removed wherever they are; `model.` is removed from the front where the
/// names of a LAPS model follow.
///
/// # Errors
/// A name that two tensors get.
pub(super) fn unwrap<T>(tensors: BTreeMap<String, T>) -> Result<(BTreeMap<String, T>, BTreeSet<String>), String> {
    let mut removed = BTreeSet::new();
    let mut unwrapped = BTreeMap::new();
    for (name, tensor) in tensors {
        let mut steps: Vec<&str> = name.split('.').collect();
        removed.extend(steps.iter().filter(|step| WRAPPERS.contains(step)).map(|step| format!("{step}.")));
        steps.retain(|step| !WRAPPERS.contains(step));
        insert(&mut unwrapped, steps.join("."), tensor)?;
    }
    let first_step = |name: &str, steps: &[&str]| name.split_once('.').is_some_and(|(first, _)| steps.contains(&first));
    while !unwrapped.keys().any(|name| first_step(name, &ROOTS))
        && unwrapped.keys().any(|name| first_step(name.trim_start_matches("model."), &ROOTS))
    {
        removed.insert(format!("{TRAINER}."));
        let mut inner = BTreeMap::new();
        for (name, tensor) in unwrapped {
            let name = name.strip_prefix("model.").map(str::to_owned).unwrap_or(name);
            insert(&mut inner, name, tensor)?;
        }
        unwrapped = inner;
    }
    let mut renamed = BTreeMap::new();
    for (name, tensor) in unwrapped {
        let side = CLIP.iter().find(|(side, _)| name.split('.').next() == Some(side));
        let name = side.map_or(name.clone(), |(_, prefix)| format!("{prefix}.{name}"));
        insert(&mut renamed, name, tensor)?;
    }
    Ok((renamed, removed))
}

fn insert<T>(tensors: &mut BTreeMap<String, T>, name: String, tensor: T) -> Result<(), String> {
    if tensors.contains_key(&name) {
        return Err(name);
    }
    tensors.insert(name, tensor);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{is_ignored, unwrap};

    #[test]
    fn ignored_patterns_match_whole_steps() {
        for name in [
            "img_enc.visual_encoder.pooler.dense.weight",
            "pooler.dense.bias",
            "txt_enc.bert.embeddings.position_ids",
            "encoder.layers.0.blocks.1.attention.self.relative_position_index",
            "sim_enc.v_global_w.embedding_local.1.num_batches_tracked",
            "long_txt_enc.bert.embeddings.word_embeddings.weight",
            "prompt_learner.mask_token",
            "txt_enc.mlp.bns.1.running_var",
        ] {
            assert!(is_ignored(name), "{name}");
        }
        for name in [
            "a.pooler",
            "a.my_pooler.weight",
            "a.position_ids.weight",
            "a.relative_position_bias_table",
            "a.long_txt_enc.weight",
            "prompt_learner.mask_tokens",
            "txt_enc.mlp.bns.0.running_var",
        ] {
            assert!(!is_ignored(name), "{name}");
        }
    }

    /// The names after unwrapping, and the removed steps.
    fn unwrapped(names: &[&str]) -> (Vec<String>, Vec<String>) {
        let tensors: BTreeMap<_, _> = names.iter().map(|&name| (name.to_owned(), ())).collect();
        let (tensors, removed) = unwrap(tensors).unwrap();
        (tensors.into_keys().collect(), removed.into_iter().collect())
    }

    #[test]
    fn wrapper_prefixes_are_removed_in_any_combination() {
        let plain = "txt_enc.fc.bias";
        for (name, steps) in [
            ("txt_enc.fc.bias", &[][..]),
            ("module.txt_enc.fc.bias", &["module."]),
            ("module.module.txt_enc.fc.bias", &["module."]),
            ("txt_enc.module.fc.bias", &["module."]),
            ("_orig_mod.txt_enc.fc.bias", &["_orig_mod."]),
            ("txt_enc._orig_mod.fc.bias", &["_orig_mod."]),
            ("model.txt_enc.fc.bias", &["model."]),
            ("model.model.txt_enc.fc.bias", &["model."]),
            ("module._orig_mod.model.txt_enc.fc.bias", &["_orig_mod.", "model.", "module."]),
            ("model.module._orig_mod.txt_enc.fc.bias", &["_orig_mod.", "model.", "module."]),
        ] {
            let (names, removed) = unwrapped(&[name]);
            assert_eq!((names, removed), (vec![plain.to_owned()], steps.iter().map(|&s| s.to_owned()).collect()));
        }
    }

    #[test]
    fn model_prefix_stays_where_it_is_no_wrapper() {
        for names in [&["model.layers.0.weight"][..], &["img_enc.a", "model.img_enc.b"], &["modules.bias"]] {
            assert_eq!(unwrapped(names), (names.iter().map(|&name| name.to_owned()).collect(), Vec::new()));
        }
        let (names, _) = unwrapped(&["loss.scale", "model.img_enc.a"]);
        assert_eq!(names, ["img_enc.a", "loss.scale"]);
    }

    #[test]
    fn two_tensors_of_one_name_are_rejected() {
        let tensors = BTreeMap::from([("a".to_owned(), ()), ("module.a".to_owned(), ())]);
        assert_eq!(unwrap(tensors).unwrap_err(), "a");
    }
}
