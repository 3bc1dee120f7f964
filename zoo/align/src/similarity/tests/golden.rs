//! The engine against golden tensors of the authors' implementation.

use std::{collections::HashMap, path::Path};

use crate::{
    Result,
    similarity::{AggregationWeights, AlignmentConfig, CaptionMatrix, Engine, EngineOptions, simd::SimdLevel},
};
use laps_model::array::Array;

fn read(name: &str) -> HashMap<String, Array> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name);
    let bytes = std::fs::read(&path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    file.iter()
        .map(|(name, view)| {
            let values = match view.dtype() {
                safetensors::Dtype::F32 => {
                    view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
                }
                safetensors::Dtype::I64 => {
                    view.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f32).collect()
                }
                _ => return (name.to_owned(), Array::new(&[0], Vec::new()).unwrap()),
            };
            (name.to_owned(), Array::new(view.shape(), values).unwrap())
        })
        .collect()
}

/// Removes the padding of captions.
fn captions(padded: &Array, lengths: &Array) -> Vec<Array> {
    let &[_, most, width] = padded.dims() else { panic!("captions of shape {:?}", padded.dims()) };
    let lengths = lengths.values().iter().map(|&length| length as usize);
    lengths
        .zip(padded.values().chunks_exact(most * width))
        .map(|(length, words)| Array::new(&[length, width], words[..length * width].to_vec()).unwrap())
        .collect()
}

fn weights(tensors: &HashMap<String, Array>) -> AggregationWeights {
    AggregationWeights::load(|name| -> Result<Array> { Ok(tensors[name].clone()) }).unwrap()
}

fn config(swin: bool, width: usize) -> AlignmentConfig {
    if swin {
        AlignmentConfig { patches: 49, has_class_token: false, kept: 40, groups: 23, width }
    } else {
        AlignmentConfig { patches: 196, has_class_token: true, kept: 98, groups: 39, width }
    }
}

/// Number of pairs that differ from the expected values by more than `bound`, and the largest difference.
fn differences(engine: &Engine, images: &Array, captions: &[Array], expected: &Array, bound: f32) -> (usize, f32) {
    let captions = CaptionMatrix::from_arrays(captions, engine.config().width).unwrap();
    let found = engine.similarities(images, &captions).unwrap();
    assert_eq!(found.dims(), expected.dims());
    let differences = found.values().iter().zip(expected.values()).map(|(found, expected)| (found - expected).abs());
    let differences: Vec<f32> = differences.collect();
    (differences.iter().filter(|&&difference| difference > bound).count(), differences.into_iter().fold(0.0, f32::max))
}

/// Bound of the reference: f32 sums of 64 products in another order. The largest observed difference is below 5e-7.
#[test]
fn golden_alignments_match_at_the_published_geometries() {
    for (name, swin) in [("vit_align", false), ("swin_align", true)] {
        let tensors = read(&format!("{name}.safetensors"));
        let captions = captions(&tensors["cap_embs"], &tensors["lengths"]);
        for level in SimdLevel::available() {
            let config = config(swin, 64);
            let engine = Engine::with_level(config, &weights(&tensors), EngineOptions::default(), level).unwrap();
            let (beyond, largest) = differences(&engine, &tensors["img_embs"], &captions, &tensors["sims"], 2e-6);
            println!("{name} {}: largest difference {largest:e}", level.name());
            assert_eq!(beyond, 0, "{name} {}: {largest:e}", level.name());
        }
    }
}

#[test]
fn golden_embeddings_of_the_tiny_models_match() {
    for (name, swin, width) in [("vit", false, 24), ("swin", true, 96)] {
        let tensors = read(&format!("{name}_forward.safetensors"));
        let parameters = read(&format!("{name}_tiny.safetensors"));
        let captions = captions(&tensors["cap_emb"], &tensors["lengths"]);
        let config = config(swin, width);
        let engine = Engine::new(config, &weights(&parameters), EngineOptions::default()).unwrap();
        let (beyond, largest) = differences(&engine, &tensors["img_emb"], &captions, &tensors["sims"], 2e-6);
        println!("{name}: largest difference {largest:e}");
        assert_eq!(beyond, 0, "{name}: {largest:e}");
    }
}

/// Images 2 and 3 of the golden files are equal.
#[test]
fn equal_images_have_bit_identical_similarities() {
    for (name, swin) in [("vit_align", false), ("swin_align", true)] {
        let tensors = read(&format!("{name}.safetensors"));
        let captions = captions(&tensors["cap_embs"], &tensors["lengths"]);
        let captions = CaptionMatrix::from_arrays(&captions, 64).unwrap();
        let engine = Engine::new(config(swin, 64), &weights(&tensors), EngineOptions::default()).unwrap();
        let found = engine.similarities(&tensors["img_embs"], &captions).unwrap();
        let row = |image: usize| &found.values()[image * captions.len()..][..captions.len()];
        assert_eq!(row(2), row(3));
        assert_ne!(row(2), row(4));
    }
}
