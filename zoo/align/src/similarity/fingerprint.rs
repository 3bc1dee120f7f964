//! What a matrix is computed from, in 32 bytes.

use sha2::{Digest, Sha256};

use super::{captions::CaptionMatrix, engine::Engine, source::ImageSource};
use crate::Result;

/// SHA-256 of everything that the bits of a matrix depend on: embeddings, parameters, sizes, instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of the matrix that `engine` computes of `images` and `captions`. Reads every image once.
    pub fn new(engine: &Engine, images: &dyn ImageSource, captions: &CaptionMatrix) -> Result<Self> {
        let mut hash = Sha256::new();
        let shape = images.shape();
        hash.update(format!(
            "similarity 1 {:?} {} {} {shape:?} {} {}\n",
            engine.config(),
            engine.instruction_set(),
            images.len(),
            captions.len(),
            captions.words(),
        ));
        let mut bytes = Vec::new();
        let mut add = |values: &mut dyn Iterator<Item = f32>| {
            bytes.clear();
            bytes.extend(values.flat_map(f32::to_le_bytes));
            hash.update(&bytes);
        };
        engine.aggregation().parameters().for_each(|part| add(&mut part.iter().copied()));
        let mut tokens = vec![0.0; shape[0] * shape[1]];
        for image in 0..images.len() {
            images.read(image, &mut tokens)?;
            add(&mut tokens.iter().copied());
        }
        for caption in 0..captions.len() {
            let words = captions.span(caption..caption + 1);
            // The normalised words do not say how long the words were; their shares of the mean do.
            add(&mut captions.mean_weights(words.clone()).iter().copied());
            add(&mut captions.normalised(words.clone()).iter().copied());
            add(&mut std::iter::once(words.len() as f32));
        }
        Ok(Self(hash.finalize().into()))
    }

    /// Of a matrix whose embeddings are computed while it is, from everything that its bits depend on: models, data, what
    /// computes and how. Each of `parts` counts with its length.
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"similarity of parts 1\n");
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}
