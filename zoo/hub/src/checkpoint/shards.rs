//! Models in several files, as Hugging Face stores large ones: shards, and a list of the shard that each tensor is in.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
};

use fs_err::File;
use laps_files::{IoError, decode_text, is_file_name, read_regular};
use serde::{Deserialize, Deserializer, de};

use super::{Checkpoint, CheckpointError, Format, Skipped, file::CheckpointFile, stored::Contents};

/// Names of the lists.
pub(super) const LISTS: [&str; 2] = ["model.safetensors.index.json", "pytorch_model.bin.index.json"];

/// Maximum number of names in a message.
const LISTED: usize = 8;

/// A list of shards. Other keys, such as `metadata`, are ignored.
#[derive(Deserialize)]
struct ShardList {
    /// The file of each tensor.
    #[serde(deserialize_with = "unique")]
    weight_map: BTreeMap<String, String>,
}

/// Opens the model that the list at `path` describes. Its shards are beside the list.
///
/// # Errors
/// [`CheckpointError::Shards`] for a list that cannot be used or does not fit its shards; the errors of the shards.
pub(super) fn open(path: &Path) -> Result<Checkpoint, CheckpointError> {
    let refuse = |expected: &str, found: String| CheckpointError::Shards {
        path: path.to_owned(),
        expected: expected.to_owned(),
        found,
    };
    let bytes = read_regular(path).map_err(|source| CheckpointError::Io(IoError::new("read", path, source)))?;
    let list = CheckpointFile::memory(path, &bytes);
    let json = "a JSON object with `weight_map`, from tensor to file";
    let text = decode_text(bytes).map_err(|error| refuse(json, error.to_string()))?;
    let ShardList { weight_map } = serde_json::from_str(&text).map_err(|error| refuse(json, error.to_string()))?;

    let names: BTreeSet<&String> = weight_map.values().collect();
    if names.is_empty() {
        return Err(refuse("a shard", "none".to_owned()));
    }
    if let Some(name) = names.iter().find(|name| !is_file_name(name)) {
        return Err(refuse("names of files beside the list", format!("`{}`", name.escape_debug())));
    }
    let shards: Vec<(&String, PathBuf)> = names.into_iter().map(|name| (name, path.with_file_name(name))).collect();
    let missing = shards.iter().filter(|(_, path)| !path.is_file()).map(|(name, _)| name.as_str());
    if let Some(missing) = quoted(missing) {
        return Err(refuse("every shard beside the list", format!("no {missing}")));
    }

    let mut files = vec![list];
    let mut format = None;
    let mut whole = Contents::default();
    let mut shard_of: BTreeMap<String, &str> = BTreeMap::new();
    for (name, path) in &shards {
        let file = File::open(path).map_err(|source| CheckpointError::Io(IoError::new("read", path, source)))?;
        let (file, shard_format, contents) = super::read_contents(path, file)?;
        if *format.get_or_insert(shard_format) != shard_format {
            return Err(refuse("shards of one format", format!("`{name}` of another than those before it")));
        }
        files.push(file);
        for (tensor, stored) in contents.tensors {
            if let Some(first) = shard_of.insert(tensor.clone(), name) {
                return Err(refuse("each tensor in one shard", format!("`{tensor}` in `{first}` and `{name}`")));
            }
            whole.tensors.insert(tensor, stored);
        }
        let in_shard = |skipped: Skipped| Skipped { name: format!("{} in `{name}`", skipped.name), ..skipped };
        whole.skipped.extend(contents.skipped.into_iter().map(in_shard));
        whole.outside += contents.outside;
    }
    let is_absent = |(tensor, shard): &(&String, &String)| shard_of.get(*tensor) != Some(&shard.as_str());
    let absent = weight_map.iter().filter(is_absent).map(|(tensor, _)| tensor.as_str());
    if let Some(absent) = quoted(absent) {
        return Err(refuse("every tensor in the shard that the list names", format!("no {absent} in it")));
    }
    Checkpoint::assemble(path.to_owned(), files, format.unwrap_or(Format::SafeTensors), whole)
}

/// The first names, and the number of the others; None without names.
fn quoted<'a>(names: impl Iterator<Item = &'a str>) -> Option<String> {
    let names: Vec<&str> = names.collect();
    let mut text = names.iter().take(LISTED).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if names.len() > LISTED {
        text += &format!(" and {} more", names.len() - LISTED);
    }
    (!names.is_empty()).then_some(text)
}

/// A map whose keys differ.
fn unique<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    deserializer.deserialize_map(UniqueVisitor)
}

struct UniqueVisitor;

impl<'de> de::Visitor<'de> for UniqueVisitor {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a map from tensor to file")
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = BTreeMap::new();
        while let Some((tensor, file)) = map.next_entry::<String, String>()? {
            if entries.contains_key(&tensor) {
                return Err(de::Error::custom(format_args!("`{tensor}` twice")));
            }
            entries.insert(tensor, file);
        }
        Ok(entries)
    }
}
