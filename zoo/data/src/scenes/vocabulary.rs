//! The vocabulary of the captions.

use std::collections::BTreeSet;

use super::captions;

/// The first entries, as BERT orders them; `[PAD]` has to be 0.
const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
/// Punctuation beside that of the captions, and words that people put into queries about such pictures.
const MORE: [&str; 15] =
    ["!", "'", "-", ":", ";", "?", "an", "beside", "from", "it", "next", "picture", "scene", "shape", "under"];
/// Endings, so that plurals and comparatives of known words split into pieces.
const PIECES: [&str; 4] = ["##ed", "##er", "##es", "##s"];

/// Tokens in the order of their ids: special ones, then punctuation, words and pieces, each in ascending order. It does
/// not depend on what is drawn.
pub fn vocabulary() -> Vec<&'static str> {
    let said = captions::phrases().flat_map(str::split_whitespace).filter(|word| !word.starts_with('{'));
    let words: BTreeSet<&str> = said.chain(MORE).collect();
    SPECIAL.into_iter().chain(words).chain(PIECES).collect()
}
