//! Captions to token ids: BERT's basic tokenizer, then WordPiece on each basic token; or CLIP's byte-pair encoding.
//!
//! BERT's two steps are separate because training drops, masks and replaces whole basic tokens. A special token that is
//! written in a caption, such as `[MASK]`, is treated as text.

mod basic;
mod clip;
#[cfg(test)]
mod tests;
mod vocabulary;

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use rayon::prelude::*;
use tokenizers::{Model, models::wordpiece::WordPiece};

use super::{CaptionError, CaptionFault, DataError, FileLine, UnusableData};
use basic::basic_tokens;
use clip::ClipTokenizer;
pub use vocabulary::{TOKENIZER_CONFIG, TokenizerConfig, Vocabulary};

/// Maximum length of a basic token in characters. Longer ones become `[UNK]`.
const MAX_WORD_CHARS: usize = 100;

/// The tokenizer of BERT, with the results of `BertTokenizer` of transformers 4.46 on Python 3.11 (Unicode 14.0), or that of
/// CLIP, with the results of `CLIPTokenizerFast`.
pub struct Tokenizer {
    path: PathBuf,
    model: TokenizerModel,
    entries: usize,
    special: SpecialTokens,
    long_captions: LongCaptions,
    /// Captions that were truncated so far.
    truncated: AtomicUsize,
}

/// Treatment of captions that are longer than the text encoder has positions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LongCaptions {
    /// They are an error.
    #[default]
    Refuse,
    /// They are truncated before the end token, and counted.
    Truncate,
}

enum TokenizerModel {
    Bert { config: TokenizerConfig, word_piece: Box<WordPiece> },
    Clip(Box<ClipTokenizer>),
}

/// Ids of the special tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpecialTokens {
    /// `[PAD]`, always 0; `<|endoftext|>` of CLIP.
    pub padding: u32,
    /// `[UNK]`; `<|endoftext|>` of CLIP.
    pub unknown: u32,
    /// `[CLS]`; `<|startoftext|>` of CLIP.
    pub first: u32,
    /// `[SEP]`; `<|endoftext|>` of CLIP.
    pub last: u32,
    /// `[MASK]`, which CLIP does not have.
    pub mask: Option<u32>,
}

impl Tokenizer {
    /// Reads the vocabulary at `path`, see [`Vocabulary::read`].
    pub fn open(path: &Path) -> Result<Self, DataError> {
        Self::new(&Vocabulary::read(path)?)
    }

    /// The tokenizer of a vocabulary.
    ///
    /// # Errors
    /// A vocabulary that is not UTF-8, repeats a token, or lacks a special token; one of BERT with capital letters whose
    /// settings do not say whether captions are converted to lower case; one of CLIP whose merges do not fit its tokens.
    pub fn new(vocabulary: &Vocabulary) -> Result<Self, DataError> {
        let path = &vocabulary.path;
        if vocabulary.is_byte_pair() {
            let model = ClipTokenizer::new(vocabulary)?;
            let (entries, special) = (model.entries(), model.special());
            return Ok(Self::of(path, TokenizerModel::Clip(Box::new(model)), entries, special));
        }
        let ids = vocabulary.ids()?;
        let content = |expected: &str, found: String| DataError::Content {
            path: path.to_owned(),
            expected: expected.to_owned(),
            found,
        };
        let entries = ids.len();
        let find = |token: &str| {
            let id = ids.get(token).copied();
            id.ok_or_else(|| content(&format!("the token `{token}`"), format!("{entries} tokens without it")))
        };
        let special = SpecialTokens {
            padding: find("[PAD]")?,
            unknown: find("[UNK]")?,
            first: find("[CLS]")?,
            last: find("[SEP]")?,
            mask: Some(find("[MASK]")?),
        };
        if special.padding != 0 {
            return Err(content("`[PAD]` in the first line", format!("it in line {}", special.padding + 1)));
        }
        vocabulary.check_case(&ids)?;
        // The map of the crate `tokenizers` has a type that it does not export.
        let mut token_ids = WordPiece::read_bytes(&[]).map_err(tokenizer)?;
        token_ids.extend(ids);
        let word_piece = WordPiece::builder()
            .vocab(token_ids)
            .unk_token("[UNK]".to_owned())
            .continuing_subword_prefix("##".to_owned())
            .max_input_chars_per_word(MAX_WORD_CHARS)
            .build()
            .map_err(tokenizer)?;
        let model = TokenizerModel::Bert { config: vocabulary.config, word_piece: Box::new(word_piece) };
        Ok(Self::of(path, model, entries, special))
    }

    fn of(path: &Path, model: TokenizerModel, entries: usize, special: SpecialTokens) -> Self {
        let (long_captions, truncated) = (LongCaptions::default(), AtomicUsize::new(0));
        Self { path: path.to_owned(), model, entries, special, long_captions, truncated }
    }

    /// The same tokenizer with another treatment of long captions.
    #[must_use]
    pub fn with_long_captions(self, long_captions: LongCaptions) -> Self {
        Self { long_captions, ..self }
    }

    /// Number of captions that were truncated so far.
    pub fn truncated(&self) -> usize {
        self.truncated.load(Ordering::Relaxed)
    }

    /// Size of the vocabulary.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// Ids of the special tokens.
    pub fn special(&self) -> SpecialTokens {
        self.special
    }

    /// Checks that the vocabulary has as many tokens as a model's `vocab_size`.
    pub fn check_fits(&self, vocab_size: usize) -> Result<(), DataError> {
        if self.entries != vocab_size {
            return Err(DataError::VocabularySize {
                path: self.path.clone(),
                entries: self.entries,
                expected: vocab_size,
            });
        }
        Ok(())
    }

    /// The word pieces of each basic token of `caption`, without the special tokens around them. Each token of CLIP is a piece
    /// of its own.
    pub fn pieces(&self, caption: &str) -> Result<Vec<Vec<u32>>, DataError> {
        let (config, word_piece) = match &self.model {
            TokenizerModel::Bert { config, word_piece } => (config, word_piece),
            TokenizerModel::Clip(clip) => return Ok(clip.ids(caption)?.into_iter().map(|id| vec![id]).collect()),
        };
        let pieces = basic_tokens(caption, config).into_iter().map(|word| {
            let tokens = word_piece.tokenize(&word).map_err(tokenizer)?;
            Ok(tokens.iter().map(|token| token.id).collect())
        });
        pieces.collect()
    }

    /// Truncates the token ids of a caption to `max_positions`, and keeps the last one. [`LongCaptions::Refuse`] leaves them
    /// as they are.
    pub fn truncate(&self, tokens: &mut Vec<u32>, max_positions: usize) {
        if tokens.len() > max_positions && self.long_captions == LongCaptions::Truncate {
            tokens.truncate(max_positions.saturating_sub(1));
            tokens.push(self.special.last);
            self.truncated.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Token ids of `caption`, from `[CLS]` to `[SEP]` or their counterparts, of any length.
    pub fn encode(&self, caption: &str) -> Result<Vec<u32>, DataError> {
        let mut tokens = vec![self.special.first];
        tokens.extend(self.pieces(caption)?.into_iter().flatten());
        tokens.push(self.special.last);
        Ok(tokens)
    }

    /// The text of a token id, such as `dog` or `##s`; that of the unknown token for an id outside the vocabulary.
    pub fn token(&self, id: u32) -> String {
        match &self.model {
            TokenizerModel::Bert { word_piece, .. } => word_piece.id_to_token(id).unwrap_or_else(|| "[UNK]".to_owned()),
            TokenizerModel::Clip(clip) => clip.token(id),
        }
    }

    /// Token ids of each caption, of any length unless they are truncated to `max_positions`.
    pub fn encode_each<T: AsRef<str> + Sync>(
        &self,
        captions: &[T],
        max_positions: usize,
    ) -> Result<Vec<Vec<u32>>, DataError> {
        let encode = |caption: &T| {
            let mut tokens = self.encode(caption.as_ref())?;
            self.truncate(&mut tokens, max_positions);
            Ok(tokens)
        };
        captions.par_iter().map(encode).collect()
    }

    /// Token ids of each caption, truncated to `max_positions` if long captions are.
    ///
    /// # Errors
    /// [`DataError::Unusable`] with the number of each caption of more than `max_positions` tokens.
    pub fn encode_all(&self, captions: &[String], max_positions: usize) -> Result<Vec<Vec<u32>>, DataError> {
        let encoded = self.encode_each(captions, max_positions)?;
        let faults: Vec<CaptionFault> = (1..)
            .zip(&encoded)
            .filter_map(|(line, tokens)| {
                let cause = CaptionError::of_length(tokens.len(), max_positions)?;
                Some(CaptionFault { line: FileLine { file: None, line }, cause })
            })
            .collect();
        if faults.is_empty() {
            return Ok(encoded);
        }
        let data = UnusableData { captions: captions.len(), caption_faults: faults, ..UnusableData::default() };
        Err(DataError::Unusable(data.into()))
    }
}

fn tokenizer(error: tokenizers::Error) -> DataError {
    DataError::Tokenizer { reason: error.to_string() }
}
