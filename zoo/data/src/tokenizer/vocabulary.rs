//! The files of a tokenizer: `vocab.txt` and `tokenizer_config.json` beside it, or `tokenizer.json`, or `vocab.json` and
//! `merges.txt` beside it.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
};

use laps_files::{decode_text, lines, read_regular, strip_mark_bytes};
use serde::{Deserialize, Serialize};

use super::clip::{BytePairs, TokenizerJson};
use crate::DataError;

/// The file beside a vocabulary that says how text is split.
pub const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// How text is split into basic tokens. The names are those of Hugging Face's `tokenizer_config.json`; other keys of such a
/// file are ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenizerConfig {
    /// Whether text is converted to lower case; default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub do_lower_case: Option<bool>,
    /// Whether accents are removed; default as `do_lower_case`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strip_accents: Option<bool>,
    /// Whether each CJK character is a token; default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenize_chinese_chars: Option<bool>,
    /// Whether text is split into basic tokens at all. Only true, the default, is supported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub do_basic_tokenize: Option<bool>,
}

impl TokenizerConfig {
    pub(super) fn lower_case(&self) -> bool {
        self.do_lower_case.unwrap_or(true)
    }

    /// Reads the `tokenizer_config.json` next to the vocabulary at `path`; all defaults if there is none.
    fn read_next_to(path: &Path) -> Result<Self, DataError> {
        let path = path.with_file_name(TOKENIZER_CONFIG);
        let bytes = match read_regular(&path) {
            Ok(bytes) => bytes,
            // Beside a descriptor such as `/dev/fd/63` there is no folder.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(Self::default());
            }
            Err(error) => {
                return Err(io::Error::new(error.kind(), format!("cannot read `{}`: {error}", path.display())).into());
            }
        };
        let invalid = |expected: &str, found: String| DataError::Content {
            path: path.clone(),
            expected: expected.to_owned(),
            found,
        };
        let text = decode_text(bytes).map_err(|error| DataError::not_utf8(&path, error))?;
        let expected = "a JSON object with the settings of a tokenizer";
        let config: Self = serde_json::from_str(&text).map_err(|error| invalid(expected, error.to_string()))?;
        if config.do_basic_tokenize == Some(false) {
            return Err(invalid("`do_basic_tokenize` true, or absent", "false".to_owned()));
        }
        Ok(config)
    }
}

/// The file of the merges beside a `vocab.json`.
const MERGES: &str = "merges.txt";

/// A WordPiece vocabulary and the settings beside it, or the `tokenizer.json` of CLIP.
#[derive(Clone, Debug)]
pub struct Vocabulary {
    /// Path for messages.
    pub path: PathBuf,
    /// Content of the file. A `vocab.json` is turned into a `tokenizer.json` that has the merges as well.
    pub bytes: Vec<u8>,
    /// Settings of the tokenizer.
    pub config: TokenizerConfig,
}

impl Vocabulary {
    /// Reads a WordPiece vocabulary with one token a line, whose ids are the lines, counted from 0, and the
    /// `tokenizer_config.json` beside it if there is one; or a `tokenizer.json` of CLIP; or a `vocab.json` with the
    /// `merges.txt` beside it.
    pub fn read(path: &Path) -> Result<Self, DataError> {
        let mut vocabulary =
            Self { path: path.to_owned(), bytes: fs_err::read(path)?, config: TokenizerConfig::default() };
        if !vocabulary.is_byte_pair() {
            vocabulary.config = TokenizerConfig::read_next_to(path)?;
            return Ok(vocabulary);
        }
        // Programs that read JSON refuse a byte order mark, and this may be exported.
        vocabulary.bytes = vocabulary.without_mark().to_vec();
        if let Ok(vocab) = serde_json::from_slice::<HashMap<String, u32>>(&vocabulary.bytes) {
            let merges_path = path.with_file_name(MERGES);
            let merges = decode_text(fs_err::read(&merges_path)?);
            let merges = merges.map_err(|error| DataError::not_utf8(&merges_path, error))?;
            let merges = lines(&merges).filter(|line| !line.starts_with("#version") && !line.is_empty()).collect();
            let vocab = vocab.into_iter().map(|(token, id)| (token, id.into())).collect();
            let json = TokenizerJson { model: BytePairs { kind: "BPE".to_owned(), vocab, merges } };
            vocabulary.bytes = serde_json::to_vec(&json).map_err(io::Error::from)?;
        }
        Ok(vocabulary)
    }

    /// Whether this is a byte-pair encoding, whose file is JSON, and not a WordPiece vocabulary.
    pub fn is_byte_pair(&self) -> bool {
        self.without_mark().trim_ascii_start().starts_with(b"{")
    }

    /// The content without a byte order mark.
    pub(super) fn without_mark(&self) -> &[u8] {
        strip_mark_bytes(&self.bytes)
    }

    /// Name of a file of this vocabulary.
    pub fn file_name(&self) -> &'static str {
        if self.is_byte_pair() { "tokenizer.json" } else { "vocab.txt" }
    }

    /// The vocabulary with `do_lower_case` in place of what `tokenizer_config.json` says, if it is given.
    pub fn with_lower_case(mut self, do_lower_case: Option<bool>) -> Self {
        self.config.do_lower_case = do_lower_case.or(self.config.do_lower_case);
        self
    }

    /// The id of each token: its line, counted from 0.
    pub(super) fn ids(&self) -> Result<HashMap<String, u32>, DataError> {
        let content = |expected: &str, found: String| DataError::Content {
            path: self.path.clone(),
            expected: expected.to_owned(),
            found,
        };
        let text = decode_text(self.bytes.clone()).map_err(|error| DataError::not_utf8(&self.path, error))?;
        if text.trim().is_empty() {
            return Err(DataError::Empty { path: self.path.clone() });
        }
        let mut ids = HashMap::new();
        for (id, token) in (0..).zip(lines(&text)) {
            if let Some(first) = ids.insert(token.to_owned(), id) {
                return Err(content("each token once", format!("`{token}` in lines {} and {}", first + 1, id + 1)));
            }
        }
        Ok(ids)
    }

    /// Checks that a vocabulary with capital letters says whether text is converted to lower case.
    pub(super) fn check_case(&self, ids: &HashMap<String, u32>) -> Result<(), DataError> {
        let first_cased = ids.iter().filter(|(token, _)| is_cased(token)).min_by_key(|&(_, id)| id);
        match first_cased {
            Some((token, &id)) if self.config.do_lower_case.is_none() => {
                Err(DataError::CasedVocabulary { path: self.path.clone(), line: id as usize + 1, token: token.clone() })
            }
            _ => Ok(()),
        }
    }
}

/// Whether lower case changes a token. Tokens in brackets are special.
fn is_cased(token: &str) -> bool {
    !token.starts_with('[') && token.to_lowercase() != token
}
