//! Files of metadata.

use std::path::Path;

use laps_search::Result;
use serde_json::Value;

use crate::{Error, writer::Metadata};

/// Reads metadata: a JSON object on each line, whose `name` is the name of an item. All fields are stored.
///
/// # Errors
/// [`Error::Metadata`], and [`laps_search::Error::Data`] for a file that cannot be read as text.
pub fn read_metadata(path: &Path) -> Result<Metadata> {
    let mut metadata = Metadata::new();
    for (line, text) in (1..).zip(laps_data::rows(path)?).filter(|(_, text)| !text.is_empty()) {
        let invalid = |found: String| Error::Metadata { path: path.to_owned(), line, found };
        let fields = match serde_json::from_str(&text) {
            Ok(Value::Object(fields)) => fields,
            Ok(_) => return Err(invalid("another value".to_owned()).into()),
            Err(error) => return Err(invalid(error.to_string()).into()),
        };
        if text.contains("\\u0000") {
            return Err(invalid("the character U+0000, which Postgres cannot store".to_owned()).into());
        }
        let Some(name) = fields.get("name").and_then(Value::as_str).map(str::to_owned) else {
            return Err(invalid("an object without `name`".to_owned()).into());
        };
        if metadata.insert(name.clone(), fields).is_some() {
            return Err(invalid(format!("`{name}` a second time")).into());
        }
    }
    Ok(metadata)
}
