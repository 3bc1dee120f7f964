//! Deserialises [`TextConfig`], whose defaults depend on `model_type`.

use serde::Deserialize;

use super::{TextConfig, TextType, eps_5, eps_12};

/// The keys of a text encoder.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TextFields {
    model_type: TextType,
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    max_position_embeddings: Option<usize>,
    type_vocab_size: Option<usize>,
    layer_norm_eps: Option<f64>,
}

impl From<TextFields> for TextConfig {
    fn from(fields: TextFields) -> Self {
        let (positions, types, eps) = match fields.model_type {
            TextType::Bert => (512, 2, eps_12()),
            TextType::ClipTextModel => (77, 0, eps_5()),
        };
        Self {
            model_type: fields.model_type,
            vocab_size: fields.vocab_size,
            hidden_size: fields.hidden_size,
            num_hidden_layers: fields.num_hidden_layers,
            num_attention_heads: fields.num_attention_heads,
            intermediate_size: fields.intermediate_size,
            max_position_embeddings: fields.max_position_embeddings.unwrap_or(positions),
            type_vocab_size: fields.type_vocab_size.unwrap_or(types),
            layer_norm_eps: fields.layer_norm_eps.unwrap_or(eps),
        }
    }
}
