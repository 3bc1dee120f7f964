//! BERT's basic tokenizer: cleaned text, split at white space and punctuation.
//!
//! The order of the steps is that of Hugging Face's `BasicTokenizer` of transformers 4.46, with the Unicode version of
//! Python 3.11. `BertNormalizer` of the crate `tokenizers`, which follows Hugging Face's fast tokenizer, differs in the final
//! sigma, in characters that a Unicode version does not assign, and in normalisation.

use unicode_general_category::{GeneralCategory, get_general_category};
use unicode_normalization::UnicodeNormalization;

use super::TokenizerConfig;

/// The basic tokens of `text`.
pub(super) fn basic_tokens(text: &str, config: &TokenizerConfig) -> Vec<String> {
    let cleaned: String = clean(text, config.tokenize_chinese_chars.unwrap_or(true)).nfc().collect();
    let lower_case = config.lower_case();
    let strip_accents = config.strip_accents.unwrap_or(lower_case);
    let mut tokens = Vec::new();
    for word in cleaned.split_whitespace() {
        let mut word = if lower_case { lowercase(word) } else { word.to_owned() };
        if strip_accents {
            word = word.nfd().filter(|&letter| !is_mark(letter)).collect();
        }
        split_punctuation(&word, &mut tokens);
    }
    tokens
}

/// Removes control and unassigned characters, and puts spaces around CJK characters.
fn clean(text: &str, separate_cjk: bool) -> impl Iterator<Item = char> {
    text.chars()
        .flat_map(move |letter| match letter {
            '\t' | '\n' | '\r' => [Some(' '), None, None],
            '\0' | '\u{fffd}' => [None; 3],
            _ if is_control(letter) => [None; 3],
            _ if separate_cjk && is_cjk(letter) => [Some(' '), Some(letter), Some(' ')],
            _ => [Some(letter), None, None],
        })
        .flatten()
}

/// Splits a word without marks at white space and around each punctuation character.
fn split_punctuation(word: &str, tokens: &mut Vec<String>) {
    let mut starts_token = true;
    for letter in word.chars() {
        if is_punctuation(letter) {
            tokens.push(letter.to_string());
            starts_token = true;
        } else if letter.is_whitespace() {
            starts_token = true;
        } else {
            match tokens.last_mut().filter(|_| !starts_token) {
                Some(token) => token.push(letter),
                None => tokens.push(letter.to_string()),
            }
            starts_token = false;
        }
    }
}

/// Python's `str.lower` of Unicode 14.0.
///
/// Rust follows a later version, in which two of the assigned characters have another property that decides between the
/// forms of sigma: U+0295 is no longer a cased letter, and U+1171E no longer a mark.
fn lowercase(word: &str) -> String {
    const CHANGED: [(char, &str); 2] = [('\u{295}', "a"), ('\u{1171e}', "\u{300}")];
    let lower = word.to_lowercase();
    if !word.contains('Σ') || !word.contains(CHANGED.map(|(letter, _)| letter)) {
        return lower;
    }
    let unchanged = CHANGED.iter().fold(word.to_owned(), |word, &(letter, other)| word.replace(letter, other));
    let unchanged = unchanged.to_lowercase();
    let is_sigma = |letter: &char| matches!(letter, 'σ' | 'ς');
    let mut sigmas = unchanged.chars().filter(is_sigma);
    lower.chars().map(|letter| if is_sigma(&letter) { sigmas.next().unwrap_or(letter) } else { letter }).collect()
}

/// Category C, which contains private use and characters that Unicode 14.0 does not assign.
fn is_control(letter: char) -> bool {
    use GeneralCategory::{Control, Format, PrivateUse, Surrogate, Unassigned};
    matches!(get_general_category(letter), Control | Format | PrivateUse | Surrogate | Unassigned)
}

fn is_mark(letter: char) -> bool {
    get_general_category(letter) == GeneralCategory::NonspacingMark
}

/// All ASCII symbols, and category P.
fn is_punctuation(letter: char) -> bool {
    use GeneralCategory::{
        ClosePunctuation, ConnectorPunctuation, DashPunctuation, FinalPunctuation, InitialPunctuation, OpenPunctuation,
        OtherPunctuation,
    };
    letter.is_ascii_punctuation()
        || matches!(
            get_general_category(letter),
            ClosePunctuation
                | ConnectorPunctuation
                | DashPunctuation
                | FinalPunctuation
                | InitialPunctuation
                | OpenPunctuation
                | OtherPunctuation
        )
}

/// The blocks that BERT treats as CJK ideographs.
fn is_cjk(letter: char) -> bool {
    matches!(u32::from(letter),
        0x4E00..=0x9FFF
        | 0x3400..=0x4DBF
        | 0x20000..=0x2A6DF
        | 0x2A700..=0x2B73F
        | 0x2B740..=0x2B81F
        | 0x2B820..=0x2CEAF
        | 0xF900..=0xFAFF
        | 0x2F800..=0x2FA1F)
}
