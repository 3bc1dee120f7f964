//! Captions to token ids: BERT's basic tokenizer, then WordPiece on each basic token.
//!
//! The two steps are separate because training drops, masks and replaces whole basic tokens. A special token that is written
//! in a caption, such as `[MASK]`, is treated as text.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use tokenizers::{
    Model, NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
    models::wordpiece::WordPiece, normalizers::BertNormalizer, pre_tokenizers::bert::BertPreTokenizer,
};

use super::DataError;

/// Maximum length of a basic token in characters. Longer ones become `[UNK]`.
const MAX_WORD_CHARS: usize = 100;

/// The tokenizer of uncased BERT: lower case, without accents.
pub struct Tokenizer {
    path: PathBuf,
    normalizer: BertNormalizer,
    model: WordPiece,
    entries: usize,
    special: SpecialTokens,
}

/// Ids of the special tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpecialTokens {
    /// `[PAD]`, always 0.
    pub padding: u32,
    /// `[UNK]`
    pub unknown: u32,
    /// `[CLS]`
    pub first: u32,
    /// `[SEP]`
    pub last: u32,
    /// `[MASK]`
    pub mask: u32,
}

impl Tokenizer {
    /// Reads a `vocab.txt`: one token per line. The id of a token is its line, counted from 0.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        Self::read(path, fs_err::read(path)?)
    }

    /// Parses the contents of a `vocab.txt`. `path` is used in messages.
    pub fn read(path: &Path, bytes: Vec<u8>) -> Result<Self, DataError> {
        let content = |expected: &str, found: String| DataError::Content {
            path: path.to_owned(),
            expected: expected.to_owned(),
            found,
        };
        let text =
            String::from_utf8(bytes).map_err(|error| content("text in UTF-8", error.utf8_error().to_string()))?;
        if text.trim().is_empty() {
            return Err(DataError::Empty { path: path.to_owned() });
        }
        let vocabulary = WordPiece::read_bytes(text.as_bytes()).map_err(tokenizer)?;
        for (row, token) in (0..).zip(text.lines()) {
            if let Some(&last) = vocabulary.get(token.trim_end())
                && last != row
            {
                return Err(content("each token once", format!("`{token}` in rows {} and {}", row + 1, last + 1)));
            }
        }
        let entries = vocabulary.len();
        let find = |token: &str| {
            let id = vocabulary.get(token).copied();
            id.ok_or_else(|| content(&format!("the token `{token}`"), format!("{entries} tokens without it")))
        };
        let special = SpecialTokens {
            padding: find("[PAD]")?,
            unknown: find("[UNK]")?,
            first: find("[CLS]")?,
            last: find("[SEP]")?,
            mask: find("[MASK]")?,
        };
        if special.padding != 0 {
            return Err(content("`[PAD]` in the first row", format!("it in row {}", special.padding + 1)));
        }
        let model = WordPiece::builder()
            .vocab(vocabulary)
            .unk_token("[UNK]".to_owned())
            .continuing_subword_prefix("##".to_owned())
            .max_input_chars_per_word(MAX_WORD_CHARS)
            .build()
            .map_err(tokenizer)?;
        let normalizer = BertNormalizer::new(true, true, Some(true), true);
        Ok(Self { path: path.to_owned(), normalizer, model, entries, special })
    }

    /// Size of the vocabulary.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// Ids of the special tokens.
    pub fn special(&self) -> SpecialTokens {
        self.special
    }

    /// Checks that every id is below a model's `vocab_size`.
    pub fn check_fits(&self, vocab_size: usize) -> Result<(), DataError> {
        if self.entries > vocab_size {
            return Err(DataError::VocabularySize {
                path: self.path.clone(),
                entries: self.entries,
                limit: vocab_size,
            });
        }
        Ok(())
    }

    /// The word pieces of each basic token of `caption`, without `[CLS]` and `[SEP]`.
    pub fn pieces(&self, caption: &str) -> Result<Vec<Vec<u32>>, DataError> {
        let mut normalized = NormalizedString::from(caption);
        self.normalizer.normalize(&mut normalized).map_err(tokenizer)?;
        let mut words = PreTokenizedString::from(normalized.get());
        BertPreTokenizer.pre_tokenize(&mut words).map_err(tokenizer)?;
        let words = words.get_splits(OffsetReferential::Normalized, OffsetType::None);
        let pieces = words.into_iter().map(|(word, ..)| {
            let tokens = self.model.tokenize(word).map_err(tokenizer)?;
            Ok(tokens.iter().map(|token| token.id).collect())
        });
        pieces.collect()
    }

    /// Token ids of `caption`, from `[CLS]` to `[SEP]`, of any length.
    pub fn encode(&self, caption: &str) -> Result<Vec<u32>, DataError> {
        let mut tokens = vec![self.special.first];
        tokens.extend(self.pieces(caption)?.into_iter().flatten());
        tokens.push(self.special.last);
        Ok(tokens)
    }

    /// The text of a token id, such as `dog` or `##s`; that of the unknown token for an id outside the vocabulary.
    pub fn token(&self, id: u32) -> String {
        self.model.id_to_token(id).unwrap_or_else(|| "[UNK]".to_owned())
    }

    /// Token ids of each caption.
    ///
    /// # Errors
    /// [`DataError::CaptionLength`] with the row of a caption of more than `max_positions` tokens.
    pub fn encode_all(&self, captions: &[String], max_positions: usize) -> Result<Vec<Vec<u32>>, DataError> {
        let encoded: Result<Vec<_>, _> = captions.par_iter().map(|caption| self.encode(caption)).collect();
        let encoded = encoded?;
        match encoded.iter().position(|tokens| tokens.len() > max_positions) {
            Some(index) => {
                Err(DataError::CaptionLength { row: index + 1, tokens: encoded[index].len(), limit: max_positions })
            }
            None => Ok(encoded),
        }
    }
}

fn tokenizer(error: tokenizers::Error) -> DataError {
    DataError::Tokenizer { reason: error.to_string() }
}
