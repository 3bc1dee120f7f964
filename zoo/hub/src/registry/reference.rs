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
//! A source of one's own can have any other name than those of `references.yaml`. A number that is not known is `null`;
//! `rsum` and `status` can be left out.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::{Protocol, PublishedTable, References, RegistryError, document::Document, references::Tables};

/// What an entry says under the name of a source.
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
        Tables::deserialize(MapAccessDeserializer::new(map)).map(Reference::Tables)
    }
}

/// The tables that the `references` of an entry stand for, restricted to its own protocols: a row of the paper has the
/// results of a model for each data set.
pub(super) fn resolve(
    document: &Document<'_>,
    references: &BTreeMap<String, Reference>,
    protocols: &[Protocol],
) -> Result<Vec<PublishedTable>, RegistryError> {
    let mut published = Vec::new();
    for (source, reference) in references {
        let tables = match reference {
            Reference::Row(row) => row_of(document, source, row)?,
            Reference::Tables(_) if References::SOURCES.contains(&source.as_str()) => {
                let expected = "the name of a row, as the tables of this source are known; others need another name";
                return Err(document.refuse(&["references", source], expected, "tables"));
            }
            Reference::Tables(tables) => {
                check_tables(document, source, tables, protocols)?;
                tables.clone()
            }
        };
        let before = published.len();
        published
            .extend(protocols.iter().filter_map(|&protocol| Some(tables.get(&protocol)?.published(source, protocol))));
        if published.len() == before {
            let expected = "tables for a protocol of `data.protocol`";
            return Err(document.refuse(&["references", source], expected, "tables for other protocols only"));
        }
    }
    Ok(published)
}

fn row_of(document: &Document<'_>, source: &str, row: &str) -> Result<Tables, RegistryError> {
    let references = References::embedded()?;
    let Some(rows) = references.rows(source) else {
        return Err(document.refuse_key(&["references"], &References::SOURCES, source));
    };
    match rows.get(row) {
        Some(&tables) => Ok(tables.clone()),
        None => {
            let known: Vec<_> = rows.into_keys().collect();
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
        if let Some((key, expected, found)) = table.fault() {
            return Err(document.refuse(&["references", source, protocol.name(), key], expected, found));
        }
    }
    Ok(())
}
