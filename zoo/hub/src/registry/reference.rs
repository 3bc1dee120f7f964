//! The section `references` of an entry: published tables to compare with.
//!
//! It maps the name of a source to a row of `references.yaml` in that source, or to the tables themselves:
//!
//! ```yaml
//! references:
//!   paper: vit_224
//!   our own rerun:
//!     f30k: { i2t: [74.1, 93.2, 97.0], t2i: [62.3, 87.0, 92.4], rsum: 506.0 }
//! ```
//!
//! Other sources can have any name that `references.yaml` does not use. An unknown number is `null`; `rsum` and `status` are
//! optional.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{
        Error, MapAccess, Visitor,
        value::{MapAccessDeserializer, StrDeserializer},
    },
};

use super::{Protocol, PublishedTable, References, RegistryError, Table, document::Document, references::Tables};

/// The value under the name of a source.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Reference {
    /// A row of that source in `references.yaml`.
    Row(String),
    /// The tables themselves.
    Tables(Tables),
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ReferenceVisitor)
    }
}

struct ReferenceVisitor;

impl<'de> Visitor<'de> for ReferenceVisitor {
    type Value = Reference;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a row of references.yaml, or tables by protocol")
    }

    fn visit_str<E: Error>(self, row: &str) -> Result<Reference, E> {
        Ok(Reference::Row(row.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Reference, A::Error> {
        let tables = BTreeMap::<ProtocolKey, Table>::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Reference::Tables(tables.into_iter().map(|(ProtocolKey(protocol), table)| (protocol, table)).collect()))
    }
}

/// A protocol as a key. It is read as a text, because `serde_path_to_error` records only texts in paths.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct ProtocolKey(Protocol);

impl<'de> Deserialize<'de> for ProtocolKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Protocol::deserialize(StrDeserializer::new(&name)).map(Self)
    }
}

/// The tables of the `references` of an entry, for its own protocols only: a row of the paper has the results of a model on
/// every data set.
pub(super) fn resolve(
    document: &Document<'_>,
    references: &BTreeMap<String, Reference>,
    protocols: &[Protocol],
) -> Result<Vec<PublishedTable>, RegistryError> {
    let mut published = Vec::new();
    for (source, reference) in references {
        let tables = match reference {
            Reference::Row(row) => find_row(document, source, row)?,
            Reference::Tables(_) if References::SOURCES.contains(&source.as_str()) => {
                let expected =
                    "the name of a row, because this source is built in; other tables need another source name";
                return Err(document.refuse(&["references", source], expected, "tables"));
            }
            Reference::Tables(tables) => {
                check_tables(document, source, tables, protocols)?;
                tables.clone()
            }
        };
        let count = published.len();
        let table = |&protocol| Some(tables.get(&protocol)?.published(source, protocol));
        published.extend(protocols.iter().filter_map(table));
        if published.len() == count {
            let expected = "tables for a protocol of `data.protocol`";
            return Err(document.refuse(&["references", source], expected, "tables for other protocols only"));
        }
    }
    Ok(published)
}

fn find_row(document: &Document<'_>, source: &str, row: &str) -> Result<Tables, RegistryError> {
    let references = References::embedded()?;
    let Some(rows) = references.rows(source) else {
        return Err(document.refuse_key(&["references"], &References::SOURCES, source));
    };
    match rows.get(row) {
        Some(tables) => Ok(tables.clone()),
        None => {
            let known: Vec<_> = rows.keys().map(String::as_str).collect();
            Err(document.refuse_word(&["references", source], &known, row))
        }
    }
}

fn check_tables(
    document: &Document<'_>,
    source: &str,
    tables: &Tables,
    protocols: &[Protocol],
) -> Result<(), RegistryError> {
    for (protocol, table) in tables {
        if !protocols.contains(protocol) {
            let keys = ["references", source, protocol.name()];
            return Err(document.refuse(&keys, "a protocol of `data.protocol`", format!("`{protocol}`")));
        }
        if let Some((key, expected, found)) = table.problem() {
            return Err(document.refuse(&["references", source, protocol.name(), key], expected, found));
        }
    }
    Ok(())
}
