//! Comparison with transformers 4.46, see `tests/data/tokenizer/make.py`.

use std::{
    collections::BTreeMap,
    io::{Cursor, Read},
};

use laps_files::sha256;
use tokenizers::{
    NormalizedString, Normalizer as _, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _,
    normalizers::BertNormalizer, pre_tokenizers::bert::BertPreTokenizer,
};
use unicode_general_category::{GeneralCategory, get_general_category};
use unicode_normalization::UnicodeNormalization;

use super::*;

/// Code points per hash.
const BLOCK: usize = 1024;

fn reference(name: &str) -> String {
    let bytes = include_bytes!("../../tests/data/tokenizer/reference.zip");
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
    let mut text = String::new();
    archive.by_name(name).unwrap().read_to_string(&mut text).unwrap();
    text
}

fn config(do_lower_case: Option<bool>) -> TokenizerConfig {
    TokenizerConfig { do_lower_case, ..TokenizerConfig::default() }
}

/// Tokenizers of the drawn vocabulary that convert to lower case and that do not.
fn tokenizers() -> [Tokenizer; 2] {
    [true, false].map(|lower| {
        let bytes = reference("vocab.txt").into_bytes();
        Tokenizer::new(&Vocabulary { path: "vocab.txt".into(), bytes, config: config(Some(lower)) }).unwrap()
    })
}

/// The generated strings, each with its ids in lower case and as it is.
fn strings() -> Vec<(String, Vec<u32>, Vec<u32>)> {
    reference("strings.jsonl").split_terminator('\n').map(|row| serde_json::from_str(row).unwrap()).collect()
}

#[test]
fn generated_strings_have_the_ids_of_the_reference() {
    let tokenizers = tokenizers();
    let mut count = 0;
    let mut wrong = Vec::new();
    for (text, uncased, cased) in strings() {
        count += 1;
        let found = tokenizers.each_ref().map(|tokenizer| tokenizer.encode(&text).unwrap());
        if found != [uncased.clone(), cased.clone()] {
            wrong.push(format!("{text:?}\n  expected: {uncased:?} {cased:?}\n  found: {found:?}"));
        }
    }
    assert_eq!((count, wrong.len()), (6000, 0), "{}", wrong[..wrong.len().min(10)].join("\n"));
}

#[test]
fn every_code_point_is_treated_as_by_the_reference() {
    let settings = [
        ("uncased", config(None)),
        ("cased", config(Some(false))),
        ("keep_accents", TokenizerConfig { strip_accents: Some(false), ..config(None) }),
        ("cased_no_accents", TokenizerConfig { strip_accents: Some(true), ..config(Some(false)) }),
        ("no_cjk", TokenizerConfig { tokenize_chinese_chars: Some(false), ..config(None) }),
    ];
    let expected: BTreeMap<String, BTreeMap<usize, String>> =
        serde_json::from_str(&reference("code_points.json")).unwrap();
    assert_eq!(expected.len(), settings.len());
    let mut code_points = 0;
    for (name, config) in settings {
        let hash = |block: usize| {
            let mut bytes = Vec::new();
            for letter in (block * BLOCK..(block + 1) * BLOCK).filter_map(|code| char::from_u32(code as u32)) {
                for token in basic_tokens(&format!("a{letter}b ΑΣ{letter}Α Α{letter}Σ"), &config) {
                    bytes.extend_from_slice(token.as_bytes());
                    bytes.push(0);
                }
                bytes.push(b'\n');
            }
            laps_files::hex(&sha256(&bytes)[..8])
        };
        let blocks: Vec<(&usize, &String)> = expected[name].iter().collect();
        code_points += blocks.len() * BLOCK;
        let wrong: Vec<String> = blocks
            .par_iter()
            .filter(|&&(&block, expected)| hash(block) != *expected)
            .map(|(block, _)| format!("U+{:04X}", *block * BLOCK))
            .collect();
        assert!(wrong.is_empty(), "{name}: blocks of {BLOCK} code points from {wrong:?}");
    }
    assert_eq!(code_points, (2 * 201 + 3 * 24) * BLOCK);
}

/// The basic tokens of the crate `tokenizers` itself, which follows Hugging Face's fast tokenizer.
fn tokens_of_the_crate(text: &str, lower_case: bool) -> Vec<String> {
    let mut normalized = NormalizedString::from(text);
    BertNormalizer::new(true, true, None, lower_case).normalize(&mut normalized).unwrap();
    let mut words = PreTokenizedString::from(normalized);
    BertPreTokenizer.pre_tokenize(&mut words).unwrap();
    let splits = words.get_splits(OffsetReferential::Original, OffsetType::Byte);
    splits.into_iter().map(|(word, ..)| word.to_owned()).collect()
}

/// Why the tokens of the crate differ from those of the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum TokenDifference {
    /// A character that Unicode 14.0 does not assign. The reference removes it, the crate keeps it.
    Unassigned,
    /// A character that Unicode 14.0 has as a mark or as punctuation and the older version of the crate does not, or the
    /// reverse, or an ideograph from U+2B820 to U+2B91F, which the crate does not separate.
    Category,
    /// A final sigma, for which the crate has the form inside of a word.
    FinalSigma,
    /// Text that is not in the normalisation form NFC. The reference composes it, the crate does not.
    NotComposed,
}

impl TokenDifference {
    /// The first reason that applies to a text.
    fn find(text: &str, lower_case: bool) -> Option<Self> {
        let config = config(Some(lower_case));
        let composed =
            |tokens: Vec<String>| -> Vec<String> { tokens.into_iter().map(|token| token.nfc().collect()).collect() };
        let has_other_category = |letter: char| {
            let text = format!("a{letter}b");
            composed(basic_tokens(&text, &config)) != composed(tokens_of_the_crate(&text, lower_case))
        };
        // Without the characters that both remove, its neighbours can be composed.
        let is_space =
            |letter| "\t\n\r".contains(letter) || get_general_category(letter) == GeneralCategory::SpaceSeparator;
        let is_kept = |&letter: &char| is_space(letter) || !basic_tokens(&letter.to_string(), &config).is_empty();
        let kept: String = text.chars().filter(is_kept).collect();
        if text.chars().any(|letter| get_general_category(letter) == GeneralCategory::Unassigned) {
            Some(Self::Unassigned)
        } else if text.chars().any(has_other_category) {
            Some(Self::Category)
        } else if lower_case && text.contains('Σ') {
            Some(Self::FinalSigma)
        } else if !lower_case && kept.nfc().ne(kept.chars()) {
            Some(Self::NotComposed)
        } else {
            None
        }
    }
}

/// The numbers are those of the Python package `tokenizers` 0.22.2 too.
#[test]
fn tokens_of_the_crate_differ_from_the_reference_for_known_reasons() {
    let mut counts: BTreeMap<Option<TokenDifference>, [usize; 2]> = BTreeMap::new();
    for (side, (tokenizer, lower_case)) in tokenizers().iter().zip([true, false]).enumerate() {
        let TokenizerModel::Bert { word_piece, .. } = &tokenizer.model else { panic!("a WordPiece vocabulary") };
        for (text, uncased, cased) in strings() {
            let words = tokens_of_the_crate(&text, lower_case).into_iter();
            let pieces = words.flat_map(|word| word_piece.tokenize(&word).unwrap()).map(|token| token.id);
            let special = tokenizer.special();
            let found: Vec<u32> = std::iter::once(special.first).chain(pieces).chain([special.last]).collect();
            let expected = if lower_case { uncased } else { cased };
            let difference = (found != expected).then(|| TokenDifference::find(&text, lower_case));
            let difference = difference.map(|reason| reason.unwrap_or_else(|| panic!("{text:?}: no known reason")));
            counts.entry(difference).or_default()[side] += 1;
        }
    }
    let expected = [
        (None, [4813, 4911]),
        (Some(TokenDifference::Unassigned), [784, 763]),
        (Some(TokenDifference::Category), [182, 28]),
        (Some(TokenDifference::FinalSigma), [221, 0]),
        (Some(TokenDifference::NotComposed), [0, 298]),
    ];
    assert_eq!(counts, BTreeMap::from(expected));
}
