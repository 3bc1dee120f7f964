//! Data sets of the Hugging Face hub.

use std::{fmt, str::FromStr};

use laps_align::Protocol;
use laps_hub::registry::{self, Entry};
use serde::Serialize;

/// A data set of the hub, as results name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HubDataSet {
    /// `owner/name`.
    pub id: String,
    /// Its commit, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
}

impl HubDataSet {
    /// The data set of the hub with the images of a published protocol; `None` for drawn scenes and for an entry file, whose
    /// data can be anything.
    pub fn of(entry: &Entry, protocol: Protocol) -> Option<Self> {
        if entry.data.drawn.is_some() || !registry::names().contains(&entry.name.as_str()) {
            return None;
        }
        let id = match protocol {
            Protocol::F30k => "nlphuji/flickr30k",
            Protocol::Coco5k | Protocol::Coco1k => "nlphuji/mscoco_2014_5k_test_image_text_retrieval",
        };
        Some(Self { id: id.to_owned(), revision: None })
    }
}

impl FromStr for HubDataSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (id, revision) = text.split_once('@').map_or((text, None), |(id, revision)| (id, Some(revision)));
        let is_plain = |part: &str| {
            !part.is_empty() && part.bytes().all(|letter| letter.is_ascii_alphanumeric() || b"-_.".contains(&letter))
        };
        let is_commit = |revision: &str| laps_files::is_hex(revision, 40);
        if id.split('/').count() == 2 && id.split('/').all(is_plain) && revision.is_none_or(is_commit) {
            return Ok(Self { id: id.to_owned(), revision: revision.map(str::to_owned) });
        }
        Err("expected OWNER/NAME, or OWNER/NAME@COMMIT with 40 hexadecimal digits".to_owned())
    }
}

impl fmt::Display for HubDataSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::HubDataSet;

    #[test]
    fn data_set_is_a_name_with_an_optional_commit() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let parsed: HubDataSet = format!("someone/flickr30k@{commit}").parse().unwrap();
        assert_eq!((parsed.id.as_str(), parsed.revision.as_deref()), ("someone/flickr30k", Some(commit)));
        for wrong in ["flickr30k", "a/b/c", "a/b@main", "a/ b", "/b", "a/b@"] {
            assert!(wrong.parse::<HubDataSet>().is_err(), "{wrong}");
        }
    }
}
