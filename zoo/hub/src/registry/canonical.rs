//! Canonical JSON and hashes of configurations.

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// SHA-256 in lower-case hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// JSON without white space, with object keys in byte order and numbers in their shortest exact form.
///
/// Equal values have the same canonical form, whatever text they were read from.
pub(super) fn canonical(value: &impl Serialize) -> Result<String, serde_json::Error> {
    let mut text = String::new();
    write(&serde_json::to_value(value)?, &mut text)?;
    Ok(text)
}

fn write(value: &Value, text: &mut String) -> Result<(), serde_json::Error> {
    match value {
        Value::Object(object) => {
            let mut entries: Vec<_> = object.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            separated(text, ['{', '}'], entries, |(key, value), text| {
                text.push_str(&serde_json::to_string(key)?);
                text.push(':');
                write(value, text)
            })
        }
        Value::Array(array) => separated(text, ['[', ']'], array, write),
        scalar => {
            text.push_str(&serde_json::to_string(scalar)?);
            Ok(())
        }
    }
}

fn separated<T>(
    text: &mut String,
    [open, close]: [char; 2],
    items: impl IntoIterator<Item = T>,
    mut write: impl FnMut(T, &mut String) -> Result<(), serde_json::Error>,
) -> Result<(), serde_json::Error> {
    text.push(open);
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        write(item, text)?;
    }
    text.push(close);
    Ok(())
}
