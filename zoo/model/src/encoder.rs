//! The seam between retrieval and whatever computes embeddings.

use std::{fmt, num::NonZeroUsize, str::FromStr};

use crate::{
    Error, Result,
    array::Array,
    models::{Laps, config::ModelConfig},
    params::{Parameter, Path},
    tensor::Eager,
};

/// Computes embeddings of images and captions in the joint space. libtorch, the pure-Rust tensor and ONNX Runtime
/// sessions are behind it.
pub trait Encoder {
    /// Pixels `(batch, 3, size, size)`, normalised, to patch embeddings `(batch, patches, width)`, the class token first
    /// where the model has one.
    fn encode_images(&self, pixels: &Array) -> Result<Array>;

    /// Token identifiers of each caption, not padded, to word embeddings `(words, width)` of each.
    fn encode_captions(&self, captions: &[&[u32]]) -> Result<Vec<Array>>;
}

/// Word embeddings `(words, width)` of captions, in their order. Captions of about the same length are encoded together,
/// `batch` at a time, so that little is padded. `encoded` is told how many each batch had; its error ends the work.
pub fn encode_by_length<E: From<Error>>(
    encoder: &dyn Encoder,
    captions: &[Vec<u32>],
    batch: NonZeroUsize,
    mut encoded: impl FnMut(usize) -> Result<(), E>,
) -> Result<Vec<Array>, E> {
    let mut order: Vec<usize> = (0..captions.len()).collect();
    order.sort_by_key(|&index| captions[index].len());
    let mut words: Vec<Option<Array>> = vec![None; captions.len()];
    for part in order.chunks(batch.get()) {
        let rows: Vec<&[u32]> = part.iter().map(|&index| captions[index].as_slice()).collect();
        for (&index, embeddings) in part.iter().zip(encoder.encode_captions(&rows)?) {
            words[index] = Some(embeddings);
        }
        encoded(part.len())?;
    }
    let missing = || Error::Operation {
        operation: "encode_captions",
        expected: "embeddings of every caption".to_owned(),
        found: "fewer".to_owned(),
    };
    Ok(words.into_iter().map(|words| words.ok_or_else(missing)).collect::<Result<_>>()?)
}

/// Where to compute, as the user says it: `auto`, `cpu`, `cuda` or `cuda:N`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The best that is there.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// A GPU by number, from 0.
    Cuda(usize),
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => text.strip_prefix("cuda:").and_then(|index| index.parse().ok()).map(Self::Cuda).ok_or_else(|| {
                Error::Device {
                    device: text.to_owned(),
                    reason: "there is no such kind of device".to_owned(),
                    hint: "use `auto`, `cpu` or `cuda:N`".to_owned(),
                }
            }),
        }
    }
}

/// The one model definition on a tensor that holds its values.
pub struct ModelEncoder<T: Eager> {
    model: Laps<T>,
    device: T::Device,
    /// Entries of the vocabulary, and the longest caption.
    tables: [usize; 2],
}

impl<T: Eager> ModelEncoder<T> {
    /// Builds the model of `config` on `device` from tensors that `read` gives by parameter.
    pub fn new(
        config: &ModelConfig,
        device: T::Device,
        read: impl Fn(&Parameter) -> Result<Array> + 'static,
    ) -> Result<Self>
    where
        T: 'static,
        T::Device: 'static,
    {
        let place = device.clone();
        let path = Path::root(std::rc::Rc::new(move |parameter: Parameter| {
            let array = read(&parameter)?;
            if array.dims() != parameter.shape {
                return Err(Error::Parameter {
                    name: parameter.name,
                    expected: format!("shape {:?}", parameter.shape),
                    found: format!("shape {:?}", array.dims()),
                });
            }
            T::upload(&array, &place)
        }));
        let tables = [config.text.vocab_size, config.text.max_position_embeddings];
        Ok(Self { model: Laps::new(config, &path)?, device, tables })
    }

    /// The model itself.
    pub fn model(&self) -> &Laps<T> {
        &self.model
    }

    /// Similarity of every image with every caption by the plain definition.
    ///
    /// Patch embeddings `(images, patches, width)` and word embeddings `(words, width)` of each caption to
    /// `(images, captions)`.
    pub fn similarities(&self, images: &Array, captions: &[Array]) -> Result<Array> {
        let (words, mask) = pad_words(captions)?;
        let upload = |array| T::upload(array, &self.device);
        let (images, words, mask) = (upload(images)?, upload(&words)?, upload(&mask)?);
        self.model.alignment.forward(&images, &words, &mask)?.download()
    }
}

impl<T: Eager> Encoder for ModelEncoder<T> {
    fn encode_images(&self, pixels: &Array) -> Result<Array> {
        self.model.image.forward(&T::upload(pixels, &self.device)?)?.download()
    }

    fn encode_captions(&self, captions: &[&[u32]]) -> Result<Vec<Array>> {
        let length = captions.iter().map(|caption| caption.len()).max().unwrap_or(0);
        // A GPU that is told to take rows that a table has not takes no further orders.
        let [entries, longest] = self.tables;
        let largest = captions.iter().flat_map(|caption| caption.iter()).max().map_or(0, |&largest| largest as usize);
        if largest >= entries || length > longest {
            return Err(Error::Operation {
                operation: "encode_captions",
                expected: format!("at most {longest} tokens below {entries}"),
                found: format!("{length} tokens, the largest {largest}"),
            });
        }
        let mut identifiers = vec![0.0; captions.len() * length];
        let mut mask = identifiers.clone();
        for (row, caption) in captions.iter().enumerate() {
            for (column, &identifier) in caption.iter().enumerate() {
                identifiers[row * length + column] = identifier as f32;
                mask[row * length + column] = 1.0;
            }
        }
        let upload = |values| T::upload(&Array::new(&[captions.len(), length], values)?, &self.device);
        let words = self.model.text.forward(&upload(identifiers)?, &upload(mask)?)?.download()?;
        let [.., width] = *words.dims() else { return Ok(Vec::new()) };
        captions
            .iter()
            .zip(words.values().chunks_exact((length * width).max(1)))
            .map(|(caption, row)| Array::new(&[caption.len(), width], row[..caption.len() * width].to_vec()))
            .collect()
    }
}

/// Word embeddings of captions padded to one length, and 1 where there is a word: `(captions, words, width)` and
/// `(captions, words)`.
pub fn pad_words(captions: &[Array]) -> Result<(Array, Array)> {
    let length = captions.iter().filter_map(|words| words.dims().first()).max().copied().unwrap_or(0);
    let width = captions.iter().filter_map(|words| words.dims().get(1)).max().copied().unwrap_or(0);
    let mut values = vec![0.0; captions.len() * length * width];
    let mut mask = vec![0.0; captions.len() * length];
    for (row, words) in captions.iter().enumerate() {
        let start = row * length * width;
        values[start..start + words.values().len()].copy_from_slice(words.values());
        mask[row * length..][..words.dims()[0]].fill(1.0);
    }
    Ok((Array::new(&[captions.len(), length, width], values)?, Array::new(&[captions.len(), length], mask)?))
}
