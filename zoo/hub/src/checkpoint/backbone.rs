//! Hugging Face base models as encoders of a LAPS checkpoint.

use std::collections::BTreeMap;

use super::stored::StoredTensor;

/// The encoder that a Hugging Face file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackboneKind {
    /// `ViTModel`.
    Vit,
    /// `SwinModel`.
    Swin,
    /// `BertModel`.
    Bert,
    /// The image side of `CLIPModel`.
    ClipVision,
    /// The text side of `CLIPModel`.
    ClipText,
}

/// First steps of the names of task heads next to the base model: classification, the two pretraining tasks of BERT,
/// question answering, masked image modelling.
const HEADS: &[&str] = &["classifier", "cls", "qa_outputs", "decoder"];

impl BackboneKind {
    /// Prefix of the encoder in the names of a LAPS model, without the dot.
    pub fn model_prefix(self) -> &'static str {
        match self {
            Self::Vit | Self::Swin | Self::ClipVision => "img_enc.visual_encoder",
            Self::Bert => "txt_enc.bert",
            Self::ClipText => "txt_enc.clip",
        }
    }

    /// Prefix of the base model in files that have a task head.
    fn file_prefix(self) -> &'static str {
        match self {
            Self::Vit => "vit.",
            Self::Swin => "swin.",
            Self::Bert => "bert.",
            // The names of both sides are those of a model already.
            Self::ClipVision => "img_enc.visual_encoder.",
            Self::ClipText => "txt_enc.clip.",
        }
    }

    /// First steps of names that this encoder does not have. The two sides of CLIP come in one file.
    fn others(self) -> &'static [&'static str] {
        match self {
            Self::Vit | Self::Swin | Self::Bert => HEADS,
            Self::ClipVision => &["txt_enc", "visual_projection", "text_projection", "logit_scale"],
            Self::ClipText => &["img_enc", "visual_projection", "text_projection", "logit_scale"],
        }
    }

    /// The tensors under the names of a LAPS model, without task heads.
    ///
    /// # Errors
    /// A name that two tensors get.
    pub(super) fn rename(
        self,
        tensors: &BTreeMap<String, StoredTensor>,
    ) -> Result<BTreeMap<String, StoredTensor>, String> {
        let mut renamed = BTreeMap::new();
        for (name, tensor) in tensors {
            let base = name.strip_prefix(self.file_prefix());
            let is_head = || name.split('.').next().is_some_and(|step| self.others().contains(&step));
            if base.is_none() && is_head() {
                continue;
            }
            let name = format!("{}.{}", self.model_prefix(), modernize(base.unwrap_or(name)));
            if renamed.insert(name.clone(), tensor.clone()).is_some() {
                return Err(name);
            }
        }
        Ok(renamed)
    }
}

/// The first conversions to PyTorch kept TensorFlow's names of layer norms, `gamma` and `beta`.
fn modernize(name: &str) -> String {
    for (old, new) in [(".gamma", ".weight"), (".beta", ".bias")] {
        if let Some(stem) = name.strip_suffix(old)
            && stem.ends_with("LayerNorm")
        {
            return format!("{stem}{new}");
        }
    }
    name.to_owned()
}
