mod entries;
mod errors;
mod manifest;
mod references;
mod training;

use super::{Entry, Origin, RegistryError};

/// An entry file with every required key.
const CONTRACT: &str = "name: f30k_mini
model:
  image: { model_type: vit, image_size: 224, patch_size: 14, hidden_size: 384, num_hidden_layers: 12, num_attention_heads: 6, intermediate_size: 1536, layer_norm_eps: 1e-6 }   # Hugging Face config.json names; swin: embed_dim, depths, num_heads, window_size, mlp_ratio, ...
  text:  { model_type: bert, vocab_size: 30522, hidden_size: 384, num_hidden_layers: 6, num_attention_heads: 12, intermediate_size: 1536 }
  embed_size: 256
  sparse_ratio: 0.5
  aggr_ratio: 0.4
data: { captions: f30k_mini/captions, images: f30k_mini/images, vocab: tokenizer/vocab.txt, test: test, protocol: f30k }   # relative to --data, or else to this file
references: { }          # optional: published tables to compare with
";

fn read(text: &str) -> Result<Entry, RegistryError> {
    Entry::from_yaml(Origin::File("models/mine.yaml".into()), text)
}

/// The contract with one passage replaced.
fn edited(from: &str, to: &str) -> Result<Entry, RegistryError> {
    assert_eq!(CONTRACT.matches(from).count(), 1, "`{from}` must occur once in the contract");
    read(&CONTRACT.replace(from, to))
}

/// An error as the command prints it: the message, the causes, the hint.
fn printed(error: &RegistryError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text += &format!("\n  cause: {error}");
        cause = error.source();
    }
    if let Some(hint) = error.hint() {
        text += &format!("\nhint: {hint}");
    }
    text
}
