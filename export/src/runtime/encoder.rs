//! The encoders of a model in ONNX Runtime.

use std::{cell::RefCell, collections::BTreeMap, panic::resume_unwind, path::Path, thread};

use laps_model::{
    array::Array,
    encoder::{Device, Encoder},
};

use laps_files::TemporaryFolder;

use super::{
    ExecutionDevice, InputTensor, Optimization, Placement, Provider, ProviderOptions, RuntimeError, Session,
    SessionOptions, ShapeProfile,
};
use crate::{Result, graph::GraphKind};

/// Captions are padded to a multiple of this number of tokens, because ONNX Runtime keeps buffers for every distinct length.
const LENGTH_MULTIPLE: usize = 4;
/// Largest batch that TensorRT builds engines for; it builds another engine for a larger one.
const TENSORRT_MAX_BATCH: usize = 32;

/// Loads the graphs of an encoder.
struct Opening<'a> {
    image_size: usize,
    max_length: usize,
    options: &'a SessionOptions,
    /// Where ONNX Runtime reports the placement.
    profiles: Option<TemporaryFolder>,
}

impl<'a> Opening<'a> {
    fn new(image_size: usize, max_length: usize, options: &'a SessionOptions) -> Result<Self> {
        // ONNX Runtime reports the placement in a file. Without a place for it, only a GPU that the user asked for is an
        // error: the CPU is always there.
        let profiles = match (TemporaryFolder::create(), options.device) {
            (Ok(folder), _) => Some(folder),
            (Err(_), ExecutionDevice::Auto | ExecutionDevice::Cpu) => None,
            (Err(error), ExecutionDevice::Gpu(..)) => return Err(RuntimeError::Profile { source: error.into() }.into()),
        };
        Ok(Self { image_size, max_length, options, profiles })
    }

    /// The session of a graph, and the placement of its nodes if that can be reported.
    fn session(
        &self,
        kind: GraphKind,
        load: &dyn Fn(GraphKind, &SessionOptions) -> Result<Session>,
    ) -> Result<(Session, Option<Placement>)> {
        let options = self.options;
        let provider = ProviderOptions { profiles: self.shapes(kind), ..options.provider.clone() };
        let profile = self.profiles.as_ref().map(|folder| folder.path().join(kind.name()));
        let session = load(kind, &SessionOptions { provider, profile, ..options.clone() })?;
        if self.profiles.is_none() {
            return Ok((session, None));
        }
        let placement = match kind {
            GraphKind::Image => {
                let shape = [1, 3, self.image_size, self.image_size];
                session.placement(&[InputTensor::F32(&shape, &vec![0.0; shape.iter().product()])])?
            }
            _ => {
                let shape = [1, LENGTH_MULTIPLE.min(self.max_length)];
                let ones = vec![1; shape[1]];
                session.placement(&[InputTensor::I64(&shape, &ones), InputTensor::I64(&shape, &ones)])?
            }
        };
        Ok((session, Some(placement)))
    }

    /// The shapes that TensorRT builds engines for.
    fn shapes(&self, kind: GraphKind) -> Vec<ShapeProfile> {
        let profile = |input: &str, shapes| ShapeProfile { input: input.to_owned(), shapes };
        if kind == GraphKind::Image {
            let images = [1, TENSORRT_MAX_BATCH / 2, TENSORRT_MAX_BATCH];
            return vec![profile("pixel_values", images.map(|batch| vec![batch, 3, self.image_size, self.image_size]))];
        }
        let captions = [(1, LENGTH_MULTIPLE), (TENSORRT_MAX_BATCH / 2, 16), (TENSORRT_MAX_BATCH, self.max_length)]
            .map(|(batch, length)| vec![batch, length.min(self.max_length)]);
        ["input_ids", "attention_mask"].map(|input| profile(input, captions.clone())).into()
    }

    fn encoder(
        &self,
        (image, image_nodes): (Session, Option<Placement>),
        (text, text_nodes): (Session, Option<Placement>),
    ) -> OrtEncoder {
        let nodes = [(GraphKind::Image, image_nodes), (GraphKind::Text, text_nodes)];
        let placement = nodes.into_iter().map(|(kind, nodes)| Some((kind.to_string(), nodes?))).collect();
        OrtEncoder { image, text, max_length: self.max_length, placement, buffers: RefCell::default() }
    }
}

/// The graphs `image` and `text` of a package, as an encoder.
pub struct OrtEncoder {
    image: Session,
    text: Session,
    max_length: usize,
    placement: Option<BTreeMap<String, Placement>>,
    /// `input_ids` and `attention_mask` buffers, reused between batches.
    buffers: RefCell<[Vec<i64>; 2]>,
}

impl OrtEncoder {
    /// Loads both graphs of `folder`, for images of `image_size` x `image_size` pixels and captions of at most `max_length`
    /// tokens. Runs each graph once, to verify that the requested execution provider runs nodes of it.
    ///
    /// # Errors
    /// As [`Session::open`] and [`Session::placement`].
    pub fn open(folder: &Path, image_size: usize, max_length: usize, options: &SessionOptions) -> Result<Self> {
        let load = |kind: GraphKind, options: &SessionOptions| Ok(Session::open(&folder.join(kind.file()), options)?);
        if options.optimization != Optimization::Saved {
            return Self::load(&load, image_size, max_length, options);
        }
        // Saved graphs map their weights, so that both at once need no more memory than one after the other.
        let opening = Opening::new(image_size, max_length, options)?;
        let (image, text) = thread::scope(|scope| {
            let text = scope.spawn(|| opening.session(GraphKind::Text, &load));
            let image = opening.session(GraphKind::Image, &load);
            (image, text.join().unwrap_or_else(|panic| resume_unwind(panic)))
        });
        Ok(opening.encoder(image?, text?))
    }

    /// As [`open`](Self::open), with a function that loads a graph.
    ///
    /// # Errors
    /// Those of `load`, and as [`Session::placement`].
    pub fn load(
        load: &dyn Fn(GraphKind, &SessionOptions) -> Result<Session>,
        image_size: usize,
        max_length: usize,
        options: &SessionOptions,
    ) -> Result<Self> {
        let opening = Opening::new(image_size, max_length, options)?;
        let image = opening.session(GraphKind::Image, load)?;
        let text = opening.session(GraphKind::Text, load)?;
        Ok(opening.encoder(image, text))
    }

    /// Device that runs the graphs.
    pub fn device(&self) -> Device {
        self.image.device()
    }

    /// Execution provider that runs the graphs.
    pub fn provider(&self) -> Provider {
        self.image.provider()
    }

    /// Number of nodes that each execution provider ran, by the name of the graph. None if the system has no place for a
    /// temporary file.
    pub fn placement(&self) -> Option<&BTreeMap<String, Placement>> {
        self.placement.as_ref()
    }

    /// The length that a batch of captions of at most `length` tokens is padded to.
    fn padded_length(&self, length: usize) -> usize {
        length.next_multiple_of(LENGTH_MULTIPLE).min(self.max_length).max(length)
    }
}

impl Encoder for OrtEncoder {
    fn encode_images(&self, pixels: &Array) -> laps_model::Result<Array> {
        self.image.run(&[InputTensor::F32(pixels.dims(), pixels.values())]).map_err(failed)
    }

    fn encode_captions(&self, captions: &[&[u32]]) -> laps_model::Result<Vec<Array>> {
        let longest = captions.iter().map(|caption| caption.len()).max().unwrap_or(0);
        let words = self.words(captions, self.padded_length(longest))?;
        captions
            .iter()
            .zip(words)
            .map(|(caption, words)| {
                let [_, width] = *words.dims() else { return Ok(words) };
                let mut values = words.into_values();
                values.truncate(caption.len() * width);
                Array::new(&[caption.len(), width], values)
            })
            .collect()
    }

    fn encode_padded(&self, captions: &[&[u32]]) -> laps_model::Result<Vec<Array>> {
        self.words(captions, captions.iter().map(|caption| caption.len()).max().unwrap_or(0))
    }
}

impl OrtEncoder {
    /// Word embeddings `(length, width)` of each of `captions`, padded to `length`.
    fn words(&self, captions: &[&[u32]], length: usize) -> laps_model::Result<Vec<Array>> {
        if captions.is_empty() {
            return Ok(Vec::new());
        }
        let mut buffers = self.buffers.borrow_mut();
        for buffer in buffers.iter_mut() {
            buffer.clear();
            buffer.resize(captions.len() * length, 0);
        }
        let [input_ids, mask] = &mut *buffers;
        for (row, caption) in captions.iter().enumerate() {
            for (token, &id) in caption.iter().enumerate() {
                input_ids[row * length + token] = i64::from(id);
                mask[row * length + token] = 1;
            }
        }
        let shape = [captions.len(), length];
        let words =
            self.text.run(&[InputTensor::I64(&shape, input_ids), InputTensor::I64(&shape, mask)]).map_err(failed)?;
        let [.., width] = *words.dims() else { return Ok(Vec::new()) };
        let rows = words.values().chunks_exact((length * width).max(1));
        rows.map(|row| Array::new(&[length, width], row.to_vec())).collect()
    }
}

fn failed(error: RuntimeError) -> laps_model::Error {
    laps_model::Error::Engine { engine: "ort", source: error.into() }
}
