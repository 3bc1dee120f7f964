//! The vocabulary of the captions.

use std::collections::BTreeSet;

use super::captions;

/// The first entries, in the order of BERT. `[PAD]` must be 0.
const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
/// Further punctuation, and words that are likely in queries.
const EXTRA_WORDS: [&str; 15] =
    ["!", "'", "-", ":", ";", "?", "an", "beside", "from", "it", "next", "picture", "scene", "shape", "under"];
/// Suffixes, so that plurals and comparatives of known words split into word pieces.
const PIECES: [&str; 4] = ["##ed", "##er", "##es", "##s"];

/// Tokens in the order of their ids: special tokens, then sorted punctuation and words, then word pieces. It does not depend
/// on the configuration.
pub fn vocabulary() -> Vec<&'static str> {
    let said = captions::phrases().flat_map(str::split_whitespace).filter(|word| !word.starts_with('{'));
    let words: BTreeSet<&str> = said.chain(EXTRA_WORDS).collect();
    SPECIAL.into_iter().chain(words).chain(PIECES).collect()
}
