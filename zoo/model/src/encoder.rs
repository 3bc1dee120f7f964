//! [`Encoder`], which computes embeddings, and [`ModelEncoder`], which runs the model definition.

use std::{fmt, num::NonZeroUsize, str::FromStr};

use crate::{
    Error, Result,
    array::Array,
    heads::{Head, HeadConfig, HeadSizes},
    models::{Laps, config::ModelConfig},
    params::{ParamPath, Parameter},
    tensor::{DeviceTensor, Tensor},
};

/// Computes embeddings of images and captions in the joint space. Implemented for the pure-Rust tensor, libtorch and ONNX
/// Runtime.
pub trait Encoder {
    /// Normalised pixels `(batch, 3, size, size)` to patch embeddings `(batch, tokens, width)`. The class token comes first,
    /// if the model has one. A head that pools gives each image one vector, `(batch, 1, size)`.
    fn encode_images(&self, pixels: &Array) -> Result<Array>;

    /// Token ids of each caption, without padding, to word embeddings `(words, width)` of each, or its vector `(1, size)`.
    fn encode_captions(&self, captions: &[&[u32]]) -> Result<Vec<Array>>;

    /// As [`encode_captions`](Self::encode_captions), with padding: embeddings `(longest, width)` of every position that a
    /// caption is padded to, or its vector `(1, size)`, which depends on the longest caption if the head reads padding.
    fn encode_padded(&self, captions: &[&[u32]]) -> Result<Vec<Array>>;
}

/// Word embeddings `(words, width)` of `captions`, in their order. Captions are sorted by length and encoded `batch` at a
/// time, which keeps padding small. `encoded` is called with the size of each batch, and its error ends the work.
pub fn encode_by_length<E: From<Error>>(
    encoder: &dyn Encoder,
    captions: &[Vec<u32>],
    batch: NonZeroUsize,
    mut encoded: impl FnMut(usize) -> Result<(), E>,
) -> Result<Vec<Array>, E> {
    let order = by_length(captions);
    let mut words: Vec<Option<Array>> = vec![None; captions.len()];
    for chunk in order.chunks(batch.get()) {
        let rows: Vec<&[u32]> = chunk.iter().map(|&index| captions[index].as_slice()).collect();
        for (&index, embeddings) in chunk.iter().zip(encoder.encode_captions(&rows)?) {
            words[index] = Some(embeddings);
        }
        encoded(chunk.len())?;
    }
    let missing = || Error::Operation {
        operation: "encode_captions",
        expected: "embeddings of every caption".to_owned(),
        found: "fewer".to_owned(),
    };
    Ok(words.into_iter().map(|words| words.ok_or_else(missing)).collect::<Result<_>>()?)
}

/// Indexes of captions in the order in which [`encode_by_length`] encodes them.
pub fn by_length(captions: &[Vec<u32>]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..captions.len()).collect();
    order.sort_by_key(|&index| captions[index].len());
    order
}

/// A device, as the user writes it: `auto`, `cpu`, `cuda` or `cuda:N`.
///
/// ```
/// use laps_model::encoder::Device;
///
/// assert_eq!("cuda:1".parse::<Device>()?, Device::Cuda(1));
/// assert!("gpu".parse::<Device>().is_err());
/// # Ok::<(), laps_model::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The best available device.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU with this index, from 0.
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

/// Runs the model definition on a [`DeviceTensor`].
pub struct ModelEncoder<T: DeviceTensor> {
    model: Laps<T>,
    device: T::Device,
    vocab_size: usize,
    max_length: usize,
}

impl<T: DeviceTensor> ModelEncoder<T> {
    /// Builds the model of `config` on `device`. `read` returns the values of a parameter.
    pub fn new(
        config: &ModelConfig,
        device: T::Device,
        read: impl Fn(&Parameter) -> Result<Array> + 'static,
    ) -> Result<Self>
    where
        T: 'static,
        T::Device: 'static,
    {
        let target = device.clone();
        let path = ParamPath::root(std::rc::Rc::new(move |parameter: Parameter| {
            let array = read(&parameter)?;
            parameter.check_shape(&array)?;
            T::upload(&array, &target)
        }));
        let (vocab_size, max_length) = (config.text.vocab_size, config.text.max_position_embeddings);
        Ok(Self { model: Laps::new(config, &path)?, device, vocab_size, max_length })
    }

    /// The model.
    pub fn model(&self) -> &Laps<T> {
        &self.model
    }

    /// Similarity of every image with every caption by the generic definition: patch embeddings `(images, patches, width)` and word embeddings `(words, width)` of each caption to
    /// `(images, captions)`.
    pub fn similarities(&self, images: &Array, captions: &[Array]) -> Result<Array> {
        let (words, mask) = pad_words(captions)?;
        let upload = |array| T::upload(array, &self.device);
        let (images, words, mask) = (upload(images)?, upload(&words)?, upload(&mask)?);
        self.model.head.forward(&images, &words, &mask)?.download()
    }
}

impl<T: DeviceTensor> Encoder for ModelEncoder<T> {
    fn encode_images(&self, pixels: &Array) -> Result<Array> {
        pool_images(&self.model.head, self.model.image.forward(&T::upload(pixels, &self.device)?)?)?.download()
    }

    fn encode_captions(&self, captions: &[&[u32]]) -> Result<Vec<Array>> {
        let (words, mask) = self.words(captions)?;
        // Without padding, so that the vector of a caption does not depend on its batch: the prompt of `d2s_vse` reads padding.
        if self.model.head.pools() {
            let vector = |(row, caption): (usize, &&[u32])| {
                let words = words.narrow(0, row, 1)?.narrow(1, 0, caption.len())?;
                let mask = mask.narrow(0, row, 1)?.narrow(1, 0, caption.len())?;
                self.model.head.caption_vectors(&words, &mask).unwrap_or(Ok(words))?.download()
            };
            return captions.iter().enumerate().map(vector).collect();
        }
        let words = words.download()?;
        let [_, length, width] = *words.dims() else { return Ok(Vec::new()) };
        captions
            .iter()
            .zip(words.values().chunks_exact((length * width).max(1)))
            .map(|(caption, row)| Array::new(&[caption.len(), width], row[..caption.len() * width].to_vec()))
            .collect()
    }

    fn encode_padded(&self, captions: &[&[u32]]) -> Result<Vec<Array>> {
        let (words, mask) = self.words(captions)?;
        let encoded = match self.model.head.caption_vectors(&words, &mask) {
            Some(vectors) => {
                let vectors = vectors?;
                let [captions, size] = vectors.sizes()?;
                vectors.reshape(&[captions, 1.into(), size])?
            }
            None => words,
        };
        let encoded = encoded.download()?;
        let [_, length, width] = *encoded.dims() else { return Ok(Vec::new()) };
        let rows = encoded.values().chunks_exact((length * width).max(1));
        rows.map(|row| Array::new(&[length, width], row.to_vec())).collect()
    }
}

impl<T: DeviceTensor> ModelEncoder<T> {
    /// Word embeddings `(captions, longest, width)` and the mask `(captions, longest)`.
    fn words(&self, captions: &[&[u32]]) -> Result<(T, T)> {
        let length = captions.iter().map(|caption| caption.len()).max().unwrap_or(0);
        // Out-of-range ids are a sticky CUDA error, so they are rejected before the upload.
        let (vocab_size, max_length) = (self.vocab_size, self.max_length);
        let largest = captions.iter().flat_map(|caption| caption.iter()).max().map_or(0, |&largest| largest as usize);
        if largest >= vocab_size || length > max_length {
            return Err(Error::Operation {
                operation: "encode_captions",
                expected: format!("at most {max_length} tokens below {vocab_size}"),
                found: format!("{length} tokens, the largest {largest}"),
            });
        }
        let (input_ids, mask) = pad_input_ids(captions)?;
        let mask = T::upload(&mask, &self.device)?;
        Ok((self.model.text.forward(&T::upload(&input_ids, &self.device)?, &mask)?, mask))
    }
}

/// Token embeddings `(images, tokens, width)` as they are, or the vectors `(images, 1, size)` of a head that pools.
fn pool_images<T: Tensor>(head: &Head<T>, tokens: T) -> Result<T> {
    let Some(vectors) = head.image_vectors(&tokens) else { return Ok(tokens) };
    let vectors = vectors?;
    let [images, size] = vectors.sizes()?;
    vectors.reshape(&[images, 1.into(), size])
}

/// An encoder of tokens and words, and the head that pools them. For engines that run the encoders alone.
pub struct PooledEncoder<E> {
    encoder: E,
    head: Head<Array>,
}

impl<E: Encoder> PooledEncoder<E> {
    /// `sizes` are those of the embeddings of `encoder`; `read` returns the values of a parameter of the head.
    ///
    /// # Errors
    /// A parameter that cannot be loaded.
    pub fn new(
        encoder: E,
        head: &HeadConfig,
        sizes: &HeadSizes,
        read: impl Fn(&Parameter) -> Result<Array> + 'static,
    ) -> Result<Self> {
        let path = ParamPath::root(std::rc::Rc::new(move |parameter: Parameter| read(&parameter)));
        Ok(Self { encoder, head: Head::new(head, sizes, &path)? })
    }
}

impl<E: Encoder> Encoder for PooledEncoder<E> {
    fn encode_images(&self, pixels: &Array) -> Result<Array> {
        pool_images(&self.head, self.encoder.encode_images(pixels)?)
    }

    fn encode_captions(&self, captions: &[&[u32]]) -> Result<Vec<Array>> {
        self.pool(captions, self.encoder.encode_captions(captions)?)
    }

    fn encode_padded(&self, captions: &[&[u32]]) -> Result<Vec<Array>> {
        self.pool(captions, self.encoder.encode_padded(captions)?)
    }
}

impl<E: Encoder> PooledEncoder<E> {
    /// The vectors of `captions`, from the embeddings `(positions, width)` of each.
    fn pool(&self, captions: &[&[u32]], words: Vec<Array>) -> Result<Vec<Array>> {
        let pool = |(caption, words): (&&[u32], Array)| -> Result<Array> {
            let [length, width] = words.sizes()?;
            let mut mask = vec![0.0; length.fixed()?];
            mask.iter_mut().take(caption.len()).for_each(|present| *present = 1.0);
            let mask = Array::new(&[1, mask.len()], mask)?;
            self.head.caption_vectors(&words.reshape(&[1.into(), length, width])?, &mask).unwrap_or(Ok(words))
        };
        captions.iter().zip(words).map(pool).collect()
    }
}

/// Pads `input_ids` to the longest caption: ids and attention mask, both `(captions, length)`.
pub fn pad_input_ids(captions: &[&[u32]]) -> Result<(Array, Array)> {
    let length = captions.iter().map(|caption| caption.len()).max().unwrap_or(0);
    let mut input_ids = vec![0.0; captions.len() * length];
    let mut mask = input_ids.clone();
    for (row, caption) in captions.iter().enumerate() {
        for (column, &id) in caption.iter().enumerate() {
            input_ids[row * length + column] = id as f32;
            mask[row * length + column] = 1.0;
        }
    }
    let shape = [captions.len(), length];
    Ok((Array::new(&shape, input_ids)?, Array::new(&shape, mask)?))
}

/// Pads word embeddings `(words, width)` of captions to one length. Returns `(captions, words, width)` and the mask
/// `(captions, words)`, 1 for a word and 0 for padding.
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::random::SplitMix64;

    const HEAD: &str =
        r#"{ "type": "d2s_vse", "embed_size": 8, "mlp_size": 6, "prompt_tokens": 3, "blocks": 1, "heads": 2 }"#;

    fn model(head: HeadConfig, embed_size: usize) -> ModelConfig {
        let image = json!({
            "model_type": "vit", "image_size": 16, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "intermediate_size": 16,
        });
        let text = json!({
            "model_type": "bert", "vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 16, "max_position_embeddings": 8,
        });
        let mut model: ModelConfig =
            serde_json::from_value(json!({ "image": image, "text": text, "embed_size": embed_size })).unwrap();
        model.head = head;
        model.check().unwrap();
        model
    }

    fn read(parameter: &Parameter) -> Result<Array> {
        let mut random = SplitMix64::named(5, &parameter.name);
        let is_variance = parameter.name.ends_with("running_var");
        let value = |value: f32| if is_variance { 0.5 + value.abs() } else { 0.3 * value };
        Array::new(&parameter.shape, (0..parameter.elements()).map(|_| value(random.normal() as f32)).collect())
    }

    fn difference(one: &Array, other: &Array) -> f32 {
        assert_eq!(one.dims(), other.dims());
        one.values().iter().zip(other.values()).map(|(one, other)| (one - other).abs()).fold(0.0, f32::max)
    }

    /// The prompt of `d2s_vse` reads padding, so that the vector of a caption depends on the longest of its batch, if and only if
    /// captions are encoded with padding.
    #[test]
    fn padding_reaches_the_vectors_of_padded_captions_only() {
        let head: HeadConfig = serde_json::from_str(HEAD).unwrap();
        let config = model(head, 8);
        let encoder = ModelEncoder::<Array>::new(&config, (), read).unwrap();
        let captions: [&[u32]; 2] = [&[1, 7, 9, 11, 12, 2], &[1, 8, 2]];
        let alone: Vec<Array> =
            captions.iter().map(|&caption| encoder.encode_captions(&[caption]).unwrap().remove(0)).collect();
        let unpadded = encoder.encode_captions(&captions).unwrap();
        let padded = encoder.encode_padded(&captions).unwrap();
        assert!(padded.iter().all(|vector| vector.dims() == [1, 8]));
        for (one, other) in [(&unpadded[0], &alone[0]), (&unpadded[1], &alone[1]), (&padded[0], &alone[0])] {
            // Sums in f32 in another order.
            assert!(difference(one, other) < 1e-5);
        }
        assert!(difference(&padded[1], &alone[1]) > 1e-3);

        // The vectors are those of the definition, from hidden states of all positions; an engine that runs the encoders alone
        // has the same ones.
        let plain = || ModelEncoder::<Array>::new(&model(HeadConfig::MaxMean, 16), (), read).unwrap();
        let words = plain().encode_padded(&captions).unwrap();
        assert!(words.iter().all(|words| words.dims() == [6, 16]));
        let path = ParamPath::root(std::rc::Rc::new(|parameter: Parameter| read(&parameter)));
        let definition = Head::<Array>::of(&config, &path).unwrap();
        let (words, _) = pad_words(&words).unwrap();
        let mask = Array::new(&[2, 6], vec![1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]).unwrap();
        let expected = definition.caption_vectors(&words, &mask).unwrap().unwrap();
        let pooled = PooledEncoder::new(plain(), &head, &HeadSizes::of(&config), read).unwrap();
        for (row, (found, pooled)) in padded.iter().zip(pooled.encode_padded(&captions).unwrap()).enumerate() {
            assert!(difference(found, &expected.rows(row..row + 1).unwrap()) < 1e-5);
            assert!(difference(found, &pooled) < 1e-5);
        }
    }
}
