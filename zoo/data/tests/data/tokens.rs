//! Tokens of real and adversarial captions.

use std::{fs, path::PathBuf};

use laps_data::Tokenizer;
use tempfile::TempDir;

use crate::real;

#[derive(serde::Deserialize)]
struct Reference {
    caption: String,
    ids: Vec<u32>,
}

#[test]
fn tokens_equal_the_reference() {
    let Some(real) = real() else { return };
    let tokenizer = Tokenizer::open(&real.join("tokenizer/vocab.txt")).unwrap();
    let text = fs::read_to_string(real.join("tokenizer/reference.jsonl")).unwrap();
    let references: Vec<Reference> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let captions: Vec<String> = references.iter().map(|reference| reference.caption.clone()).collect();
    let tokens = tokenizer.encode_all(&captions, 512).unwrap();

    let wrong: Vec<_> =
        references.iter().zip(&tokens).filter(|(reference, tokens)| reference.ids != **tokens).collect();
    for (reference, tokens) in &wrong {
        println!("{:?}\n  expected: {:?}\n  found: {tokens:?}", reference.caption, reference.ids);
    }
    assert_eq!((references.len(), wrong.len()), (615, 0));

    let special = tokenizer.special();
    let found =
        [special.padding, special.unknown, special.first, special.last, special.mask, tokenizer.entries() as u32];
    assert_eq!(found, [0, 100, 101, 102, 103, 30522]);
}

fn vocabulary(text: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vocab.txt");
    fs::write(&path, text).unwrap();
    (folder, path)
}

const SMALL: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nred\nsq\n##uare\n##s\n.\n";

#[test]
fn pieces_are_grouped_by_basic_token() {
    let (_folder, path) = vocabulary(SMALL);
    let tokenizer = Tokenizer::open(&path).unwrap();
    let pieces = tokenizer.pieces("A  RÉD squares, [MASK].").unwrap();
    assert_eq!(pieces, [vec![5], vec![6], vec![7, 8, 9], vec![1], vec![1], vec![1], vec![1], vec![10]]);
    assert_eq!(tokenizer.encode(" a red squares ").unwrap(), [2, 5, 6, 7, 8, 9, 3]);
}

#[test]
fn too_long_captions_are_reported_with_their_numbers() {
    let (_folder, path) = vocabulary(SMALL);
    let tokenizer = Tokenizer::open(&path).unwrap();
    let captions = ["a".to_owned(), "a red".to_owned(), "a a a".to_owned()];
    assert_eq!(tokenizer.encode_all(&captions, 5).unwrap().len(), 3);
    let error = tokenizer.encode_all(&captions, 3).unwrap_err();
    assert_eq!(
        error.to_string(),
        "2 of 3 captions cannot be used\n  caption 2: too long: 4 tokens, where 3 are allowed\n  \
         caption 3: too long: 5 tokens, where 3 are allowed"
    );
}

#[test]
fn invalid_vocabulary_is_rejected() {
    let words = |text: &str| {
        let (_folder, path) = vocabulary(text);
        let error = Tokenizer::open(&path).err().unwrap().to_string();
        error.replace(&path.display().to_string(), "VOCAB")
    };
    assert_eq!(words(" \n"), "`VOCAB` is empty");
    assert_eq!(
        words(&SMALL.replace("[SEP]", "[SEPARATOR]")),
        "`VOCAB` cannot be used\n  expected: the token `[SEP]`\n  found: 11 tokens without it"
    );
    assert_eq!(
        words(&format!("{SMALL}red\n")),
        "`VOCAB` cannot be used\n  expected: each token once\n  found: `red` in lines 7 and 12"
    );
    assert_eq!(words(&format!("a{}", SMALL.replace("\na", ""))).lines().next(), Some("`VOCAB` cannot be used"));
    assert_eq!(
        words(&format!("first\n{SMALL}")),
        "`VOCAB` cannot be used\n  expected: `[PAD]` in the first line\n  found: it in line 2"
    );

    let (_folder, path) = vocabulary(SMALL);
    let tokenizer = Tokenizer::open(&path).unwrap();
    assert!(tokenizer.check_fits(11).is_ok());
    for size in [10, 12] {
        let error = tokenizer.check_fits(size).unwrap_err().to_string();
        let end = format!("expected: {size} tokens, the `vocab_size` of the model\n  found: 11 tokens");
        assert!(error.ends_with(&end), "{error}");
    }
    assert!(Tokenizer::open(&path.with_extension("none")).is_err());
}

#[test]
fn cased_vocabulary_needs_do_lower_case() {
    let (folder, path) = vocabulary(&format!("\u{feff}{SMALL}Dog\n"));
    let error = Tokenizer::open(&path).err().unwrap();
    assert_eq!(
        error.to_string().replace(&path.display().to_string(), "VOCAB"),
        "`VOCAB` has capital letters, as in line 12\n  expected: a vocabulary in lower case, or `do_lower_case` for a cased \
         one\n  found: `Dog`"
    );
    let pieces = |config: &str| {
        fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
        Tokenizer::open(&path).map(|tokenizer| tokenizer.pieces("Dog a").unwrap()).map_err(|error| error.to_string())
    };
    assert_eq!(pieces(r#"{"do_lower_case": false, "tokenizer_class": "BertTokenizer"}"#), Ok(vec![vec![11], vec![5]]));
    assert_eq!(pieces("\u{feff}{\"do_lower_case\": true}"), Ok(vec![vec![1], vec![5]]));
    assert!(pieces(r#"{"do_basic_tokenize": false}"#).unwrap_err().contains("`do_basic_tokenize` true, or absent"));
    assert!(pieces("{").unwrap_err().contains("tokenizer_config.json` cannot be used"));
}
