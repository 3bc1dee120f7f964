//! Tokens of real and adversarial captions.

use std::{
    collections::HashMap,
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use laps_data::{LongCaptions, Tokenizer};
use tempfile::TempDir;

use crate::real;

#[derive(serde::Deserialize)]
struct ReferenceTokens {
    caption: String,
    ids: Vec<u32>,
}

#[test]
fn tokens_equal_the_reference() {
    let Some(real) = real() else { return };
    let tokenizer = Tokenizer::open(&real.join("tokenizer/vocab.txt")).unwrap();
    let text = fs::read_to_string(real.join("tokenizer/reference.jsonl")).unwrap();
    let references: Vec<ReferenceTokens> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let captions: Vec<String> = references.iter().map(|reference| reference.caption.clone()).collect();
    let tokens = tokenizer.encode_all(&captions, 512).unwrap();

    let wrong: Vec<_> =
        references.iter().zip(&tokens).filter(|(reference, tokens)| reference.ids != **tokens).collect();
    for (reference, tokens) in &wrong {
        println!("{:?}\n  expected: {:?}\n  found: {tokens:?}", reference.caption, reference.ids);
    }
    assert_eq!((references.len(), wrong.len()), (615, 0));

    let special = tokenizer.special();
    let found = [special.padding, special.unknown, special.first, special.last, tokenizer.entries() as u32];
    assert_eq!((found, special.mask), ([0, 100, 101, 102, 30522], Some(103)));
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
fn too_long_captions_are_truncated_and_counted_on_request() {
    let (_folder, path) = vocabulary(SMALL);
    let tokenizer = Tokenizer::open(&path).unwrap().with_long_captions(LongCaptions::Truncate);
    let captions = ["a".to_owned(), "a red".to_owned(), "a a a".to_owned()];
    let special = tokenizer.special();
    assert_eq!(tokenizer.encode_all(&captions, 3).unwrap(), vec![vec![special.first, 5, special.last]; 3]);
    assert_eq!(tokenizer.truncated(), 2);
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

/// The 256 characters that stand for bytes in CLIP's vocabulary, in the order of their ids.
fn byte_characters() -> Vec<char> {
    let own = (33..=126).chain(161..=172).chain(174..=255u32);
    own.chain(256..256 + 68).map(|code| char::from_u32(code).unwrap()).collect()
}

/// Writes `vocab.json` and `merges.txt` of CLIP's form to a folder, and returns the path of the former.
fn byte_pairs(folder: &Path, merges: &[&str]) -> PathBuf {
    let bytes: Vec<String> = byte_characters().into_iter().map(String::from).collect();
    let tokens = bytes.iter().cloned().chain(bytes.iter().map(|byte| format!("{byte}</w>")));
    let tokens = tokens.chain(merges.iter().map(|merge| merge.replace(' ', "")));
    let tokens = tokens.chain(["<|startoftext|>", "<|endoftext|>"].map(str::to_owned));
    let vocabulary: HashMap<String, usize> = tokens.enumerate().map(|(id, token)| (token, id)).collect();
    let path = folder.join("vocab.json");
    fs::write(&path, serde_json::to_string(&vocabulary).unwrap()).unwrap();
    fs::write(folder.join("merges.txt"), format!("#version: 0.2\n{}\n", merges.join("\n"))).unwrap();
    path
}

const MERGES: [&str; 7] = ["d o", "do g</w>", "o g</w>", "a t</w>", "c at</w>", "' s</w>", "r e"];

#[test]
fn clip_merges_the_bytes_of_each_part() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = Tokenizer::open(&byte_pairs(folder.path(), &MERGES)).unwrap();
    let (start, end) = (512 + 7, 512 + 8);
    let special = tokenizer.special();
    assert_eq!((special.first, special.last, special.padding, special.mask), (start, end, end, None));
    assert_eq!(tokenizer.entries(), 521);
    let texts = |caption: &str| {
        let ids = tokenizer.encode(caption).unwrap();
        ids.iter().map(|&id| tokenizer.token(id)).collect::<Vec<_>>().join("|")
    };
    assert_eq!(texts("  A\tDOG's\u{a0}cat42 "), "<|startoftext|>|a|dog|'s|cat|4|2|<|endoftext|>");
    // A merge applies within a word only, that of the lowest rank first.
    assert_eq!(texts("dogs do redo"), "<|startoftext|>|do|g|s|d|o|re|d|o|<|endoftext|>");
    // Two bytes of one letter, also if it is written as a letter and an accent.
    let ids = tokenizer.encode("\u{e9}").unwrap();
    assert_eq!(ids.len(), 4);
    assert_eq!(tokenizer.encode("e\u{301}").unwrap(), ids);
    // Special tokens are recognised in a caption.
    assert_eq!(tokenizer.encode("<|endoftext|>a").unwrap()[..2], [start, end]);
    assert_eq!(tokenizer.pieces("dog cat").unwrap(), [vec![513], vec![516]]);
}

#[test]
fn byte_order_marks_of_clip_vocabularies_are_not_content() {
    let folder = tempfile::tempdir().unwrap();
    let path = byte_pairs(folder.path(), &MERGES);
    let encode = |path: &Path| Tokenizer::open(path).unwrap().encode("a dog's cat").unwrap();
    let plain = encode(&path);
    let whole = folder.path().join("tokenizer.json");
    fs::write(&whole, laps_data::Vocabulary::read(&path).unwrap().bytes).unwrap();
    for path in [&path, &folder.path().join("merges.txt"), &whole] {
        fs::write(path, ["\u{feff}".as_bytes(), &fs::read(path).unwrap()].concat()).unwrap();
    }
    assert_eq!(encode(&path), plain);
    assert_eq!(encode(&whole), plain);
    // The bytes that `export` copies have no byte order mark.
    assert!(laps_data::Vocabulary::read(&whole).unwrap().bytes.starts_with(b"{"));
}

/// `tokenizer.json` in the form that the hub has, and with merges as pairs, as later releases write them.
#[test]
fn clip_tokenizer_json_has_the_tokens_of_vocab_and_merges() {
    let folder = tempfile::tempdir().unwrap();
    let pair = byte_pairs(folder.path(), &MERGES);
    let expected = Tokenizer::open(&pair).unwrap();
    let vocab: serde_json::Value = serde_json::from_slice(&fs::read(&pair).unwrap()).unwrap();
    let as_pairs: Vec<Vec<&str>> = MERGES.iter().map(|merge| merge.split(' ').collect()).collect();
    for merges in [serde_json::json!(MERGES), serde_json::json!(as_pairs)] {
        let special = |id: usize, content: &str| {
            serde_json::json!({
                "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                "special": true,
            })
        };
        let json = serde_json::json!({
            "version": "1.0",
            "truncation": { "direction": "Right", "max_length": 77, "strategy": "LongestFirst", "stride": 0 },
            "padding": null,
            "added_tokens": [special(519, "<|startoftext|>"), special(520, "<|endoftext|>")],
            "normalizer": { "type": "Sequence", "normalizers": [{ "type": "NFC" }, { "type": "Lowercase" }] },
            "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true },
            "post_processor": { "type": "RobertaProcessing", "sep": ["<|endoftext|>", 520], "cls": ["<|startoftext|>", 519] },
            "decoder": null,
            "model": {
                "type": "BPE", "dropout": null, "unk_token": "<|endoftext|>", "continuing_subword_prefix": "",
                "end_of_word_suffix": "</w>", "fuse_unk": false, "vocab": vocab, "merges": merges,
            },
        });
        let path = folder.path().join("tokenizer.json");
        fs::write(&path, json.to_string()).unwrap();
        let tokenizer = Tokenizer::open(&path).unwrap();
        assert_eq!((tokenizer.entries(), tokenizer.special()), (expected.entries(), expected.special()));
        for caption in ["A dog's cat, redo 42!", "  caf\u{e9}\tDOG ", "<|endoftext|> at", "", "\u{72d7}"] {
            assert_eq!(tokenizer.encode(caption).unwrap(), expected.encode(caption).unwrap(), "{caption:?}");
        }
        assert!((0..521).all(|id| tokenizer.token(id) == expected.token(id)));
    }
}

#[test]
fn clip_captions_are_refused_or_cut_before_the_end_token() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Tokenizer::open(&byte_pairs(folder.path(), &MERGES)).unwrap();
    let captions = ["dog ".repeat(100), "dog".to_owned()];
    let refused = open();
    assert_eq!(
        refused.encode_all(&captions, 77).unwrap_err().to_string(),
        "1 of 2 captions cannot be used\n  caption 1: too long: 102 tokens, where 77 are allowed"
    );
    assert_eq!(refused.truncated(), 0);

    let tokenizer = open().with_long_captions(LongCaptions::Truncate);
    let tokens = tokenizer.encode_all(&captions, 77).unwrap();
    assert_eq!((tokens[0].len(), tokens[0][75], tokens[0][76]), (77, 513, 520));
    assert_eq!(tokens[1], [519, 513, 520]);
    assert_eq!(tokenizer.truncated(), 1);
}

#[test]
fn clip_vocabularies_that_cannot_be_used_are_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let open = |text: &str| {
        let path = folder.path().join("tokenizer.json");
        fs::write(&path, text).unwrap();
        let error = Tokenizer::open(&path).err().unwrap().to_string();
        error.lines().skip(1).collect::<Vec<_>>().join("\n")
    };
    insta::assert_snapshot!(open(r#"{"model": {"type": "WordPiece", "vocab": {}, "merges": []}}"#), @r"
      expected: a `model` of the type `BPE`
      found: `WordPiece`
    ");
    insta::assert_snapshot!(open(r#"{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}"#), @r"
      expected: the token `<|startoftext|>`
      found: 1 tokens without it
    ");
    assert!(open(r#"{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}}"#).contains("byte-pair encoding"));
    assert!(open("{").contains("byte-pair encoding"));
    // Without the merges the tokens cannot be found.
    let path = byte_pairs(folder.path(), &MERGES);
    fs::remove_file(folder.path().join("merges.txt")).unwrap();
    assert!(Tokenizer::open(&path).is_err());
}

#[derive(serde::Deserialize)]
struct ClipReference {
    text: String,
    ids: Vec<u32>,
    untruncated_length: Option<usize>,
}

/// The ids of Hugging Face's `CLIPTokenizerFast`, with the merges of the wheel of open_clip.
#[test]
fn clip_tokens_equal_the_reference() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let wheel = root.join(".runtime/clip/open_clip_torch-3.3.0-py3-none-any.whl");
    let references = root.join("../shared/golden/clip_tokens.jsonl");
    if !wheel.exists() || !references.exists() {
        println!("skipped: there is no `{}` or no `{}`", wheel.display(), references.display());
        return;
    }
    let mut archive = zip::ZipArchive::new(fs::File::open(wheel).unwrap()).unwrap();
    let packed = archive.by_name("open_clip/bpe_simple_vocab_16e6.txt.gz").unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(packed).read_to_string(&mut text).unwrap();
    let merges: Vec<&str> = text.lines().skip(1).take(48_894).collect();
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = Tokenizer::open(&byte_pairs(folder.path(), &merges)).unwrap();
    // The reference truncates to 77 tokens.
    let tokenizer = tokenizer.with_long_captions(LongCaptions::Truncate);
    assert_eq!(tokenizer.entries(), 49_408);

    let references = fs::read_to_string(references).unwrap();
    let references: Vec<ClipReference> = references.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut equal = 0;
    for reference in &references {
        let found = tokenizer.encode_all(std::slice::from_ref(&reference.text), 77).unwrap().remove(0);
        let whole = tokenizer.encode(&reference.text).unwrap().len();
        if found == reference.ids && reference.untruncated_length.is_none_or(|length| length == whole) {
            equal += 1;
        } else {
            println!("{:?}\n  expected: {:?}\n  found: {found:?}", reference.text, reference.ids);
        }
    }
    println!("{equal} of {} captions have the ids of the reference", references.len());
    assert_eq!((equal, references.len()), (70, 70));
}
