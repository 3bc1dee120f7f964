//! CLIP's tokenizer, as Hugging Face's `CLIPTokenizerFast`: NFC, white space to one space, lower case, split at the regular
//! expression of OpenAI's code, and byte-pair encoding of each part.
//!
//! The special tokens are recognised where a caption contains them. OpenAI's own tokenizer treats them as text, and repairs
//! broken encodings with `ftfy` first.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokenizers::{
    AddedToken, Decoder as _, Model as _, SplitDelimiterBehavior, Tokenizer as Pipeline,
    models::bpe::BPE,
    normalizers::{Lowercase, NFC, Replace, Sequence, replace::ReplacePattern},
    pre_tokenizers::{
        byte_level::ByteLevel,
        sequence::Sequence as PreTokenizers,
        split::{Split, SplitPattern},
    },
};

use super::{SpecialTokens, Vocabulary, tokenizer};
use crate::DataError;

const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";
/// Marks the last token of a part.
const END_OF_WORD: &str = "</w>";
const PARTS: &str = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// The part of `tokenizer.json` that is read. All other settings are those of CLIP.
#[derive(Serialize, Deserialize)]
pub(super) struct TokenizerJson {
    pub(super) model: BytePairs,
}

/// `model` of `tokenizer.json`.
#[derive(Serialize, Deserialize)]
pub(super) struct BytePairs {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) vocab: serde_json::Map<String, Value>,
    pub(super) merges: Value,
}

/// The tokenizer of CLIP.
pub(super) struct ClipTokenizer {
    pipeline: Pipeline,
    special: SpecialTokens,
}

impl ClipTokenizer {
    pub(super) fn new(vocabulary: &Vocabulary) -> Result<Self, DataError> {
        let content = |expected: &str, found: String| DataError::Content {
            path: vocabulary.path.clone(),
            expected: expected.to_owned(),
            found,
        };
        let expected = "the tokens and merges of a byte-pair encoding, as in CLIP's `tokenizer.json`";
        let TokenizerJson { model } =
            serde_json::from_slice(vocabulary.without_mark()).map_err(|error| content(expected, error.to_string()))?;
        if model.kind != "BPE" {
            return Err(content("a `model` of the type `BPE`", format!("`{}`", model.kind)));
        }
        let settings = serde_json::json!({
            "type": "BPE",
            "unk_token": END,
            "end_of_word_suffix": END_OF_WORD,
            "vocab": model.vocab,
            "merges": model.merges,
        });
        let model: BPE =
            serde_json::from_str(&settings.to_string()).map_err(|error| content(expected, error.to_string()))?;
        let entries = model.get_vocab_size();
        let find = |token: &str| {
            let id = model.token_to_id(token);
            id.ok_or_else(|| content(&format!("the token `{token}`"), format!("{entries} tokens without it")))
        };
        let (first, last) = (find(START)?, find(END)?);
        let mut pipeline = Pipeline::new(model);
        let white_space = Replace::new(ReplacePattern::Regex(r"\s+".to_owned()), " ").map_err(tokenizer)?;
        let normalizers = Sequence::new(vec![NFC.into(), white_space.into(), Lowercase.into()]);
        let parts = Split::new(SplitPattern::Regex(PARTS.to_owned()), SplitDelimiterBehavior::Removed, true);
        let bytes = ByteLevel::new(false, true, false);
        let pre_tokenizers = PreTokenizers::new(vec![parts.map_err(tokenizer)?.into(), bytes.into()]);
        pipeline.with_normalizer(Some(normalizers)).with_pre_tokenizer(Some(pre_tokenizers));
        pipeline.add_special_tokens(&[AddedToken::from(START, true), AddedToken::from(END, true)]);
        let special = SpecialTokens { padding: last, unknown: last, first, last, mask: None };
        Ok(Self { pipeline, special })
    }

    pub(super) fn entries(&self) -> usize {
        self.pipeline.get_vocab_size(true)
    }

    pub(super) fn special(&self) -> SpecialTokens {
        self.special
    }

    /// Token ids of `caption` without the special tokens around them.
    pub(super) fn ids(&self, caption: &str) -> Result<Vec<u32>, DataError> {
        Ok(self.pipeline.encode_fast(caption, false).map_err(tokenizer)?.get_ids().to_vec())
    }

    /// The text of a token id. Bytes that are no text by themselves become U+FFFD.
    pub(super) fn token(&self, id: u32) -> String {
        let token = self.pipeline.id_to_token(id).unwrap_or_else(|| END.to_owned());
        let letters = token.strip_suffix(END_OF_WORD).unwrap_or(&token).to_owned();
        ByteLevel::default().decode_chain(vec![letters.clone()]).map_or(letters, |texts| texts.concat())
    }
}
