//! Embeddings by ONNX Runtime.

use std::{cell::RefCell, collections::BTreeMap, path::Path};

use laps_model::{
    array::Array,
    encoder::{Device, Encoder},
};

use super::{Input, Placement, Provider, ProviderOptions, RuntimeError, Session, SessionOptions, ShapeProfile};
use crate::record::Part;

/// Captions are padded to a multiple of this many tokens: each further length is a further set of buffers that ONNX
/// Runtime keeps.
const BUCKET: usize = 4;
/// Most images, or captions, at a time that TensorRT builds engines for; beyond, it builds another one.
const MOST_TOGETHER: usize = 32;

/// The graphs `image` and `text` of a folder.
pub struct OrtEncoder {
    image: Session,
    text: Session,
    longest: usize,
    placement: BTreeMap<String, Placement>,
    /// Identifiers and mask of a batch, kept for the next one.
    buffers: RefCell<[Vec<i64>; 2]>,
}

impl OrtEncoder {
    /// Loads both graphs of `folder`, for images of `size` x `size` and captions of at most `longest` tokens, and runs each
    /// once on zeros: a provider that was asked for has to do its part.
    ///
    /// # Errors
    /// As [`Session::open`] and [`Session::placement`].
    pub fn open(
        folder: &Path,
        (size, longest): (usize, usize),
        options: &SessionOptions,
    ) -> Result<Self, RuntimeError> {
        let profiles = tempfile::tempdir().map_err(|error| RuntimeError::Profile { source: error.into() })?;
        let mut placement = BTreeMap::new();
        let mut open = |part: Part, profiled: Vec<ShapeProfile>| -> Result<Session, RuntimeError> {
            let provider = ProviderOptions { profiles: profiled, ..options.provider.clone() };
            let profile = Some(profiles.path().join(part.name()));
            let session =
                Session::open(&folder.join(part.file()), &SessionOptions { provider, profile, ..options.clone() })?;
            let ran = match part {
                Part::Image => {
                    let shape = [1, 3, size, size];
                    session.placement(&[Input::Float(&shape, &vec![0.0; shape.iter().product()])])?
                }
                _ => {
                    let shape = [1, BUCKET.min(longest)];
                    let ones = vec![1; shape[1]];
                    session.placement(&[Input::Whole(&shape, &ones), Input::Whole(&shape, &ones)])?
                }
            };
            placement.insert(part.to_string(), ran);
            Ok(session)
        };
        let profile = |input: &str, shapes| ShapeProfile { input: input.to_owned(), shapes };
        let images = [1, MOST_TOGETHER / 2, MOST_TOGETHER].map(|batch| vec![batch, 3, size, size]);
        let captions = [(1, BUCKET), (MOST_TOGETHER / 2, 16), (MOST_TOGETHER, longest)]
            .map(|(batch, length)| vec![batch, length.min(longest)]);
        let image = open(Part::Image, vec![profile("pixel_values", images)])?;
        let captions = ["input_ids", "attention_mask"].map(|input| profile(input, captions.clone()));
        let text = open(Part::Text, captions.into())?;
        Ok(Self { image, text, longest, placement, buffers: RefCell::default() })
    }

    /// Where it computes.
    pub fn device(&self) -> Device {
        self.image.device()
    }

    /// What computes.
    pub fn provider(&self) -> Provider {
        self.image.provider()
    }

    /// What ran where, by the name of the graph.
    pub fn placement(&self) -> &BTreeMap<String, Placement> {
        &self.placement
    }

    /// Length that captions of at most `length` tokens are padded to.
    fn padded(&self, length: usize) -> usize {
        length.next_multiple_of(BUCKET).min(self.longest).max(length)
    }
}

impl Encoder for OrtEncoder {
    fn encode_images(&self, pixels: &Array) -> laps_model::Result<Array> {
        self.image.run(&[Input::Float(pixels.dims(), pixels.values())]).map_err(failed)
    }

    fn encode_captions(&self, captions: &[&[u32]]) -> laps_model::Result<Vec<Array>> {
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

fn failed(error: RuntimeError) -> laps_model::Error {
    laps_model::Error::Engine { engine: "ort", source: error.into() }
}
