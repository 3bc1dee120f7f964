//! Hugging Face base models as the part of a LAPS checkpoint that they become.

use std::collections::BTreeMap;

use super::source::Stored;

/// Which encoder a Hugging Face file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backbone {
    /// `ViTModel`.
    Vit,
    /// `SwinModel`.
    Swin,
    /// `BertModel`.
    Bert,
}

/// First steps of the names of task heads, which sit beside the base model: classification, BERT's two pretraining
/// tasks, question answering, masked image modelling.
pub const HEADS: &[&str] = &["classifier", "cls", "qa_outputs", "decoder"];

impl Backbone {
    /// Where the encoder lies in a LAPS model.
    pub fn place(self) -> &'static str {
        match self {
            Self::Vit | Self::Swin => "img_enc.visual_encoder",
            Self::Bert => "txt_enc.bert",
        }
    }

    /// First step of the names in files that hold more than the base model.
    fn prefix(self) -> &'static str {
        match self {
            Self::Vit => "vit.",
            Self::Swin => "swin.",
            Self::Bert => "bert.",
        }
    }

    /// The tensors by the names that a LAPS model has for them, without task heads; or a name that two tensors get.
    pub(super) fn rename(self, tensors: &BTreeMap<String, Stored>) -> Result<BTreeMap<String, Stored>, String> {
        let mut renamed = BTreeMap::new();
        for (name, stored) in tensors {
            let base = name.strip_prefix(self.prefix());
            let is_head = || name.split('.').next().is_some_and(|step| HEADS.contains(&step));
            if base.is_none() && is_head() {
                continue;
            }
            let name = format!("{}.{}", self.place(), current(base.unwrap_or(name)));
            if renamed.insert(name.clone(), stored.clone()).is_some() {
                return Err(name);
            }
        }
        Ok(renamed)
    }
}

/// Layer norms had the names of TensorFlow in the first conversions.
fn current(name: &str) -> String {
    for (old, new) in [(".gamma", ".weight"), (".beta", ".bias")] {
        if let Some(stem) = name.strip_suffix(old)
            && stem.ends_with("LayerNorm")
        {
            return format!("{stem}{new}");
        }
    }
    name.to_owned()
}
