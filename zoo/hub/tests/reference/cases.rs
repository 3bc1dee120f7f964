//! The model definitions against tensors of the reference implementation, on every tensor.
#![allow(clippy::unwrap_used, clippy::panic)] // only tests use it

use crate::support::{Tensors, difference, golden};
use laps_hub::checkpoint::Checkpoint;
use laps_model::{
    array::Array,
    encoder::{Encoder, ModelEncoder, pad_words},
    models::{self, alignment::Alignment, config::ModelConfig},
    params::{ParamPath, Parameter},
    tensor::{DeviceTensor, Tensor},
};

/// The bound that the reference asks for: f32 sums in another order.
const EMBEDDINGS: f32 = 1e-5;
/// Alignment alone has shorter sums and values up to 2.
const SIMILARITIES: f32 = 2e-6;

/// The weights come from every container that they are stored in.
pub fn encoders_agree<T: DeviceTensor + 'static>(name: &str, config: &ModelConfig, device: T::Device)
where
    T::Device: 'static,
{
    let containers = ["tiny.safetensors", "tiny.pth", "tiny_legacy.pth"].map(|end| golden(&format!("{name}_{end}")));
    let containers: Vec<_> = containers.into_iter().filter(|path| path.exists()).collect();
    assert_eq!(containers.len(), if name == "vit" { 3 } else { 2 });
    for container in containers {
        let checkpoint = Checkpoint::open(&container).unwrap();
        checkpoint.options().unwrap().check(config).unwrap();
        checkpoint.check(&models::parameters(config).unwrap()).unwrap();
        let read = move |parameter: &Parameter| Ok(checkpoint.read(&parameter.name)?);
        let encoder = ModelEncoder::<T>::new(config, device.clone(), read).unwrap();
        // What a table has not is refused, and changes nothing.
        let beyond = config.text.vocab_size as u32;
        assert!(encoder.encode_captions(&[&[1, beyond]]).is_err());
        assert!(encoder.encode_captions(&[&[1; 513]]).is_err());
        encoder_agrees(name, &encoder);
    }
}

pub fn encoder_agrees<T: DeviceTensor + 'static>(name: &str, encoder: &ModelEncoder<T>) {
    let forward = Tensors::open(&format!("{name}_forward.safetensors"));

    let images = encoder.encode_images(&forward.get("images")).unwrap();
    let drift = difference(&images, &forward.get("img_emb"));
    assert!(drift <= EMBEDDINGS, "image embeddings differ by {drift}");

    let tokens = forward.get("tokens");
    let length = tokens.dims()[1];
    let lengths: Vec<usize> = forward.get("lengths").values().iter().map(|&length| length as usize).collect();
    let rows: Vec<Vec<u32>> =
        tokens.values().chunks(length).map(|row| row.iter().map(|&id| id as u32).collect()).collect();
    let captions: Vec<&[u32]> = rows.iter().zip(&lengths).map(|(row, &length)| &row[..length]).collect();
    let words = encoder.encode_captions(&captions).unwrap();
    let expected = forward.get("cap_emb");
    for (row, words) in words.iter().enumerate() {
        let expected = expected.rows(row..row + 1).unwrap();
        let expected = expected.narrow(1, 0, lengths[row]).unwrap();
        let drift = difference(words, &expected.reshape(&words.shape()).unwrap());
        assert!(drift <= EMBEDDINGS, "word embeddings of caption {row} differ by {drift}");
    }

    let similarities = encoder.similarities(&images, &words).unwrap();
    let drift = difference(&similarities, &forward.get("sims"));
    assert!(drift <= EMBEDDINGS, "similarities differ by {drift}");
}

pub fn alignment_agrees<T: DeviceTensor + 'static>(name: &str, mut config: ModelConfig, device: &T::Device)
where
    T::Device: 'static,
{
    config.embed_size = 64;
    let golden = Tensors::open(&format!("{name}_align.safetensors"));
    let (images, captions, expected) = (golden.get("img_embs"), golden.get("cap_embs"), golden.get("sims"));
    let lengths = golden.get("lengths");
    let place = device.clone();
    let path = ParamPath::root(std::rc::Rc::new(move |p: Parameter| T::upload(&golden.get(&p.name), &place)));
    let alignment = Alignment::<T>::new(&config, &path.sub("cross_net")).unwrap();

    let words: Vec<Array> = (0..captions.dims()[0])
        .map(|row| {
            let words = captions.rows(row..row + 1).unwrap().narrow(1, 0, lengths.values()[row] as usize).unwrap();
            let shape: Vec<usize> = words.dims()[1..].to_vec();
            Array::new(&shape, words.into_values()).unwrap()
        })
        .collect();
    let (words, mask) = pad_words(&words).unwrap();
    let upload = |array: &Array| T::upload(array, device).unwrap();
    let found = alignment.forward(&upload(&images), &upload(&words), &upload(&mask)).unwrap().download().unwrap();
    let drift = difference(&found, &expected);
    assert!(drift <= SIMILARITIES, "similarities differ by {drift}");
}
