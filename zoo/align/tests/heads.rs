//! The similarity engine of the heads besides LAPS's, against golden tensors of the original implementations.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at what is not as it should be")]

#[path = "../../model/tests/support/mod.rs"]
mod support;

use laps_align::similarity::{AlignmentConfig, CaptionMatrix, EngineOptions, HeadEngine, SimdLevel, SimilarityEngine};
use laps_model::{
    array::Array,
    heads::{Ablation, ChanAggregation, D2sVseConfig, Head, HeadConfig, HeadSizes, Pooling, parameters},
    models::config::ModelConfig,
    params::{ParamPath, Parameter},
    params_init::init_parameters,
    random::SplitMix64,
    tensor::Tensor,
};
use support::Tensors;

/// As for the definition: dropping the class token changes the similarities by 1e-3 or more, correct f32 code by 1e-6.
const TOLERANCE: f32 = 1e-5;

/// Each head's file name and configuration, and the tensor of its similarities.
fn heads() -> Vec<(&'static str, HeadConfig, &'static str)> {
    let d2s_vse = D2sVseConfig { embed_size: 48, mlp_size: 24, prompt_tokens: 5, blocks: 2, heads: 4 };
    let plain = [
        ("scan_t2i", HeadConfig::ScanT2i),
        ("scan_i2t", HeadConfig::ScanI2t),
        ("scan_all", HeadConfig::ScanAll),
        ("max_mean", HeadConfig::MaxMean),
        ("chan", HeadConfig::Chan { aggregation: ChanAggregation::Mean }),
        ("chan_lse", HeadConfig::Chan { aggregation: ChanAggregation::Lse }),
        ("sgr", HeadConfig::Sgr { sim_dim: 40, steps: 3 }),
        ("vsepp_mean", HeadConfig::Vsepp { pooling: Pooling::Mean }),
        ("vsepp_cls", HeadConfig::Vsepp { pooling: Pooling::Cls }),
        ("vsepp_gpo", HeadConfig::Vsepp { pooling: Pooling::Gpo }),
    ];
    let plain = plain.into_iter().map(|(name, head)| (name, head, "sims"));
    // The words of a caption alone: `d2s_vse` does not see padding. A first-stage model has no prompt.
    let d2s_vse = [(d2s_vse, "sims_unpadded"), (D2sVseConfig { prompt_tokens: 0, ..d2s_vse }, "sims_pretrain")];
    plain.chain(d2s_vse.map(|(config, key)| ("d2s_vse", HeadConfig::D2sVse(config), key))).collect()
}

/// Golden inputs: one vector an item for a head that pools, otherwise all tokens and the words without padding.
struct GoldenInputs {
    sizes: HeadSizes,
    images: Array,
    captions: CaptionMatrix,
}

fn inputs(golden: &Tensors, head: HeadConfig, has_class_token: bool) -> GoldenInputs {
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
        return GoldenInputs { sizes, images, captions };
    }
    let file = golden.clone();
    let path = ParamPath::root(std::rc::Rc::new(move |parameter: Parameter| Ok(file.get(&parameter.name))));
    let definition = Head::<Array>::new(&head, &sizes, &path).unwrap();
    let vectors = definition.image_vectors(&images).unwrap().unwrap();
    let [count, width] = *vectors.dims() else { panic!("vectors of {:?}", vectors.dims()) };
    let images = Array::new(&[count, 1, width], vectors.values().to_vec()).unwrap();
    let mut captions = CaptionMatrix::new(width);
    for (words, &length) in words.iter().zip(&lengths) {
        let mask = Array::new(&[1, length], vec![1.0; length]).unwrap();
        let vector = definition.caption_vectors(words, &mask).unwrap().unwrap();
        captions.push(vector.dims(), vector.values()).unwrap();
    }
    GoldenInputs { sizes: HeadSizes { tokens: 1, width, word_width: width, ..sizes }, images, captions }
}

/// Every instruction set gives the golden similarities, and any number of threads and any tiles give the same bits.
#[test]
fn head_engine_agrees_with_the_originals() {
    for (name, head, key) in heads() {
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
            let GoldenInputs { sizes, images, captions } = inputs(&golden, head, has_class_token);
            for level in SimdLevel::available() {
                let compute = |threads, memory_limit| {
                    let read = |parameter: &Parameter| Ok(golden.get(&parameter.name));
                    let options = EngineOptions { threads, memory_limit };
                    let engine = HeadEngine::with_sizes(head, sizes, read, options, level).unwrap();
                    engine.similarities(&images, &captions).unwrap()
                };
                let found = compute(1, 1 << 30);
                let expected = golden.get(key);
                let differences = found.values().iter().zip(expected.values()).map(|(a, b)| (a - b).abs());
                let largest = differences.fold(0.0, f32::max);
                println!("{name} {geometry} {}, {key}: largest difference {largest:e}", level.name());
                assert!(largest < TOLERANCE, "{name} {geometry} {}, {key}: {largest:e}", level.name());
                let bits = |array: &Array| array.values().iter().map(|value| value.to_bits()).collect::<Vec<_>>();
                // The smallest plan has one image a tile.
                assert_eq!(bits(&compute(3, 3 << 21)), bits(&found), "{name} {geometry} {}", level.name());
            }
        }
    }
}

/// Widths that fill no vector, a caption of one word, one step and several.
#[test]
fn sgr_agrees_with_the_definition_at_odd_sizes() {
    let random = |name: &str, shape: &[usize]| {
        let mut random = SplitMix64::named(5, name);
        Array::new(shape, (0..shape.iter().product()).map(|_| random.normal() as f32).collect()).unwrap()
    };
    for (tokens, width, sim_dim, steps) in [(7, 19, 11, 1), (33, 48, 33, 2)] {
        let head = HeadConfig::Sgr { sim_dim, steps };
        let sizes = HeadSizes { tokens, has_class_token: false, width, word_width: width };
        // Weights of 1 and more, so that the softmax of a step prefers some nodes.
        let read = |parameter: &Parameter| {
            let array = init_parameters(std::slice::from_ref(parameter), 3).unwrap().swap_remove(0).1;
            let factor = if parameter.name.contains("graph_") { 4.0 } else { 1.0 };
            Array::new(array.dims(), array.values().iter().map(|value| value * factor).collect())
        };
        assert!(parameters(&head, &sizes).unwrap().len() > 20);
        let path = ParamPath::root(std::rc::Rc::new(move |parameter: Parameter| read(&parameter)));
        let definition = Head::<Array>::new(&head, &sizes, &path).unwrap();
        let images = random("images", &[5, tokens, width]);
        let lengths = [1, 4, 40, 2, 3];
        let words: Vec<Array> =
            lengths.iter().map(|&length| random(&format!("{length} words"), &[1, length, width])).collect();
        let mut captions = CaptionMatrix::new(width);
        for (words, &length) in words.iter().zip(&lengths) {
            captions.push(&[length, width], words.values()).unwrap();
        }
        for level in SimdLevel::available() {
            let engine = HeadEngine::with_sizes(head, sizes, read, EngineOptions::default(), level).unwrap();
            let found = engine.similarities(&images, &captions).unwrap();
            for (caption, (words, &length)) in words.iter().zip(&lengths).enumerate() {
                let mask = Array::new(&[1, length], vec![1.0; length]).unwrap();
                let expected = definition.forward(&images, words, &mask).unwrap();
                for (image, &expected) in expected.values().iter().enumerate() {
                    let found = found.values()[image * lengths.len() + caption];
                    assert!((found - expected).abs() < TOLERANCE, "{image}, {caption}: {found} and {expected}");
                }
            }
        }
    }
}

/// The norms of tokens and words reach the engine: the selection depends on the means of both.
#[test]
fn ablations_agree_with_their_definition() {
    let model = serde_json::json!({
        "image": {
            "model_type": "vit", "image_size": 40, "patch_size": 8, "hidden_size": 24, "num_hidden_layers": 1,
            "num_attention_heads": 2, "intermediate_size": 16, "layer_norm_eps": 1e-6,
        },
        "text": {
            "model_type": "bert", "vocab_size": 10, "hidden_size": 24, "num_hidden_layers": 1,
            "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 8, "type_vocab_size": 2,
            "layer_norm_eps": 1e-12,
        },
        "embed_size": 24, "sparse_ratio": 0.5, "aggr_ratio": 0.4,
    });
    let mut model: ModelConfig = serde_json::from_value(model).unwrap();
    let random = |name: &str, shape: &[usize]| {
        let mut random = SplitMix64::named(5, name);
        // Some vectors are much longer than others.
        let values = (0..shape.iter().product()).map(|_| random.normal().powi(3) as f32);
        Array::new(shape, values.collect()).unwrap()
    };
    let images = random("images", &[4, 26, 24]);
    let lengths = [5, 1, 3];
    let words: Vec<Array> =
        lengths.iter().map(|&length| random(&format!("{length} words"), &[1, length, 24])).collect();
    let mut captions = CaptionMatrix::new(24);
    for (words, &length) in words.iter().zip(&lengths) {
        captions.push(&[length, 24], words.values()).unwrap();
    }
    for ablation in Ablation::ALL {
        model.head = HeadConfig::LapsAblation { ablation };
        let read = |parameter: &Parameter| {
            init_parameters(std::slice::from_ref(parameter), 3).map(|mut made| made.swap_remove(0).1)
        };
        let path = ParamPath::root(std::rc::Rc::new(move |parameter: Parameter| read(&parameter)));
        let definition = Head::<Array>::of(&model, &path).unwrap();
        let expected = words.iter().zip(&lengths).map(|(words, &length)| {
            let mask = Array::new(&[1, length], vec![1.0; length]).unwrap();
            definition.forward(&images, words, &mask).unwrap().values().to_vec()
        });
        let expected: Vec<Vec<f32>> = expected.collect();
        for level in SimdLevel::available() {
            let compute = |threads, memory_limit| {
                let (sizes, options) = (AlignmentConfig::of(&model), EngineOptions { threads, memory_limit });
                let engine = HeadEngine::of_ablation(ablation, sizes, read, options, level).unwrap();
                engine.similarities(&images, &captions).unwrap().values().to_vec()
            };
            let found = compute(1, 1 << 30);
            for (caption, expected) in expected.iter().enumerate() {
                for (image, &expected) in expected.iter().enumerate() {
                    let found = found[image * lengths.len() + caption];
                    let case = format!("{ablation:?} {} {image}, {caption}", level.name());
                    assert!((found - expected).abs() < TOLERANCE, "{case}: {found}, {expected}");
                }
            }
            assert_eq!(compute(3, 1 << 20), found, "{ablation:?}");
            if level == SimdLevel::detect() {
                let engine = HeadEngine::new(&model, read, EngineOptions::default()).unwrap();
                assert_eq!(engine.similarities(&images, &captions).unwrap().values(), found, "{ablation:?}");
            }
        }
    }
}
