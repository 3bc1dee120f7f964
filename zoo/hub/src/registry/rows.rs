//! Entries that are written as rows of one file: each names the parts that it shares with others, and its own keys.
//!
//! ```yaml
//! parts:
//!   f30k: { data: { captions: f30k/captions, images: f30k/images } }
//! rows:
//!   f30k_clip_b16: { parts: [f30k, clip_b16], data: { vocab: clip-vit-base-patch16/tokenizer.json } }
//! ```
//!
//! A row becomes the flat text of an entry file when the registry is read. Mappings are merged key by key, in the order of the
//! parts; the row's own keys come last and win.

use serde::Deserialize;
use serde_yaml::{Mapping, Value};

use super::{Origin, RegistryError, document::Document};

/// Name of the file.
const FILE: &str = "rows.yaml";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RowsFile {
    parts: Mapping,
    rows: Mapping,
}

/// Name and flat text of each entry of the rows in `text`, in their order.
///
/// # Errors
/// A row without `parts`, and a part that does not exist.
pub(super) fn expand(text: &str) -> Result<Vec<(String, String)>, RegistryError> {
    let document = Document { origin: &Origin::BuiltIn(FILE), text };
    let RowsFile { parts, rows } = document.read()?;
    rows.into_iter()
        .map(|(name, row)| {
            let name = name.as_str().unwrap_or_default().to_owned();
            let (Value::Mapping(mut own), path) = (row, ["rows", name.as_str()]) else {
                return Err(document.refuse(&["rows"], "a mapping", "another value"));
            };
            let shared = own.remove("parts");
            let Some(shared) = shared.as_ref().and_then(Value::as_sequence) else {
                return Err(document.refuse(&path, "a list `parts`", "none"));
            };
            let mut entry = Mapping::from_iter([("name".into(), name.as_str().into())]);
            for part in shared {
                let part = part.as_str().unwrap_or_default();
                let Some(Value::Mapping(keys)) = parts.get(part) else {
                    let known: Vec<&str> = parts.keys().filter_map(Value::as_str).collect();
                    return Err(document.refuse_word(&["rows", &name, "parts"], &known, part));
                };
                merge(&mut entry, keys.clone());
            }
            merge(&mut entry, own);
            let text = serde_yaml::to_string(&entry);
            let text = text.map_err(|source| RegistryError::Yaml { origin: Origin::BuiltIn(FILE), source })?;
            Ok((name, text))
        })
        .collect()
}

/// Puts the keys of `from` into `target`. Mappings under one key are merged, other values replaced.
fn merge(target: &mut Mapping, from: Mapping) {
    for (key, value) in from {
        match (target.get_mut(&key), value) {
            (Some(Value::Mapping(target)), Value::Mapping(from)) => merge(target, from),
            (_, value) => {
                target.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::expand;

    const PARTS: &str = "parts: { a: { data: { x: 1, y: [1] } }, b: { data: { y: [2] }, model: { z: 1e-5 } } }\n";

    fn error(rows: &str) -> String {
        expand(&format!("{PARTS}{rows}")).unwrap_err().to_string()
    }

    #[test]
    fn rows_are_merged_key_by_key() {
        let entries =
            expand(&format!("{PARTS}rows: {{ one: {{ parts: [a, b], data: {{ w: t }} }}, two: {{ parts: [] }} }}"));
        let entries = entries.unwrap();
        let yaml: serde_yaml::Value = serde_yaml::from_str(&entries[0].1).unwrap();
        let expected = "{ name: one, data: { x: 1, y: [2], w: t }, model: { z: 0.00001 } }";
        assert_eq!(yaml, serde_yaml::from_str::<serde_yaml::Value>(expected).unwrap());
        assert_eq!(entries[1], ("two".to_owned(), "name: two\n".to_owned()));
    }

    #[test]
    fn invalid_rows_are_rejected() {
        assert!(error("rows: { one: { parts: [a, c] } }").contains("rows.one.parts"));
        assert!(error("rows: { one: { data: 1 } }").contains("a list `parts`"));
        assert!(error("rows: { one: 1 }").contains("a mapping"));
        assert!(error("row: { }").contains("row"));
    }
}
