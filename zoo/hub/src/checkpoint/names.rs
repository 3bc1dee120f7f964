//! Names of tensors: what wraps them, and which are not needed.

/// Tensors that checkpoints carry and the model does not have, so that they are no surprise: `*` stands for anything,
/// also for nothing before a first dot. Poolers sit on encoders whose sequence output is used; the two indexes are
/// constants that older Hugging Face releases stored.
pub const IGNORED: &[&str] = &["*.pooler.*", "*.position_ids", "*.relative_position_index"];

/// Whether `name` is on the list of [`IGNORED`].
pub fn is_ignored(name: &str) -> bool {
    IGNORED.iter().any(|pattern| {
        let dotted = format!(".{name}");
        let pattern = pattern.trim_start_matches('*');
        match pattern.strip_suffix('*') {
            Some(inner) => dotted.contains(inner),
            None => dotted.ends_with(pattern),
        }
    })
}

/// `name` without the steps that data-parallel wrappers put where they wrap: `module.`, at the front or further in.
pub(super) fn unwrapped(name: &str) -> String {
    let steps: Vec<_> = name.split('.').filter(|&step| step != "module").collect();
    steps.join(".")
}

#[cfg(test)]
mod tests {
    use super::{is_ignored, unwrapped};

    #[test]
    fn ignored_names_are_whole_steps() {
        for name in [
            "img_enc.visual_encoder.pooler.dense.weight",
            "pooler.dense.bias",
            "txt_enc.bert.embeddings.position_ids",
            "encoder.layers.0.blocks.1.attention.self.relative_position_index",
        ] {
            assert!(is_ignored(name), "{name}");
        }
        for name in ["a.pooler", "a.my_pooler.weight", "a.position_ids.weight", "a.relative_position_bias_table"] {
            assert!(!is_ignored(name), "{name}");
        }
    }

    #[test]
    fn wrappers_are_taken_off_where_they_wrap() {
        assert_eq!(unwrapped("module.txt_enc.fc.bias"), "txt_enc.fc.bias");
        assert_eq!(unwrapped("module.module.txt_enc.fc.bias"), "txt_enc.fc.bias");
        assert_eq!(unwrapped("img_enc.module.vision_proj.bias"), "img_enc.vision_proj.bias");
        assert_eq!(unwrapped("modules.bias"), "modules.bias");
    }
}
