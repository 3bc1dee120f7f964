//! Embeddings by ONNX Runtime.

use std::{cell::RefCell, path::Path};

use zoo::{
    array::Array,
    encoder::{Device, Encoder},
};

use super::{Input, RuntimeError, Session, SessionOptions};
use crate::record::Part;

/// Captions are padded to a multiple of this many tokens: each further length is a further set of buffers that ONNX
/// Runtime keeps.
const BUCKET: usize = 4;

/// The graphs `image` and `text` of a folder.
pub struct OrtEncoder {
    image: Session,
    text: Session,
    longest: usize,
    /// Identifiers and mask of a batch, kept for the next one.
    buffers: RefCell<[Vec<i64>; 2]>,
}

impl OrtEncoder {
    /// Loads both graphs of `folder`; captions have at most `longest` tokens.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub fn open(folder: &Path, longest: usize, options: &SessionOptions) -> Result<Self, RuntimeError> {
        let open = |part: Part| Session::open(&folder.join(part.file()), options);
        Ok(Self { image: open(Part::Image)?, text: open(Part::Text)?, longest, buffers: RefCell::default() })
    }

    /// Where it computes.
    pub fn device(&self) -> Device {
        self.image.device()
    }

    /// Length that captions of at most `length` tokens are padded to.
    fn padded(&self, length: usize) -> usize {
        length.next_multiple_of(BUCKET).min(self.longest).max(length)
    }
}

impl Encoder for OrtEncoder {
    fn encode_images(&self, pixels: &Array) -> zoo::Result<Array> {
        self.image.run(&[Input::Float(pixels.dims(), pixels.values())]).map_err(failed)
    }

    fn encode_captions(&self, captions: &[&[u32]]) -> zoo::Result<Vec<Array>> {
        let Some(longest) = captions.iter().map(|caption| caption.len()).max() else { return Ok(Vec::new()) };
        let length = self.padded(longest);
        let mut buffers = self.buffers.borrow_mut();
        for buffer in buffers.iter_mut() {
            buffer.clear();
            buffer.resize(captions.len() * length, 0);
        }
        let [identifiers, mask] = &mut *buffers;
        for (row, caption) in captions.iter().enumerate() {
            for (place, &identifier) in caption.iter().enumerate() {
                identifiers[row * length + place] = i64::from(identifier);
                mask[row * length + place] = 1;
            }
        }
        let shape = [captions.len(), length];
        let words = self.text.run(&[Input::Whole(&shape, identifiers), Input::Whole(&shape, mask)]).map_err(failed)?;
        let [.., width] = *words.dims() else { return Ok(Vec::new()) };
        captions
            .iter()
            .zip(words.values().chunks_exact((length * width).max(1)))
            .map(|(caption, row)| Array::new(&[caption.len(), width], row[..caption.len() * width].to_vec()))
            .collect()
    }
}

fn failed(error: RuntimeError) -> zoo::Error {
    zoo::Error::Engine { engine: "ort", source: error.into() }
}
