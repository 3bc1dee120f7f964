//! Comparison with transformers 4.46, see `tests/data/tokenizer/make.py`.

use std::{
    collections::BTreeMap,
    io::{Cursor, Read},
};

use laps_files::sha256;

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

#[test]
fn generated_strings_have_the_ids_of_the_reference() {
    let tokenizers = [true, false].map(|lower| {
        let bytes = reference("vocab.txt").into_bytes();
        Tokenizer::new(&Vocabulary { path: "vocab.txt".into(), bytes, config: config(Some(lower)) }).unwrap()
    });
    let mut count = 0;
    let mut wrong = Vec::new();
    for row in reference("strings.jsonl").split_terminator('\n') {
        let (text, uncased, cased): (String, Vec<u32>, Vec<u32>) = serde_json::from_str(row).unwrap();
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
