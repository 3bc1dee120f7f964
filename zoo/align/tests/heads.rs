//! The similarity engine of the heads besides LAPS's, against golden tensors of the original implementations.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at what is not as it should be")]

#[path = "../../model/tests/support/mod.rs"]
mod support;

use laps_align::similarity::{CaptionMatrix, EngineOptions, HeadEngine, SimdLevel, SimilarityEngine};
use laps_model::{
    array::Array,
    heads::{ChanAggregation, Head, HeadConfig, HeadSizes, Pooling},
    params::{ParamPath, Parameter},
    tensor::Tensor,
};
use support::Tensors;

/// As for the definition: dropping the class token changes the similarities by 1e-3 or more, correct f32 code by 1e-6.
const TOLERANCE: f32 = 1e-5;

fn heads() -> Vec<(&'static str, HeadConfig)> {
    vec![
        ("scan_t2i", HeadConfig::ScanT2i),
        ("scan_i2t", HeadConfig::ScanI2t),
        ("scan_all", HeadConfig::ScanAll),
        ("max_mean", HeadConfig::MaxMean),
        ("chan", HeadConfig::Chan { aggregation: ChanAggregation::Mean }),
        ("chan_lse", HeadConfig::Chan { aggregation: ChanAggregation::Lse }),
        ("sgr", HeadConfig::Sgr { sim_dim: 40, steps: 3 }),
        ("vsepp_mean", HeadConfig::Vsepp { pooling: Pooling::Mean }),
        ("vsepp_gpo", HeadConfig::Vsepp { pooling: Pooling::Gpo }),
    ]
}

/// Golden inputs: one vector an item for a head that pools, otherwise all tokens and the words without padding.
struct Inputs {
    sizes: HeadSizes,
    images: Array,
    captions: CaptionMatrix,
}

fn inputs(golden: &Tensors, head: HeadConfig, has_class_token: bool) -> Inputs {
    let (images, words) = (golden.get("images"), golden.get("words"));
    let lengths: Vec<usize> = golden.get("lengths").values().iter().map(|&length| length as usize).collect();
    let [_, tokens, width] = *images.dims() else { panic!("images of {:?}", images.dims()) };
    let sizes = HeadSizes { tokens, has_class_token, width, word_width: width };
    let words = lengths.iter().enumerate().map(|(row, &length)| words.narrow(0, row, 1).unwrap().narrow(1, 0, length));
    let words: Vec<Array> = words.map(Result::unwrap).collect();
    let mut captions = CaptionMatrix::new(width);
    if !head.pools() {
        for (words, &length) in words.iter().zip(&lengths) {
            captions.push(&[length, width], words.values()).unwrap();
        }
        return Inputs { sizes, images, captions };
    }
    let file = golden.clone();
    let path = ParamPath::root(std::rc::Rc::new(move |parameter: Parameter| Ok(file.get(&parameter.name))));
    let definition = Head::<Array>::new(&head, &sizes, &path).unwrap();
    for (words, &length) in words.iter().zip(&lengths) {
        let mask = Array::new(&[1, length], vec![1.0; length]).unwrap();
        let vector = definition.caption_vectors(words, &mask).unwrap().unwrap();
        captions.push(vector.dims(), vector.values()).unwrap();
    }
    let vectors = definition.image_vectors(&images).unwrap().unwrap();
    let images = Array::new(&[vectors.dims()[0], 1, width], vectors.values().to_vec()).unwrap();
    Inputs { sizes: HeadSizes { tokens: 1, ..sizes }, images, captions }
}

/// Every instruction set gives the golden similarities, and any number of threads and any tiles give the same bits.
#[test]
fn head_engine_agrees_with_the_originals() {
    for (name, head) in heads() {
        for (geometry, has_class_token) in [("vit", true), ("swin", false)] {
            let file = format!("head_{name}_{geometry}.safetensors");
            // The tensors at ViT's geometry are large, so only the reference data holds them.
            let shared = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/golden/");
            let file = if has_class_token { format!("{shared}{file}") } else { file };
            if !support::golden(&file).exists() {
                println!("skipped: there is no `{file}`");
                continue;
            }
            let golden = Tensors::open(&file);
            let Inputs { sizes, images, captions } = inputs(&golden, head, has_class_token);
            for level in SimdLevel::available() {
                let compute = |threads, memory_limit| {
                    let read = |parameter: &Parameter| Ok(golden.get(&parameter.name));
                    let options = EngineOptions { threads, memory_limit };
                    let engine = HeadEngine::with_sizes(head, sizes, read, options, level).unwrap();
                    engine.similarities(&images, &captions).unwrap()
                };
                let found = compute(1, 1 << 30);
                let expected = golden.get("sims");
                let differences = found.values().iter().zip(expected.values()).map(|(a, b)| (a - b).abs());
                let largest = differences.fold(0.0, f32::max);
                println!("{name} {geometry} {}: largest difference {largest:e}", level.name());
                assert!(largest < TOLERANCE, "{name} {geometry} {}: {largest:e}", level.name());
                let bits = |array: &Array| array.values().iter().map(|value| value.to_bits()).collect::<Vec<_>>();
                // The smallest plan has one image a tile.
                assert_eq!(bits(&compute(3, 3 << 21)), bits(&found), "{name} {geometry} {}", level.name());
            }
        }
    }
}
