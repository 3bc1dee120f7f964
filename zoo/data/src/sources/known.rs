//! Known splits and known traps of published data sets.

use std::collections::BTreeMap;

use laps_files::sha256_hex;
use serde::{Deserialize, Serialize};

use crate::{Split, SplitSize};

/// Hashes of the ids of a published split, as far as they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownIds {
    /// SHA-256 of the distinct ids, sorted as texts, each with a line break.
    pub ids_sha256: Option<String>,
    /// SHA-256 of the distinct ids in the order of the split, each with a line break.
    pub ordered_ids_sha256: Option<String>,
    /// SHA-256 of the authors' file of ids: the ids in the order of the split, each once or five times, with a line break
    /// each.
    #[serde(default)]
    pub id_file_sha256: Option<String>,
}

/// How the images of a split relate to those of a published one.
enum SameImages {
    InOrder,
    InAnotherOrder,
}

impl KnownIds {
    /// The hashes of the ids of `split`. The file has each id `per_image` times.
    pub fn of(split: &Split, per_image: usize) -> Self {
        let ids: Vec<&str> = split.images().iter().map(|image| image.id.as_str()).collect();
        let mut sorted = ids.clone();
        sorted.sort_unstable();
        let hash = |ids: &[&str], times: usize| {
            let lines = ids.iter().flat_map(|id| std::iter::repeat_n([id, "\n"], times).flatten());
            Some(sha256_hex(lines.collect::<String>().as_bytes()))
        };
        Self { ids_sha256: hash(&sorted, 1), ordered_ids_sha256: hash(&ids, 1), id_file_sha256: hash(&ids, per_image) }
    }

    /// `once` and `five` are the hashes of a split whose file has each id once and five times.
    fn compare(&self, [once, five]: &[Self; 2]) -> Option<SameImages> {
        let is = |known: &Option<String>, found: &Option<String>| known.is_some() && known == found;
        let in_order = is(&self.ordered_ids_sha256, &once.ordered_ids_sha256)
            || is(&self.id_file_sha256, &once.id_file_sha256)
            || is(&self.id_file_sha256, &five.id_file_sha256);
        match in_order {
            true => Some(SameImages::InOrder),
            false => is(&self.ids_sha256, &once.ids_sha256).then_some(SameImages::InAnotherOrder),
        }
    }
}

/// The published splits of this size, in words. Several may have it, so that it does not say which split it is. `known` are
/// the sizes by data set and name.
pub fn same_size(size: SplitSize, known: &BTreeMap<String, BTreeMap<String, SplitSize>>) -> Option<String> {
    let mut names = Vec::new();
    for (set, splits) in known {
        let same = splits.iter().filter(|&(_, known)| *known == size);
        names.extend(same.map(|(name, _)| format!("`{set}` `{name}`")));
    }
    let SplitSize { images, captions } = size;
    let of = names.join(" and of ");
    (!names.is_empty()).then(|| format!("the size is that of {of}: {images} images and {captions} captions"))
}

/// Notes on unusual properties of `split`, where `known` are the ids of the published splits by data set and name.
pub fn traps(split: &Split, known: &BTreeMap<String, BTreeMap<String, KnownIds>>) -> Vec<String> {
    let mut notes = Vec::new();
    let found = [1, 5].map(|per_image| KnownIds::of(split, per_image));
    for (set, splits) in known {
        for (name, ids) in splits {
            notes.extend(ids.compare(&found).map(|same| match same {
                SameImages::InOrder => format!("the images are those of `{set}` `{name}`, in the published order"),
                SameImages::InAnotherOrder => format!(
                    "the images are those of `{set}` `{name}`, in another order: the folds of `coco_1k` have other images"
                ),
            }));
        }
    }
    let mut captions = vec![0; split.images().len()];
    split.image_of().iter().for_each(|&image| captions[image] += 1);
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    captions.into_iter().for_each(|count| *counts.entry(count).or_default() += 1);
    let usual = counts.iter().max_by_key(|&(_, images)| images).map_or(0, |(&count, _)| count);
    for (&count, &images) in counts.iter().filter(|&(&count, _)| usual == 5 && count != 5) {
        notes.push(format!("images with {count} instead of 5 captions: {images}"));
    }
    let size = SplitSize { images: split.images().len(), captions: split.captions().len() };
    notes.extend(caption_trap(size).map(str::to_owned));
    notes
}

/// Traps that the sizes of the splits of a data set show.
pub(super) fn count_traps(splits: &BTreeMap<String, SplitSize>) -> Vec<String> {
    let mut notes = Vec::new();
    if let (1, Some((name, size))) = (splits.len(), splits.first_key_value()) {
        let whole = match size.images {
            31_014 => Some("the training, validation and test images of Flickr30K"),
            31_783 => Some("all images of Flickr30K, which no published split has"),
            123_287 => Some("the training, validation and test images of COCO"),
            _ => None,
        };
        notes.extend(whole.map(|whole| {
            format!(
                "all {} images are in the split `{name}`: they are {whole}, and recalls in all of them cannot be compared \
                 with published ones; give a list of splits",
                size.images
            )
        }));
    }
    notes
}

/// The file that a number of captions of the test split of COCO points to.
fn caption_trap(size: SplitSize) -> Option<&'static str> {
    match (size.images, size.captions) {
        (5000, 24_809) => Some(
            "24,809 captions instead of the 25,000 of the published protocol: captions are missing, as in copies without \
             repeated texts, and recalls cannot be compared",
        ),
        (5000, 25_010) => Some(
            "25,010 captions instead of the 25,000 of the published protocol: all captions are there, also the sixth and \
             seventh ones of some images, and recalls cannot be compared",
        ),
        _ => None,
    }
}
